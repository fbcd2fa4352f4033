//! The routes of an earlier layout, with what they point to.

use std::hash::Hash;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData};
use bytemuck::{Pod, Zeroable};
use dataplane_common::{
    endpoint::Endpoint,
    names::{MAP_ENDPOINTS, MAP_NEXT_HOPS, MAP_ROUTE_ROOT, MAP_ROUTE_SLABS},
    net::{Ipv4Be, MacPair},
    next_hop::NextHop,
    route::Target,
};
use ipnet::Ipv4Net;

use crate::{
    kernel::{
        pins::Pins,
        slots::Slots,
        table::{Mapped, Table},
    },
    wanted::Destination,
};

/// A slot of the endpoint table up to layout 3.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub(super) struct Endpoint3 {
    address: Ipv4Be,
    ifindex: u32,
    mtu: u32,
    macs: MacPair,
    flags: u32,
    reserved: u32,
}

/// A slot of the next-hop table up to layout 3.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub(super) struct NextHop3 {
    gateway: Ipv4Be,
    ifindex: u32,
    mtu: u32,
    translates: u32,
}

impl From<Endpoint3> for Endpoint {
    fn from(old: Endpoint3) -> Self {
        let Endpoint3 { address, ifindex, mtu, macs, flags, .. } = old;
        Self { address, ifindex, mtu, macs, flags, reserved: [0; 9] }
    }
}

impl From<NextHop3> for NextHop {
    /// Without the address that translated packets get: none that begin a flow are forwarded before the new tables are in use,
    /// and the daemon sets it before.
    fn from(old: NextHop3) -> Self {
        let NextHop3 { gateway, ifindex, mtu, translates } = old;
        Self { gateway, ifindex, mtu, translates, source: Ipv4Be::UNSPECIFIED, reserved: [0; 3] }
    }
}

/// The routes that are pinned there, whose slots are of these types.
pub(super) fn read<E, N>(pins: &Pins) -> Result<Vec<(Ipv4Net, Destination)>>
where
    E: Pod + Eq + Hash + Into<Endpoint>,
    N: Pod + Eq + Hash + Into<NextHop>,
{
    let map = |name: &str| -> Result<Map> {
        let path = pins.maps().join(name);
        let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Map::from_map_data(map)?)
    };
    let memory = Mapped::pinned(map(MAP_ROUTE_ROOT)?, map(MAP_ROUTE_SLABS)?, &pins.slabs())?;
    let table = Table::open(memory)?;
    let mut endpoints = Slots::<E>::new(map(MAP_ENDPOINTS)?)?;
    let mut next_hops = Slots::<N>::new(map(MAP_NEXT_HOPS)?)?;
    let resolve = |(prefix, target)| {
        let destination = match target {
            Target::Endpoint(index) => Destination::Endpoint(endpoints.adopt(index)?.into()),
            Target::NextHop(index) => Destination::NextHop(next_hops.adopt(index)?.into()),
            Target::Block => Destination::Block,
            Target::Kernel(reason) => Destination::Kernel(reason),
        };
        Ok((prefix, destination))
    };
    table.routes().map(resolve).collect()
}
