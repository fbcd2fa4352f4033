//! Routes of other daemons, taken over.

use std::collections::BTreeMap;

use dataplane_common::reason::Reason;
use proptest::prelude::*;

use super::{
    super::{Cause, Effect, Import, Mirror, Policy, Wanted},
    notation::*,
};
use crate::kernel::netlink::{Event, Place};

fn imported(mirror: &Mirror, destination: &str) -> Option<Wanted> {
    mirror.wanted_at(prefix(destination), &importing(mirror))
}

fn with(mirror: &Mirror, import: Import) -> Policy {
    Policy { import: Some(import), ..policy(mirror) }
}

const ALL: Import = Import { table: 254, protocols: None, pools: Vec::new() };

#[test]
fn routes_by_routers_and_blackholes_are_taken_over() {
    let mirror = node("172.19.38.0/26 dev eth1 proto 186 mtu 1400");
    assert_eq!(imported(&mirror, "172.19.36.0/24"), next_hop(Some("10.141.0.2"), ETH0, 1500));
    assert_eq!(imported(&mirror, "172.19.35.0/24"), Some(Wanted::Block));
    assert_eq!(imported(&mirror, "172.19.38.0/26"), next_hop(None, ETH1, 1400));
    assert_eq!(imported(&mirror, "172.19.37.0/24"), None, "the daemon's own");
    assert_eq!(imported(&mirror, "172.19.35.2"), None, "an endpoint");
    // What is carried without an import is carried with one, and what is nobody's stays nobody's.
    let (with, without) = (mirror.wanted(&importing(&mirror)), mirror.wanted(&policy(&mirror)));
    assert!(with.keys().eq(without.keys()));
    assert_eq!(with[&prefix("default")], without[&prefix("default")]);
}

#[test]
fn whatever_the_data_path_cannot_carry_stays_the_kernels_and_is_told() {
    for (line, cause) in [
        ("10.8.0.0/16 proto 12 nexthops eth0,eth1", Cause::Multipath),
        ("10.8.0.0/16 via 10.141.0.2 dev eth0 proto 12 encap", Cause::Encapsulation),
        ("10.8.0.0/16 dev eth0 proto 12 inet6", Cause::Ipv6NextHop),
        ("10.8.0.0/16 via 10.141.0.2 dev eth0 proto 12 tos 16", Cause::Tos),
        ("10.8.0.0/16 dev tun0 proto 12", Cause::NotByUplink),
        ("unreachable 10.8.0.0/16 proto 12", Cause::Kind),
    ] {
        let mirror = node(line);
        assert_eq!(imported(&mirror, "10.8.0.0/16"), KERNEL_ROUTE, "{line}");
        let account = mirror.import_account(&importing(&mirror));
        assert_eq!(account.left[&cause].1, prefix("10.8.0.0/16"), "{line}: {account:?}");
        assert!(account.carried >= 2, "{account:?}");
    }
    let mut mirror = node("");
    assert_eq!(mirror.apply(Event::Link(link("2: eth0 UP mtu 1500"))), Effect::Changed);
    assert_eq!(imported(&mirror, "172.19.36.0/24"), KERNEL_ROUTE, "no carrier");
}

#[test]
fn the_protocols_and_the_pools_choose() {
    let mirror = node("172.19.39.0/24 via 10.141.0.2 dev eth0 proto static");
    let bird = with(&mirror, Import { protocols: Some(vec![12]), ..ALL });
    let at = |destination, policy: &Policy| mirror.wanted_at(prefix(destination), policy);
    assert_eq!(at("172.19.36.0/24", &bird), next_hop(Some("10.141.0.2"), ETH0, 1500));
    assert_eq!(at("172.19.39.0/24", &bird), KERNEL_ROUTE);
    let pools = with(&mirror, Import { pools: vec![prefix("172.19.36.0/22")], ..ALL });
    assert!(at("172.19.39.0/24", &pools).is_some_and(|wanted| wanted != Wanted::Kernel(Reason::KernelRoute)));
    assert_eq!(at("172.19.35.0/24", &pools), KERNEL_ROUTE, "a blackhole outside the pools");
    // The kernel would use the better one, which is not to be taken over: so neither is the other.
    let better = node("172.19.40.0/24 via 10.141.0.9 dev eth0 proto static metric 1");
    let route = route(&better, "172.19.40.0/24 via 10.141.0.2 dev eth0 proto 12 metric 32");
    let mut both = better.clone();
    assert_eq!(both.apply(Event::Route(route, Place::Last)), Effect::Route(prefix("172.19.40.0/24")));
    let bird = with(&both, Import { protocols: Some(vec![12]), ..ALL });
    assert_eq!(both.wanted_at(prefix("172.19.40.0/24"), &bird), KERNEL_ROUTE);
}

#[test]
fn without_egress_connected_networks_and_the_default_route_stay_the_kernels() {
    let mirror = node("");
    let policy = Policy { egress: false, ..importing(&mirror) };
    let at = |destination| mirror.wanted_at(prefix(destination), &policy);
    assert_eq!(at("default"), KERNEL_ROUTE);
    assert_eq!(at("10.141.0.0/16"), KERNEL_ROUTE);
    assert_eq!(at("172.19.36.0/24"), next_hop(Some("10.141.0.2"), ETH0, 1500));
}

