//! What events do to a mirror.

use std::net::Ipv4Addr;

use dataplane_common::reason::Reason;

use super::{
    super::{Effect, Mirror, Wanted},
    notation::*,
};
use crate::kernel::netlink::{Event, Peer, Place};

#[test]
fn a_link_that_goes_down_takes_its_routes_with_it() {
    let mut mirror = node("");
    assert_eq!(mirror.apply(Event::Link(link("2: eth0 DOWN mtu 1500"))), Effect::Changed);
    assert_eq!(wanted(&mirror, "default"), None);
    assert_eq!(wanted(&mirror, "10.141.0.0/16"), None);
    assert_eq!(wanted(&mirror, "10.141.255.255"), None);
    assert_eq!(wanted(&mirror, "10.141.0.1"), Some(Wanted::Kernel(Reason::ToHost)));
    assert_eq!(mirror.own_routes().count(), 0);
    assert_eq!(wanted(&mirror, "192.0.2.4/30"), next_hop(None, ETH1, 9000));

    // Without a carrier the kernel keeps the routes, and decides itself.
    assert_eq!(mirror.apply(Event::Link(link("3: eth1 UP mtu 9000"))), Effect::Changed);
    assert_eq!(wanted(&mirror, "192.0.2.4/30"), KERNEL_ROUTE);

    assert_eq!(mirror.apply(Event::LinkGone(7)), Effect::Changed);
    assert_eq!(mirror.apply(Event::LinkGone(7)), Effect::Unchanged);
    assert_eq!(mirror.discovered("cali"), [(Ipv4Addr::new(172, 19, 35, 3), 8)]);
}

#[test]
fn a_route_of_several_next_hops_is_doubted_when_the_last_goes() {
    let mut mirror = node("203.0.113.0/24 nexthops eth0,eth1");
    assert_eq!(mirror.apply(Event::Link(link("2: eth0 DOWN mtu 1500"))), Effect::Changed);
    assert_eq!(wanted(&mirror, "203.0.113.0/24"), KERNEL_ROUTE);
    assert_eq!(mirror.apply(Event::Link(link("3: eth1 DOWN mtu 9000"))), Effect::Reload);
}

#[test]
fn an_address_that_goes_may_take_routes_with_it_unsaid() {
    let gone = |mirror: &mut Mirror, line| {
        let address = address(mirror, line);
        mirror.apply(Event::AddressGone(address))
    };
    let mut mirror = node("inet 10.141.0.99/16 dev eth0");
    assert_eq!(gone(&mut mirror, "inet 10.141.0.99/16 dev eth0"), Effect::Changed);
    assert_eq!(gone(&mut mirror, "inet 10.141.0.99/16 dev eth0"), Effect::Unchanged);
    // The last one: the default route is by this link.
    assert_eq!(gone(&mut mirror, "inet 10.141.0.1/16 dev eth0"), Effect::Reload);

    let mut mirror = node("inet 10.141.0.99/16 dev eth0\n 10.8.0.0/16 dev eth1 src 10.141.0.99");
    assert_eq!(gone(&mut mirror, "inet 10.141.0.99/16 dev eth0"), Effect::Reload);
    assert_eq!(mirror.apply(Event::Overrun), Effect::Reload);
}

/// An address went, and the last one after a route was added: a listing in between shows neither, but the route is told of
/// after it.
#[test]
fn an_address_that_a_listing_did_not_show_takes_routes_with_it() {
    let mut mirror = node("");
    let last = address(&mirror, "inet 10.141.0.1/16 dev eth0");
    assert_eq!(mirror.apply(Event::AddressGone(last.clone())), Effect::Reload);
    // As the listing has it.
    mirror.routes = Default::default();
    mirror.own = Default::default();
    let dead = route(&mirror, "10.8.0.0/16 via 10.141.0.9 dev eth0");
    assert_eq!(mirror.apply(Event::Route(dead, Place::First)), Effect::Route(prefix("10.8.0.0/16")));
    assert_eq!(mirror.apply(Event::AddressGone(last)), Effect::Reload);
}

#[test]
fn a_carrier_that_a_listing_did_not_show_takes_routes_by_objects_with_it() {
    let mut mirror = node("");
    let without = || Event::Link(link("3: eth1 UP mtu 9000"));
    assert_eq!(mirror.apply(without()), Effect::Changed);
    let dead = route(&mirror, "10.8.0.0/16 dev eth1 nhid 7");
    assert_eq!(mirror.apply(Event::Route(dead, Place::First)), Effect::Changed);
    assert_eq!(mirror.apply(without()), Effect::Reload);
}

