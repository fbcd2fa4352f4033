//! What the data path must do so that it never decides otherwise than the kernel would.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use dataplane_common::reason::Reason;
use ipnet::Ipv4Net;

use super::{LOCAL, MAIN, Mirror, as_endpoint, import::Import, is_connected, is_ours};
use crate::kernel::netlink::{Address, Link, Route, RouteKind};

/// What the data path does with packets for a prefix, where nobody but the kernel has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// It sends them on as the kernel would.
    NextHop {
        /// The router; `None` where destinations are on the link.
        gateway: Option<Ipv4Addr>,
        /// The uplink.
        ifindex: u32,
        /// MTU of the uplink, or of the route where that is smaller, in bytes of IP packet.
        mtu: u32,
    },
    /// It drops those to addresses that no container has: an imported blackhole.
    Block,
    /// It leaves them to the kernel.
    Kernel(Reason),
}

/// Which of the kernel's routes the data path carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The links by which it sends, as they are.
    pub uplinks: Vec<Link>,
    /// The endpoints that the kernel's routes tell of, as [`Mirror::discovered`] gives them.
    pub endpoints: BTreeSet<(Ipv4Addr, u32)>,
    /// Whether connected networks and the default route by an uplink are carried.
    pub egress: bool,
    /// Whether any other route by an uplink is carried with them: where BPF translates, the kernel does not.
    pub translates: bool,
    /// Which other routes are; without it none.
    pub import: Option<Import>,
    /// Destinations about which table `main` is not asked, as [`Mirror::shadows`] gives them.
    pub shadows: Vec<Ipv4Net>,
}

/// Prefixes that mean the same in every table (RFC 6890, and RFC 1112 for multicast).
const FIXED: [(Ipv4Addr, u8, Reason); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, Reason::Reserved),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Reason::Reserved),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Reason::LinkLocal),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Reason::Multicast),
    (Ipv4Addr::BROADCAST, 32, Reason::Broadcast),
];

fn fixed() -> impl Iterator<Item = (Ipv4Net, Reason)> {
    FIXED.into_iter().map(|(address, length, reason)| (Ipv4Net::new_assert(address, length), reason))
}

impl Policy {
    /// The uplink with that index.
    pub fn uplink(&self, index: u32) -> Option<&Link> {
        self.uplinks.iter().find(|uplink| uplink.index == index)
    }

    /// Whether that prefix is an endpoint's.
    pub fn is_endpoint(&self, prefix: Ipv4Net) -> bool {
        let links = (prefix.addr(), 0)..=(prefix.addr(), u32::MAX);
        prefix.prefix_len() == 32 && self.endpoints.range(links).next().is_some()
    }

    /// Whether both mean the same for every prefix but those of endpoints.
    pub fn agrees_but_for_endpoints(&self, other: &Self) -> bool {
        (&self.uplinks, self.egress, self.translates, &self.import, &self.shadows)
            == (&other.uplinks, other.egress, other.translates, &other.import, &other.shadows)
    }
}

impl Mirror {
    /// What is the host's own, by prefix, whatever any route says: its addresses, broadcast, multicast and
    /// reserved ones. Packets to them are left to the kernel.
    pub fn host(&self) -> BTreeMap<Ipv4Net, Reason> {
        let mut host = BTreeMap::new();
        for address in &self.addresses {
            if self.links.get(&address.ifindex).is_some_and(|link| link.up) {
                host.extend(broadcasts(address).map(|address| (address, Reason::Broadcast)));
            }
        }
        for route in self.routes.by_destination(LOCAL).filter_map(|mut routes| routes.next()) {
            let reason = match route.kind {
                RouteKind::Local => Reason::ToHost,
                RouteKind::Broadcast => Reason::Broadcast,
                RouteKind::Multicast => Reason::Multicast,
                _ => Reason::KernelRoute,
            };
            host.insert(route.destination, reason);
        }
        host.extend(fixed());
        host
    }