#[test]
fn another_table_goes_before_main_for_its_prefixes() {
    let mirror = node(
        "172.19.36.0/24 via 10.141.0.9 dev eth0 proto 12 table 100
         172.19.44.0/24 via 10.141.0.9 dev eth0 proto 12 table 100
         172.19.45.0/24 via 10.141.0.9 dev eth0 proto 12 table 101
         default via 10.141.0.9 dev eth0 proto 12 table 100",
    );
    let policy = with(&mirror, Import { table: 100, ..ALL });
    let wanted = mirror.wanted(&policy);
    let by = |router| next_hop(Some(router), ETH0, 1500);
    assert_eq!(wanted.get(&prefix("172.19.36.0/24")).copied(), by("10.141.0.9"));
    assert_eq!(wanted.get(&prefix("172.19.44.0/24")).copied(), by("10.141.0.9"));
    assert_eq!(wanted.get(&prefix("172.19.45.0/24")), None);
    assert_eq!(wanted.get(&prefix("172.19.35.0/24")).copied(), KERNEL_ROUTE, "main is not imported");
    assert_eq!(wanted.get(&prefix("default")).copied(), by("10.141.255.254"), "the default route is main's");
    assert_eq!(mirror.import_account(&policy).carried, 2);
}

#[test]
fn a_single_route_concerns_its_prefix_alone() {
    let mut mirror = node("");
    let mut put = |line: &str, place| {
        let route = route(&mirror, line);
        mirror.apply(Event::Route(route, place))
    };
    let alone = |text| Effect::Route(prefix(text));
    assert_eq!(put("172.19.50.0/24 via 10.141.0.2 dev eth0 proto 12", Place::First), alone("172.19.50.0/24"));
    assert_eq!(put("blackhole 172.19.51.0/24 proto 12", Place::First), alone("172.19.51.0/24"));
    // Others depend on these: the uplinks, the routers on a link, the containers, the host's own addresses.
    assert_eq!(put("default via 192.0.2.5 dev eth1", Place::First), Effect::Changed);
    assert_eq!(put("10.9.0.0/16 dev eth0 scope link", Place::First), Effect::Changed);
    assert_eq!(put("10.9.0.0/16 via 10.141.0.2 dev eth0", Place::Replace), Effect::Changed);
    assert_eq!(put("10.9.0.0/16 via 10.141.0.3 dev eth0", Place::Replace), alone("10.9.0.0/16"));
    assert_eq!(put("172.19.35.9 dev cali1 scope link", Place::First), Effect::Changed);
    assert_eq!(put("172.19.35.9 via 10.141.0.2 dev eth0 table 100", Place::First), Effect::Changed);
    assert_eq!(put("local 203.0.113.1 dev lo table local", Place::First), Effect::Changed);
    // Nothing depends on ours.
    assert_eq!(put("172.19.35.77 dev cali1 scope link proto 171", Place::First), alone("172.19.35.77/32"));
}

/// Lines whose routes meet at few prefixes, of every kind that others depend on and of those that they do not.
const ROUTES: &[&str] = &[
    "172.19.50.0/24 via 10.141.0.2 dev eth0 proto 12",
    "172.19.50.0/24 via 10.141.0.3 dev eth0 proto 12",
    "172.19.50.0/24 via 10.141.0.2 dev eth0 proto static metric 5",
    "172.19.50.0/24 proto 12 nexthops eth0,eth1",
    "172.19.50.0/24 via 10.141.0.2 dev eth0 proto 171",
    "172.19.50.0/24 via 192.0.2.5 dev eth1 proto 12 table 100",
    "blackhole 172.19.50.0/24 proto 12",
    "blackhole 172.19.50.0/24 proto 12 table 100",
    "172.19.35.9 dev cali1 scope link",
    "172.19.35.9 via 10.141.0.2 dev eth0 proto 12",
    "blackhole 172.19.35.9 proto 12 table 100",
    "default via 192.0.2.5 dev eth1 metric 5",
    "10.9.0.0/16 dev eth0 proto kernel scope link",
    "local 203.0.113.0/24 dev lo table local",
    "203.0.113.0/25 via 10.141.0.2 dev eth0 proto 12",
];

const LINKS: &[&str] = &[
    "2: eth0 UP,LOWER_UP mtu 1500",
    "2: eth0 UP mtu 1500",
    "2: eth0 DOWN mtu 1500",
    "7: cali1 DOWN mtu 1480 veth 2@0",
];

fn events() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..ROUTES.len() + LINKS.len(), 0_u8..4), 1..40)
}

proptest! {
    #[test]
    fn what_is_asked_again_is_all_that_changed(events in events(), table in prop::sample::select(vec![254, 100])) {
        let mut mirror = node("");
        let import = Import { table, ..ALL };
        let mut policy = with(&mirror, import.clone());
        let mut held: BTreeMap<_, _> = mirror.wanted(&policy);
        mirror.take_touched();
        for (number, how) in events {
            let event = match ROUTES.get(number) {
                Some(line) => {
                    let route = route(&mirror, line);
                    match how {
                        0 => Event::RouteGone(route),
                        1 => Event::Route(route, Place::First),
                        2 => Event::Route(route, Place::Last),
                        _ => Event::Route(route, Place::Replace),
                    }
                }
                None => Event::Link(link(LINKS[number - ROUTES.len()])),
            };
            // As the daemon does it.
            let effect = mirror.apply(event);
            let mut touched = mirror.take_touched();
            if effect >= Effect::Changed {
                let before = std::mem::replace(&mut policy, with(&mirror, import.clone()));
                let endpoints = before.endpoints.iter().chain(&policy.endpoints);
                touched.extend(endpoints.map(|(address, _)| ipnet::Ipv4Net::from(*address)));
                if !policy.agrees_but_for_endpoints(&before) {
                    held = mirror.wanted(&policy);
                }
            }
            for prefix in touched {
                match mirror.wanted_at(prefix, &policy) {
                    Some(wanted) => drop(held.insert(prefix, wanted)),
                    None => drop(held.remove(&prefix)),
                }
            }
            prop_assert_eq!(&held, &mirror.wanted(&with(&mirror, import.clone())));
        }
    }
}
