//! The data path's tables as one thing: destinations go in by prefix, and come out as the programs see them.

use std::{fmt, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use dataplane_common::{
    endpoint::Endpoint,
    names::{MAP_COUNTERS, MAP_ENDPOINTS, MAP_NEXT_HOPS, MAP_ROUTE_ROOT, MAP_ROUTE_SLABS},
    next_hop::NextHop,
    reason::Reason,
    route::{Entry, Target},
    stats::{Counter, Hook},
};
use ipnet::Ipv4Net;

use crate::{
    kernel::{
        counters::Counters,
        pins::Pins,
        slots::Slots,
        table::{Mapped, Table, Usage},
    },
    wanted::Destination,
};

/// The part of a table that what other nodes announce does not get: containers, blocks and the node's own routes do.
const OWN_SHARE: u32 = 16;

/// Routes that are kept for them at most, besides one for each endpoint.
const OWN_ROUTES: u32 = 1024;

/// A table that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Full {
    /// The route table.
    Routes,
    /// The endpoint table.
    Endpoints,
    /// The next-hop table.
    NextHops,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Routes => "the route table is full: raise `datapath.max-routes`",
            Self::Endpoints => "the endpoint table is full: raise `datapath.max-endpoints`",
            Self::NextHops => "the next-hop table is full: announce or import routes by fewer routers",
        })
    }
}

impl std::error::Error for Full {}

/// Whose a route is, for the room that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The node's own: it may have all the room.
    Own,
    /// Learned from others, who may announce as much as they like.
    Learned,
}

/// The maps of the loaded programs.
pub struct Datapath {
    table: Table<Mapped>,
    endpoints: Slots<Endpoint>,
    next_hops: Slots<NextHop>,
    counters: Counters,
    max_routes: u32,
}

impl Datapath {
    /// Takes over the object's maps, with whatever an earlier run left in them. The slabs of the route table are pinned
    /// in `slabs`.
    ///
    /// # Errors
    ///
    /// Where a map has another layout, or holds what no run can have written: it is to be rebuilt then.
    pub fn open(object: &mut Ebpf, slabs: &Path, max_routes: u32) -> Result<Self> {
        Self::assemble(|name| take_map(object, name), slabs, max_routes)
    }

