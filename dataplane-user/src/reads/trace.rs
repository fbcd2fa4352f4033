//! `dataplane trace`: finds the hooks and tables by their pins.

use std::cell::RefCell;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use dataplane_common::{
    names::{MAP_ENDPOINTS, MAP_FLOW_INDEX, MAP_FLOW_TAKEN, PINNED_MAPS, RENEWED_MAPS},
    net::MacAddr,
};

use super::{flows::entry_at, routes::Slots};
use crate::{
    commands,
    control::{answers, client::Client},
    kernel::{attach, flows::FlowTable, interface, netlink::Netlink, object::Sizes, pinned::Pinned},
    show,
    trace::{self, Entrance, Namer, Probe},
};

/// Runs the programs on a packet, prints each step, and gives the verdict.
///
/// # Errors
///
/// Where no data path of this version is pinned, the interface has no program, or the kernel refuses to run it.
pub async fn trace(client: &Client, json: bool, probe: &Probe) -> Result<answers::Trace> {
    let pinned = super::pinned(client)?;
    let (netlink, _events) = Netlink::connect().context("cannot open netlink")?;
    let ifindex = interface::index(&probe.interface)?;
    let link = netlink.links().await?.into_iter().find(|link| link.index == ifindex);
    let link = link.context("the interface is just going")?;

    let at_interface = |index| (index == ifindex).then(|| probe.interface.clone());
    let mut places = attach::attached(pinned.pins(), at_interface)?;
    places.retain(|place| place.ifindex == ifindex && attach::is_walk(place));
    ensure!(
        !places.is_empty(),
        "no dataplane program is attached to {}: `dataplane status` lists the interfaces with one, and `waiting` there \
         means that no container is known behind it",
        probe.interface
    );
    places.sort();
    let hooks = places.iter().map(|place| place.hook).rev().collect(); // XDP comes before tc
    let entrance = Entrance { hooks, ifindex, mac: link.mac.unwrap_or(MacAddr::new([0; 6])) };
    let slots = RefCell::new(Slots::open(&pinned)?);
    let flows = FlowTable::open(&pinned)?;
    let namer = Namer {
        interface: &interface::name,
        resolve: &|target| slots.borrow_mut().resolve(target),
        // One that ended in this moment has no name any more.
        flow: &|slot| entry_at(&flows, slot).ok().flatten(),
    };
    let answer = trace::run(pinned.directory(), sizes(&pinned, flows.respects())?, probe, &entrance, &namer)?;
    commands::print(json, &answer, show::trace)?;
    Ok(answer)
}

/// The sizes that the pinned maps have, and who decides about connections. All are there: a load would make one that is missing.
fn sizes(pinned: &Pinned, respect: bool) -> Result<Sizes> {
    let entries = |name: &str| {
        let pin = pinned.directory().join(name);
        let info = MapInfo::from_pin(&pin)
            .with_context(|| format!("cannot open {} (try as root)", pin.display()))?;
        anyhow::Ok(info.max_entries())
    };
    for name in PINNED_MAPS.iter().chain(RENEWED_MAPS) {
        entries(name)?;
    }
    Ok(Sizes {
        endpoints: entries(MAP_ENDPOINTS)?,
        buckets: entries(MAP_FLOW_INDEX)?,
        words: entries(MAP_FLOW_TAKEN)?,
        respect,
    })
}