#[test]
fn routes_of_an_older_version_are_kept_apart() {
    let ours = prefix("172.19.39.0/24");
    let mut mirror = node("172.19.39.0/24 via 10.141.0.3 dev eth0 proto 171 metric 16");
    assert_eq!((mirror.own_route(ours).is_some(), mirror.older_own_route(ours)), (true, None));
    let older = route(&mirror, "172.19.39.0/24 via 10.141.0.4 dev eth0 proto 171");
    assert_eq!(mirror.apply(Event::Route(older.clone(), Place::First)), Effect::Route(ours));
    assert!(mirror.older_own_route(ours).is_some() && mirror.own_routes().count() == 3);
    assert_eq!(mirror.apply(Event::RouteGone(older)), Effect::Route(ours));
    assert_eq!((mirror.own_route(ours).is_some(), mirror.older_own_route(ours)), (true, None));
}

#[test]
fn routes_of_one_metric_keep_the_kernels_order() {
    let mut mirror = node("");
    let mut put = |line: &str, place| {
        let route = route(&mirror, line);
        let effect = mirror.apply(Event::Route(route, place));
        (effect, wanted(&mirror, "10.8.0.0/16"))
    };
    let (first, second, third) = (
        "10.8.0.0/16 dev eth0 proto kernel scope link",
        "10.8.0.0/16 dev eth1 proto kernel scope link",
        "blackhole 10.8.0.0/16",
    );
    let (by_first, by_second) = (next_hop(None, ETH0, 1500), next_hop(None, ETH1, 9000));
    assert_eq!(put(first, Place::First), (Effect::Changed, by_first));
    assert_eq!(put(second, Place::Last), (Effect::Changed, by_first));
    assert_eq!(put(third, Place::First), (Effect::Changed, KERNEL_ROUTE));
    assert_eq!(put(third, Place::First), (Effect::Unchanged, KERNEL_ROUTE));
    // Replacing the first by one that is held already leaves that one.
    assert_eq!(put(second, Place::Replace), (Effect::Changed, by_first));
    assert_eq!(put(third, Place::Replace), (Effect::Changed, KERNEL_ROUTE));
    let gone = route(&mirror, third);
    assert_eq!(mirror.apply(Event::RouteGone(gone.clone())), Effect::Changed);
    assert_eq!(wanted(&mirror, "10.8.0.0/16"), by_second);
    assert_eq!(mirror.apply(Event::RouteGone(gone)), Effect::Unchanged);
}

#[test]
fn events_that_a_listing_shows_already_change_nothing() {
    let mut mirror = node("");
    let before = wanted(&mirror, "default");
    for line in lines(NODE) {
        let event = event(&mirror, line);
        assert_eq!(mirror.apply(event), Effect::Unchanged, "{line}");
    }
    assert_eq!(wanted(&mirror, "default"), before);
}

#[test]
fn the_daemons_own_routes_and_the_peers_are_found() {
    let mut mirror = node("172.19.38.0/24 via 10.141.0.4 dev eth0 proto 171 table 100");
    let own: Vec<_> = mirror.own_routes().map(|route| route.destination).collect();
    assert_eq!(own, [prefix("172.19.37.0/24")]);

    let peer = Peer { ifindex: 2, netnsid: Some(1) };
    assert_eq!(mirror.link_with_peer(peer).map(|link| link.name.as_str()), Some("cali2"));
    assert_eq!(mirror.apply(Event::PeerLink { peer, mac: None, gone: true }), Effect::Changed);
    let stranger = Peer { ifindex: 2, netnsid: Some(5) };
    assert_eq!(mirror.apply(Event::PeerLink { peer: stranger, mac: None, gone: true }), Effect::Unchanged);
}

#[test]
fn a_route_of_ours_goes_with_its_link_or_where_somebody_replaces_it() {
    let ours = prefix("172.19.37.0/24");
    let theirs = "172.19.37.0/24 via 10.141.0.9 dev eth0 proto 12 metric 16";
    let mut mirror = node("");
    let replacement = Event::Route(route(&mirror, theirs), Place::Replace);
    assert!(mirror.own_route(ours).is_some());
    assert_eq!(mirror.apply(replacement.clone()), Effect::Route(ours));
    assert_eq!(mirror.own_route(ours), None);
    assert_eq!(wanted(&mirror, "172.19.37.0/24"), KERNEL_ROUTE);

    // Which of two it replaced, the event does not say.
    let mut mirror = node("blackhole 172.19.37.0/24 proto 12 metric 16");
    assert_eq!(mirror.apply(replacement), Effect::Reload);

    let mut mirror = node("");
    mirror.take_touched();
    assert_eq!(mirror.apply(Event::Link(link("2: eth0 DOWN mtu 1500"))), Effect::Changed);
    assert_eq!(mirror.own_route(ours), None);
    assert!(mirror.take_touched().contains(&ours));
}
