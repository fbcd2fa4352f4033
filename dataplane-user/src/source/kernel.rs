//! The kernel's own network state: mirrored as it is, and read for what it asks of the data path.
//!
//! Nothing here speaks to the kernel. [`Mirror::load`] takes what was listed, [`Mirror::apply`] each event since,
//! and the rest are questions.

mod import;
mod nexthops;
mod own;
mod reach;
mod routes;
mod wanted;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use dataplane_common::names;
use ipnet::Ipv4Net;

pub use self::{
    import::{Account, Cause, Import},
    reach::{Reach, Unreachable},
    wanted::{Policy, Wanted},
};
use self::{
    nexthops::NextHops,
    own::OwnRoutes,
    routes::{Routes, links_of},
};
use crate::kernel::netlink::{
    Address, Event, Link, NextHop, OwnRoute, OwnTarget, Peer, Place, Present, Route, RouteKind,
};

/// Table `main`.
const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
/// Table `local`, which the kernel looks into before `main`.
const LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;

/// What an event meant for the mirror.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing that the mirror holds is different.
    Unchanged,
    /// Routes of this prefix alone are different, and nothing depends on them but what is wanted for it; or they
    /// are our own, on which nothing depends.
    Route(Ipv4Net),
    /// Something is different: what is wanted may be.
    Changed,
    /// The event does not say all that changed: list everything and [`Mirror::load`] it.
    Reload,
}

impl Effect {
    fn changed(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Unchanged }
    }
}

/// Links, IPv4 addresses and IPv4 routes of the node's namespace.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    links: BTreeMap<u32, Link>,
    addresses: Vec<Address>,
    nexthops: NextHops,
    /// Those of everybody else.
    routes: Routes,
    own: OwnRoutes,
    /// Prefixes of routes that came or went since this was asked last.
    touched: BTreeSet<Ipv4Net>,
}

impl Mirror {
    /// Takes what was listed, links, addresses, nexthop objects and routes each in the order in which the kernel gave them.
    ///
    /// Events that were collected since before the listing began may be applied afterwards, also those that
    /// the lists show already.
    pub fn load(
        links: impl IntoIterator<Item = Link>,
        addresses: impl IntoIterator<Item = Address>,
        nexthops: impl IntoIterator<Item = NextHop>,
        routes: impl IntoIterator<Item = Route>,
    ) -> Self {
        let mut mirror = Self {
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            addresses: addresses.into_iter().collect(),
            ..Self::default()
        };
        for nexthop in nexthops {
            mirror.nexthops.put(nexthop);
        }
        for mut route in routes {
            mirror.nexthops.resolve(&mut route);
            match OwnRoute::from_route(&route) {
                Some(own) => drop(mirror.own.put(own)),
                None => drop(mirror.routes.insert(route, Place::Last)),
            }
        }
        mirror
    }

