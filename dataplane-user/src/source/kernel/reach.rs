//! Whether a router can be a next hop: one answer for the routes of the file, the kernel's own and those of peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::{LOCAL, MAIN, Mirror, Policy, is_connected, wanted::broadcasts};
use crate::kernel::netlink::{Link, RouteKind};

/// Why an address is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// It is the node's own.
    Own,
    /// No host can have it: it is the network's or a broadcast address of a subnet of the node's, multicast, or
    /// reserved. The kernel refuses such a gateway (`fib_check_nh()` in net/ipv4/fib_semantics.c).
    NotUnicast,
    /// It is on the link of no uplink, or of one without carrier.
    NoUplink,
}

/// What the node's links and addresses say of routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Addresses that are no router's, whatever the links say.
    pub special: BTreeMap<Ipv4Net, Unreachable>,
    /// Destinations on a link, and the uplink that leads there, if one does and is usable.
    pub links: BTreeMap<Ipv4Net, Option<u32>>,
}

impl Reach {
    /// The uplink that leads to the router.
    ///
    /// # Errors
    ///
    /// Why none does.
    pub fn uplink(&self, router: Ipv4Addr) -> Result<u32, Unreachable> {
        // The kernel looks into table `local` first: any match there outdoes a longer one in `main`.
        if let Some((_, why)) = matches(&self.special, router).next() {
            return Err(*why);
        }
        if router.is_unspecified() || router.is_loopback() || router.octets()[0] == 0 {
            return Err(Unreachable::NotUnicast);
        }
        if router.is_multicast() || router.is_broadcast() {
            return Err(Unreachable::NotUnicast);
        }
        let (_, uplink) = matches(&self.links, router).next().ok_or(Unreachable::NoUplink)?;
        uplink.ok_or(Unreachable::NoUplink)
    }
}

/// The prefixes that hold the address, the longest first.
fn matches<T>(map: &BTreeMap<Ipv4Net, T>, address: Ipv4Addr) -> impl Iterator<Item = (Ipv4Net, &T)> {
    (0..=32).rev().filter_map(move |length| {
        let prefix = Ipv4Net::new_assert(address, length).trunc();
        Some((prefix, map.get(&prefix)?))
    })
}

impl Policy {
    /// The uplink with that index, where packets can leave by it.
    pub fn usable_uplink(&self, index: u32) -> Option<&Link> {
        self.uplink(index).filter(|link| link.up && link.carrier && link.ethernet)
    }
}

impl Mirror {
    /// What there is to know of routers.
    pub fn reach(&self, policy: &Policy) -> Reach {
        let mut special = BTreeMap::new();
        for address in &self.addresses {
            let subnet = address.network.trunc();
            let network = (subnet.prefix_len() < 31).then(|| Ipv4Net::from(subnet.network()));
            special.extend(broadcasts(address).chain(network).map(|it| (it, Unreachable::NotUnicast)));
        }
        for route in self.routes.by_destination(LOCAL).filter_map(|mut routes| routes.next()) {
            let own = route.kind == RouteKind::Local;
            special.insert(route.destination, if own { Unreachable::Own } else { Unreachable::NotUnicast });
        }
        special.extend(self.local_addresses().map(|own| (Ipv4Net::from(own), Unreachable::Own)));
        let usable = |index| policy.usable_uplink(index).map(|link| link.index);
        Reach { special, links: self.on_links().map(|(prefix, index)| (prefix, usable(index))).collect() }
    }

    /// The networks that the node is connected to: no router can know a better way there.
    pub fn connected(&self) -> BTreeSet<Ipv4Net> {
        let connected = |prefix: &Ipv4Net| self.routes.of(MAIN, *prefix).any(is_connected);
        self.routes.direct(MAIN).filter(connected).collect()
    }
}