    /// The tables that are pinned, for reading alone.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn pinned(pins: &Pins) -> Result<Self> {
        let map = |name: &str| {
            let path = pins.maps().join(name);
            let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
            Ok(Map::from_map_data(map)?)
        };
        Self::assemble(map, &pins.slabs(), 0)
    }

    fn assemble(mut map: impl FnMut(&str) -> Result<Map>, slabs: &Path, max_routes: u32) -> Result<Self> {
        let (root, outer) = (map(MAP_ROUTE_ROOT)?, map(MAP_ROUTE_SLABS)?);
        let memory = Mapped::pinned(root, outer, slabs)?;
        let table = Table::open(memory)?;
        let mut endpoints = Slots::new(map(MAP_ENDPOINTS)?)?;
        let mut next_hops = Slots::new(map(MAP_NEXT_HOPS)?)?;
        for (_, target) in table.routes() {
            match target {
                Target::Endpoint(index) => drop(endpoints.adopt(index)?),
                Target::NextHop(index) => drop(next_hops.adopt(index)?),
                Target::Block | Target::Kernel(_) => {}
            }
        }
        let counters = Counters::new(map(MAP_COUNTERS)?)?;
        Ok(Self { table, endpoints, next_hops, counters, max_routes })
    }

    /// The prefixes that the table holds.
    pub fn prefixes(&self) -> Vec<Ipv4Net> {
        self.table.routes().map(|(prefix, _)| prefix).collect()
    }

    /// What the table says for exactly this prefix.
    pub fn get(&self, prefix: Ipv4Net) -> Option<Destination> {
        self.resolve(self.table.get(prefix)?)
    }

    /// The longest prefix that holds the address, as a packet would find it.
    pub fn lookup(&self, address: Ipv4Addr) -> Option<(Ipv4Net, Destination)> {
        let entry: Entry = self.table.lookup(address);
        let destination = self.resolve(entry.target()?)?;
        let prefix = Ipv4Net::new(address, entry.prefix_length()).ok()?.trunc();
        Some((prefix, destination))
    }

    /// What an index in a target stands for.
    pub fn resolve(&self, target: Target) -> Option<Destination> {
        Some(match target {
            Target::Endpoint(index) => Destination::Endpoint(*self.endpoints.get(index)?),
            Target::NextHop(index) => Destination::NextHop(*self.next_hops.get(index)?),
            Target::Block => Destination::Block,
            Target::Kernel(reason) => Destination::Kernel(reason),
        })
    }

    /// How many more fit into a table.
    pub fn room(&self, table: Full, claim: Claim) -> usize {
        let (used, max, own) = match table {
            Full::Routes => {
                let own = OWN_ROUTES.saturating_add(self.endpoints.capacity());
                (self.table.usage().routes, self.max_routes, own)
            }
            Full::NextHops => (self.next_hops.used(), self.next_hops.capacity(), u32::MAX),
            Full::Endpoints => (self.endpoints.used(), self.endpoints.capacity(), 0),
        };
        let kept = if claim == Claim::Own { 0 } else { own.min(max / OWN_SHARE) };
        ((max - kept) as usize).saturating_sub(used)
    }

    /// Makes the table say `wanted` for the prefix; `None` takes the route away.
    ///
    /// # Errors
    ///
    /// [`Full`] where a table has no room for such a claim, and whatever the kernel refuses; it is then as before.
    pub fn set(&mut self, prefix: Ipv4Net, wanted: Option<Destination>, claim: Claim) -> Result<()> {
        let old = self.table.get(prefix);
        if old.and_then(|target| self.resolve(target)) == wanted {
            return Ok(());
        }
        let replaced = match wanted {
            None => self.table.remove(prefix),
            Some(destination) => {
                if old.is_none() && self.room(Full::Routes, claim) == 0 {
                    return Err(Full::Routes.into());
                }
                if let Destination::NextHop(next_hop) = &destination
                    && !self.next_hops.holds(next_hop)
                    && self.room(Full::NextHops, claim) == 0
                {
                    return Err(Full::NextHops.into());
                }
                if let Destination::Endpoint(endpoint) = &destination
                    && !self.endpoints.holds(endpoint)
                    && self.room(Full::Endpoints, claim) == 0
                {
                    return Err(Full::Endpoints.into());
                }
                let target = self.acquire(destination)?;
                match self.table.insert(prefix, target) {
                    Ok(replaced) => replaced,
                    Err(error) => {
                        self.release(target);
                        return Err(error).with_context(|| format!("cannot add the route to {prefix}"));
                    }
                }
            }
        };
        if let Some(target) = replaced {
            self.release(target);
        }
        Ok(())
    }

    fn acquire(&mut self, destination: Destination) -> Result<Target> {
        let table = &mut self.table;
        Ok(match destination {
            Destination::Endpoint(endpoint) => Target::Endpoint(
                self.endpoints
                    .acquire(endpoint, || table.synchronize())
                    .context("cannot write into the endpoint table")?,
            ),
            Destination::NextHop(next_hop) => Target::NextHop(
                self.next_hops
                    .acquire(next_hop, || table.synchronize())
                    .context("cannot write into the next-hop table")?,
            ),
            Destination::Block => Target::Block,
            Destination::Kernel(reason) => Target::Kernel(reason),
        })
    }

    fn release(&mut self, target: Target) {
        match target {
            Target::Endpoint(index) => self.endpoints.release(index),
            Target::NextHop(index) => self.next_hops.release(index),
            Target::Block | Target::Kernel(_) => {}
        }
    }

    /// Returns when no program is running any more that was when it was called.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the update that waits for them.
    pub fn synchronize(&mut self) -> Result<()> {
        self.table.synchronize()
    }

    /// Pins the table's slabs again whose pins somebody removed, and says whether there were any.
    ///
    /// # Errors
    ///
    /// As [`Mapped::pin_missing`].
    pub fn pin_missing(&self) -> Result<bool> {
        self.table.memory().pin_missing()
    }

    /// What every hook counted, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Hook, Reason, Counter)>> {
        self.counters.read()
    }

    /// The route table's size.
    pub fn usage(&self) -> Usage {
        self.table.usage()
    }

    /// Endpoint slots: used, and all.
    pub fn endpoint_slots(&self) -> (usize, u32) {
        (self.endpoints.used(), self.endpoints.capacity())
    }

    /// Next-hop slots: used, and all.
    pub fn next_hop_slots(&self) -> (usize, u32) {
        (self.next_hops.used(), self.next_hops.capacity())
    }

    /// The most routes that the configuration allows.
    pub fn max_routes(&self) -> u32 {
        self.max_routes
    }
}

fn take_map(object: &mut Ebpf, name: &str) -> Result<Map> {
    object.take_map(name).with_context(|| format!("no map {name} in the BPF object"))
}