    /// The prefixes of all routes that came or went since [`Self::load`], or since this was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<Ipv4Net> {
        std::mem::take(&mut self.touched)
    }

    /// Follows a change.
    ///
    /// [`Event::Rules`], [`Event::Ipsec`], [`Event::Forwarding`] and a [`Event::PeerLink`] change nothing that is held here; the latter is `Changed`
    /// where a link of the node has that peer.
    pub fn apply(&mut self, event: Event) -> Effect {
        match event {
            Event::Link(link) => self.put_link(link),
            Event::LinkGone(index) => self.remove_link(index),
            Event::Address(address) => Effect::changed(self.put_address(address)),
            Event::AddressGone(address) => self.remove_address(&address),
            Event::Route(route, place) => match OwnRoute::from_route(&route) {
                Some(own) => self.put_own(own),
                None => self.put_route(route, place),
            },
            Event::RouteGone(mut route) => match OwnRoute::from_route(&route) {
                Some(own) => self.remove_own(&own),
                None => {
                    self.nexthops.resolve(&mut route);
                    let (table, prefix) = (route.table, route.destination);
                    self.change_routes(table, prefix, |routes| routes.remove(&route))
                }
            },
            Event::NextHop(nexthop) => self.put_nexthop(nexthop),
            Event::NextHopGone(id) => self.remove_nexthop(id),
            Event::PeerLink { peer, .. } => Effect::changed(self.link_with_peer(peer).is_some()),
            Event::Rules | Event::Ipsec | Event::Forwarding | Event::Device(_) => Effect::Unchanged,
            Event::Overrun => Effect::Reload,
        }
    }

    fn put_own(&mut self, own: OwnRoute) -> Effect {
        if !self.own.put(own) {
            return Effect::Unchanged;
        }
        self.touched.insert(own.destination);
        Effect::Route(own.destination)
    }

    fn remove_own(&mut self, own: &OwnRoute) -> Effect {
        if !self.own.remove(own) {
            return Effect::Unchanged;
        }
        self.touched.insert(own.destination);
        Effect::Route(own.destination)
    }

    fn put_route(&mut self, mut route: Route, mut place: Place) -> Effect {
        let (table, prefix) = (route.table, route.destination);
        self.nexthops.resolve(&mut route);
        // A route whose object changed is told of as a replacement, whichever place it has.
        let by_object = place == Place::Replace && route.nexthop.is_some();
        if by_object && self.routes.of(table, prefix).any(|held| *held == route) {
            return Effect::Unchanged;
        }
        // A replacement takes the place of the first route with its metric, which may be ours.
        let metric = route.metric;
        let may_be_ours = (table, route.tos) == (MAIN, 0) && self.own.holds(metric, prefix);
        if place == Place::Replace && may_be_ours {
            if self.routes.of(MAIN, prefix).any(|rival| (rival.metric, rival.tos) == (metric, 0)) {
                return Effect::Reload;
            }
            self.own.forget(metric, prefix);
            self.touched.insert(prefix);
            place = Place::First;
        }
        self.change_routes(table, prefix, |routes| routes.insert(route, place))
    }

    fn change_routes(
        &mut self,
        table: u32,
        prefix: Ipv4Net,
        change: impl FnOnce(&mut Routes) -> bool,
    ) -> Effect {
        let alone = self.stands_alone(table, prefix);
        let changed = change(&mut self.routes);
        if changed {
            self.touched.insert(prefix);
        }
        match changed {
            true if alone && self.stands_alone(table, prefix) => Effect::Route(prefix),
            changed => Effect::changed(changed),
        }
    }

    /// Whether no other prefix depends on the routes of this one: it is neither the host's own nor the default
    /// route, which names uplinks; and no route of it is without a gateway, by which others find their routers
    /// and containers are found.
    fn stands_alone(&self, table: u32, prefix: Ipv4Net) -> bool {
        let has_gateways = |table| !self.routes.of(table, prefix).any(is_on_link);
        table != LOCAL && prefix.prefix_len() != 0 && has_gateways(MAIN) && has_gateways(table)
    }

    fn put_link(&mut self, link: Link) -> Effect {
        let (index, up, carrier) = (link.index, link.up, link.carrier);
        let before = self.links.insert(index, link);
        let itself = Effect::changed(before.as_ref() != self.links.get(&index));
        // With the carrier, routes by nexthop objects go, and no others (Event::NextHopGone). None can be there without one,
        // so that any that is held is dead, whether or not a listing showed the carrier.
        if up && !carrier && self.routes.by_nexthop_and_link(index) {
            return Effect::Reload;
        }
        // A link that goes down takes its routes with it, and the kernel does not say so (Event::RouteGone).
        if up { itself } else { itself.max(self.remove_routes_by(index, true)) }
    }

    fn remove_link(&mut self, index: u32) -> Effect {
        let itself = Effect::changed(self.links.remove(&index).is_some());
        self.addresses.retain(|address| address.ifindex != index);
        itself.max(self.remove_routes_by(index, false))
    }

    fn remove_routes_by(&mut self, index: u32, off: bool) -> Effect {
        let links = &self.links;
        let alive = |index| links.get(&index).is_some_and(|link: &Link| link.up);
        let (gone, effect) = self.routes.remove_by_link(index, off, alive);
        self.touched.extend(gone);
        self.touched.extend(self.own.remove_by_link(index));
        effect
    }

    fn put_address(&mut self, address: Address) -> bool {
        match self.addresses.iter_mut().find(|held| same_address(held, &address)) {
            Some(held) if *held == address => false,
            Some(held) => {
                *held = address;
                true
            }
            None => {
                self.addresses.push(address);
                true
            }
        }
    }

    fn remove_address(&mut self, address: &Address) -> Effect {
        let before = self.addresses.len();
        self.addresses.retain(|held| !same_address(held, address));
        // The kernel drops the routes that prefer this source, and with the last address of a link all routes
        // by it, without a word (fib_sync_down_addr() and fib_disable_ip() in net/ipv4/fib_frontend.c). Of the
        // routes that it made itself for the address it does tell.
        let last = self.addresses_of(address.ifindex).next().is_none();
        let doubtful = self.routes.iter().any(|route| {
            route.protocol != libc::RTPROT_KERNEL
                && (route.source == Some(address.network.addr())
                    || last && links_of(route).any(|link| link == address.ifindex))
        });
        let doubtful = doubtful || last && self.own.any_by_link(address.ifindex);
        // Also of an address that a listing did not show any more: a route that was added before it went is told of
        // after that listing.
        if doubtful { Effect::Reload } else { Effect::changed(before != self.addresses.len()) }
    }

    /// The link with that index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The link with that name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The link whose other end that is.
    pub fn link_with_peer(&self, peer: Peer) -> Option<&Link> {
        self.links.values().find(|link| link.peer == Some(peer))
    }

    /// Whether the address is one of the node's own.
    pub fn is_local(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|own| own.network.addr() == address)
    }

    /// Every link, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The addresses of a link in the kernel's order: the first that is not secondary is the primary one.
    pub fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |address| address.ifindex == ifindex)
    }

    /// The routes of table `main` that the daemon wrote, in this run or an earlier one.
    pub fn own_routes(&self) -> impl Iterator<Item = OwnRoute> {
        self.own.iter()
    }

    /// Where the route of table `main` leads that the daemon wrote for that prefix.
    pub fn own_route(&self, prefix: Ipv4Net) -> Option<OwnTarget> {
        self.own.get(prefix)
    }

    /// Where the one leads that an older version wrote.
    pub fn older_own_route(&self, prefix: Ipv4Net) -> Option<OwnTarget> {
        self.own.older(prefix)
    }

    /// The route that one of the daemon's for that prefix would meet.
    pub fn in_the_way(&self, prefix: Ipv4Net) -> Option<Present> {
        let is_rival = |route: &&Route| (route.metric, route.tos) == (names::ROUTE_METRIC, 0);
        let foreign = self.routes.of(MAIN, prefix).find(is_rival);
        let foreign = foreign.map(|route| Present::Foreign { protocol: route.protocol });
        foreign.or_else(|| self.own_route(prefix).map(|target| Present::Own(OwnRoute::new(prefix, target))))
    }

    /// The links of the default routes in table `main`, the best metric first, each once.
    pub fn default_uplinks(&self) -> Vec<u32> {
        let mut uplinks = Vec::new();
        for route in self.routes.of(MAIN, Ipv4Net::default()) {
            if route.kind == RouteKind::Unicast {
                uplinks.extend(links_of(route).filter(|index| self.links.contains_key(index)));
            }
        }
        let mut seen = BTreeSet::new();
        uplinks.retain(|index| seen.insert(*index));
        uplinks
    }

    /// The node's own addresses.
    pub fn local_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().map(|own| own.network.addr())
    }

    /// Destinations that are reached directly, and by which link: unicast routes of table `main` without a gateway.
    pub fn on_links(&self) -> impl Iterator<Item = (Ipv4Net, u32)> {
        self.routes.direct(MAIN).filter_map(|prefix| {
            let route = self.routes.of(MAIN, prefix).find(|route| is_on_link(route))?;
            Some((prefix, route.oif?))
        })
    }

    /// The containers of which the kernel's routes tell: address and workload link.
    ///
    /// That is each `ADDRESS/32 dev LINK scope link` of table `main` that is the best for its address and not
    /// written by the daemon itself, where the link is a veth whose name begins with the prefix.
    pub fn discovered(&self, workload_prefix: &str) -> Vec<(Ipv4Addr, u32)> {
        self.routes
            .direct(MAIN)
            .filter_map(|prefix| {
                let best = self.routes.of(MAIN, prefix).find(|route| !is_ours(route))?;
                let (address, ifindex) = as_endpoint(best)?;
                let link = self.links.get(&ifindex)?;
                let veth = link.kind.as_deref() == Some("veth");
                (veth && link.name.starts_with(workload_prefix)).then_some((address, ifindex))
            })
            .collect()
    }
}

fn same_address(one: &Address, other: &Address) -> bool {
    (one.ifindex, one.network, one.peer) == (other.ifindex, other.network, other.peer)
}

fn is_ours(route: &Route) -> bool {
    route.protocol == names::ROUTE_PROTOCOL
}

/// To one link, and nothing between.
fn is_on_link(route: &Route) -> bool {
    route.kind == RouteKind::Unicast
        && route.gateway.is_none()
        && route.oif.is_some()
        && !route.multipath
        && !route.encap
}

/// To a network of an address of the node's.
fn is_connected(route: &Route) -> bool {
    is_on_link(route) && route.protocol == libc::RTPROT_KERNEL && route.scope == libc::RT_SCOPE_LINK
}

/// Address and link of a route that has the shape of a container's.
fn as_endpoint(route: &Route) -> Option<(Ipv4Addr, u32)> {
    let host = route.destination.prefix_len() == 32;
    let plain = is_on_link(route) && host && route.tos == 0 && route.scope == libc::RT_SCOPE_LINK;
    route.oif.filter(|_| plain).map(|ifindex| (route.destination.addr(), ifindex))
}
