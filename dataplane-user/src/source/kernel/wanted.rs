//! What the data path must do so that it never decides otherwise than the kernel would.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use dataplane_common::reason::Reason;
use ipnet::Ipv4Net;

use super::{LOCAL, MAIN, Mirror, as_endpoint, is_on_link, is_ours};
use crate::kernel::netlink::{Address, Route, RouteKind};

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
    /// It leaves them to the kernel.
    Kernel(Reason),
}

/// Prefixes that mean the same in every table (RFC 6890, and RFC 1112 for multicast).
const FIXED: [(Ipv4Addr, u8, Reason); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, Reason::Reserved),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Reason::Reserved),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Reason::LinkLocal),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Reason::Multicast),
    (Ipv4Addr::BROADCAST, 32, Reason::Broadcast),
];

impl Mirror {
    /// The kernel's forwarding table as the data path must hold it, by prefix.
    ///
    /// The longest prefix here gives the kernel's own decision for every destination, or says that it is the
    /// kernel's: connected networks and the default route by one of `uplinks` are carried by the data path,
    /// any other route stays the kernel's. Routes that the daemon wrote are left out, and so are those of
    /// `endpoints` (address and link, as [`Mirror::discovered`] gives them): both follow from what it was
    /// told elsewhere. A destination without a match here is one for which tables `local` and `main` have no
    /// route.
    ///
    /// It holds as long as the rules are the default ones
    /// ([`rules_are_default`](crate::kernel::netlink::Netlink::rules_are_default)).
    pub fn wanted(
        &self,
        uplinks: &[u32],
        endpoints: &BTreeSet<(Ipv4Addr, u32)>,
    ) -> BTreeMap<Ipv4Net, Wanted> {
        let fixed = FIXED.map(|(address, length, reason)| (Ipv4Net::new_assert(address, length), reason));

        // The kernel consults table `main` only where `local` has no match at all: a shorter prefix there
        // outdoes a longer one in `main`. Those are few; equal ones are overwritten below.
        let shadows: Vec<Ipv4Net> = (self.routes.by_destination(LOCAL))
            .filter_map(|mut routes| Some(routes.next()?.destination))
            .filter(|destination| destination.prefix_len() < 32)
            .chain(fixed.map(|(destination, _)| destination))
            .collect();

        let mut wanted = BTreeMap::new();
        for routes in self.routes.by_destination(MAIN) {
            let others: Vec<&Route> = routes.filter(|route| !is_ours(route)).collect();
            let Some(best) = others.first() else { continue };
            let destination = best.destination;
            let shadowed = shadows.iter().any(|shadow| shadow.contains(&destination));
            let endpoint = as_endpoint(best).is_some_and(|endpoint| endpoints.contains(&endpoint));
            if !shadowed && !endpoint {
                // One route of a prefix that is for one TOS only sorts first, and makes the choice depend on
                // the packet.
                let by_tos = best.tos != 0;
                let next_hop = if by_tos { None } else { self.next_hop(best, uplinks) };
                wanted.insert(destination, next_hop.unwrap_or(Wanted::Kernel(Reason::KernelRoute)));
            }
        }
        for address in &self.addresses {
            if self.links.get(&address.ifindex).is_some_and(|link| link.up) {
                wanted
                    .extend(broadcasts(address).map(|address| (address, Wanted::Kernel(Reason::Broadcast))));
            }
        }
        for route in self.routes.by_destination(LOCAL).filter_map(|mut routes| routes.next()) {
            let reason = match route.kind {
                RouteKind::Local => Reason::ToHost,
                RouteKind::Broadcast => Reason::Broadcast,
                RouteKind::Multicast => Reason::Multicast,
                _ => Reason::KernelRoute,
            };
            wanted.insert(route.destination, Wanted::Kernel(reason));
        }
        wanted.extend(fixed.map(|(destination, reason)| (destination, Wanted::Kernel(reason))));
        wanted
    }

    /// The next hop of a route that the data path may carry.
    fn next_hop(&self, route: &Route, uplinks: &[u32]) -> Option<Wanted> {
        let ifindex = route.oif.filter(|oif| uplinks.contains(oif))?;
        let link = self.links.get(&ifindex).filter(|link| link.up && link.carrier && link.ethernet)?;
        let single = route.kind == RouteKind::Unicast && !route.multipath && !route.encap;
        let default = single && route.destination.prefix_len() == 0;
        let connected =
            is_on_link(route) && route.protocol == libc::RTPROT_KERNEL && route.scope == libc::RT_SCOPE_LINK;
        let mtu = route.mtu.filter(|mtu| *mtu != 0).map_or(link.mtu, |mtu| mtu.min(link.mtu));
        (default || connected).then_some(Wanted::NextHop { gateway: route.gateway, ifindex, mtu })
    }
}

/// The destinations that are broadcast by an address: the last one of its subnet, and the one that was set
/// with it (`fib_add_ifaddr()` in net/ipv4/fib_frontend.c).
fn broadcasts(address: &Address) -> impl Iterator<Item = Ipv4Net> {
    let (own, length) = (address.network.addr(), address.network.prefix_len());
    // A point-to-point address stands for the far end's subnet.
    let subnet = Ipv4Net::new_assert(address.peer.unwrap_or(own), length);
    let last = (length < 31).then(|| subnet.broadcast());
    last.into_iter().chain(address.broadcast).map(Ipv4Net::from)
}