    /// The kernel consults table `main` only where `local` has no match at all: a shorter prefix there outdoes
    /// a longer one in `main`. These are the shorter ones; equal ones are [`Self::host`]'s.
    pub fn shadows(&self) -> Vec<Ipv4Net> {
        (self.routes.by_destination(LOCAL))
            .filter_map(|mut routes| Some(routes.next()?.destination))
            .filter(|destination| destination.prefix_len() < 32)
            .chain(fixed().map(|(destination, _)| destination))
            .collect()
    }

    /// The kernel's forwarding table as the data path must hold it, by prefix, below [`Self::host`].
    ///
    /// The longest prefix of both gives the kernel's own decision for every destination, or says that it is
    /// the kernel's. Routes that the daemon wrote are left out, and so are those of the policy's endpoints:
    /// both follow from what it was told elsewhere. A destination without a match is one for which the tables
    /// have no route.
    ///
    /// It holds as long as the rules are the default ones
    /// ([`rules_are_default`](crate::kernel::netlink::Netlink::rules_are_default)).
    pub fn wanted(&self, policy: &Policy) -> BTreeMap<Ipv4Net, Wanted> {
        let other = policy.import.as_ref().map(|import| import.table).filter(|table| *table != MAIN);
        [Some(MAIN), other]
            .into_iter()
            .flatten()
            .flat_map(|table| self.routes.by_destination(table))
            .filter_map(|mut routes| Some(routes.next()?.destination))
            .filter_map(|destination| Some((destination, self.wanted_at(destination, policy)?)))
            .collect()
    }

    /// [`Self::wanted`] for one prefix.
    pub fn wanted_at(&self, prefix: Ipv4Net, policy: &Policy) -> Option<Wanted> {
        if policy.shadows.iter().any(|shadow| shadow.contains(&prefix)) {
            return None;
        }
        let best = self.routes.of(MAIN, prefix).find(|route| !is_ours(route));
        if best.and_then(as_endpoint).is_some_and(|endpoint| policy.endpoints.contains(&endpoint)) {
            return None;
        }
        if let Some(wanted) = policy.import.as_ref().and_then(|import| self.imported(prefix, import, policy))
        {
            return Some(wanted);
        }
        let next_hop = Self::egress(best?, policy);
        Some(next_hop.unwrap_or(Wanted::Kernel(Reason::KernelRoute)))
    }

    /// The next hop of a connected network or a default route; of any route, where its packets are translated.
    fn egress(route: &Route, policy: &Policy) -> Option<Wanted> {
        let default = route.destination.prefix_len() == 0;
        let carried = policy.egress && (default || is_connected(route) || policy.translates);
        if carried { Self::next_hop(route, policy) } else { None }
    }

    /// The next hop of a route that the data path can carry: a single one by an uplink, for every TOS.
    pub(super) fn next_hop(route: &Route, policy: &Policy) -> Option<Wanted> {
        let link = policy.usable_uplink(route.oif?)?;
        let single = route.kind == RouteKind::Unicast && !route.multipath && !route.encap;
        let mtu = route.mtu.filter(|mtu| *mtu != 0).map_or(link.mtu, |mtu| mtu.min(link.mtu));
        // One route of a prefix that is for one TOS only sorts first, and makes the choice depend on the packet.
        (single && route.tos == 0).then_some(Wanted::NextHop {
            gateway: route.gateway,
            ifindex: link.index,
            mtu,
        })
    }
}

/// The destinations that are broadcast by an address: the last one of its subnet, and the one that was set
/// with it (`fib_add_ifaddr()` in net/ipv4/fib_frontend.c).
pub(super) fn broadcasts(address: &Address) -> impl Iterator<Item = Ipv4Net> {
    let (own, length) = (address.network.addr(), address.network.prefix_len());
    // A point-to-point address stands for the far end's subnet.
    let subnet = Ipv4Net::new_assert(address.peer.unwrap_or(own), length);
    let last = (length < 31).then(|| subnet.broadcast());
    last.into_iter().chain(address.broadcast).map(Ipv4Net::from)
}
