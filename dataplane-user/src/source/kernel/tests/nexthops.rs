//! Routes that refer to nexthop objects.

use super::{
    super::{Cause, Effect, Mirror, Wanted},
    notation::*,
};
use crate::kernel::netlink::{Event, NextHop, NextHopTarget, Place};

fn put(mirror: &mut Mirror, id: u32, target: NextHopTarget) -> Effect {
    mirror.apply(Event::NextHop(NextHop { id, target }))
}

fn via(gateway: &str) -> NextHopTarget {
    NextHopTarget::Single {
        gateway: Some(gateway.parse().unwrap()),
        oif: Some(ETH0),
        encap: false,
        via_ipv6: false,
    }
}

/// The node with a route by object 8, of whatever it is, and what is wanted for it.
fn referring(target: NextHopTarget) -> (Mirror, Option<Wanted>) {
    let mut mirror = node("");
    assert_eq!(put(&mut mirror, 8, target), Effect::Unchanged);
    let route = route(&mirror, "10.8.0.0/16 proto 186 metric 20 nhid 8");
    assert!(matches!(mirror.apply(Event::Route(route, Place::First)), Effect::Route(_) | Effect::Changed));
    let wanted = imported(&mirror);
    (mirror, wanted)
}

fn imported(mirror: &Mirror) -> Option<Wanted> {
    mirror.wanted_at(prefix("10.8.0.0/16"), &importing(mirror))
}

#[test]
fn a_route_leads_where_its_object_does() {
    let (mut mirror, wanted) = referring(via("10.141.0.2"));
    assert_eq!(wanted, next_hop(Some("10.141.0.2"), ETH0, 1500));
    assert_eq!(put(&mut mirror, 8, via("10.141.0.3")), Effect::Changed);
    assert_eq!(imported(&mirror), next_hop(Some("10.141.0.3"), ETH0, 1500));
    assert!(mirror.take_touched().contains(&prefix("10.8.0.0/16")));
    assert_eq!(put(&mut mirror, 8, via("10.141.0.3")), Effect::Unchanged);
    // The kernel tells of the route as well.
    let again = route(&mirror, "10.8.0.0/16 via 10.141.0.3 dev eth0 proto 186 metric 20 nhid 8");
    assert_eq!(mirror.apply(Event::Route(again, Place::Replace)), Effect::Unchanged);
    assert_eq!(mirror.apply(Event::NextHopGone(8)), Effect::Changed);
    assert_eq!((imported(&mirror), mirror.apply(Event::NextHopGone(8))), (None, Effect::Unchanged));
}

#[test]
fn kinds_of_objects() {
    assert_eq!(referring(NextHopTarget::Blackhole).1, Some(Wanted::Block));
    let on_link = NextHopTarget::Single { gateway: None, oif: Some(ETH1), encap: false, via_ipv6: false };
    assert_eq!(referring(on_link).1, next_hop(None, ETH1, 9000));
    let tunnel = NextHopTarget::Single { gateway: None, oif: Some(ETH0), encap: true, via_ipv6: false };
    let (mirror, wanted) = referring(tunnel);
    assert_eq!(wanted, KERNEL_ROUTE);
    assert!(mirror.import_account(&importing(&mirror)).left.contains_key(&Cause::Encapsulation));
    let (mut mirror, wanted) = referring(NextHopTarget::Group([1, 2].into()));
    assert_eq!(wanted, KERNEL_ROUTE, "of unknown members");
    assert_eq!(put(&mut mirror, 1, via("10.141.0.2")), Effect::Changed);
    assert_eq!(put(&mut mirror, 2, via("10.141.0.3")), Effect::Changed);
    assert_eq!(imported(&mirror), KERNEL_ROUTE);
    assert!(mirror.import_account(&importing(&mirror)).left.contains_key(&Cause::Multipath));
    assert_eq!(put(&mut mirror, 8, NextHopTarget::Group([2].into())), Effect::Changed);
    assert_eq!(imported(&mirror), next_hop(Some("10.141.0.3"), ETH0, 1500));
}

#[test]
fn an_object_that_nobody_told_of_leaves_what_the_route_says() {
    let mirror = node("10.8.0.0/16 via 10.141.0.2 dev eth0 proto 186 nhid 8\n 10.9.0.0/16 proto 186 nhid 9");
    assert_eq!(imported(&mirror), next_hop(Some("10.141.0.2"), ETH0, 1500));
    assert_eq!(mirror.wanted_at(prefix("10.9.0.0/16"), &importing(&mirror)), KERNEL_ROUTE);
}

#[test]
fn a_carrier_that_goes_takes_them_along_unsaid() {
    let (mut mirror, _) = referring(via("10.141.0.2"));
    assert_eq!(mirror.apply(Event::Link(link("3: eth1 UP mtu 9000"))), Effect::Changed);
    assert_eq!(mirror.apply(Event::Link(link("2: eth0 UP mtu 1500"))), Effect::Reload);
}
