//! The mirror, on states written as `ip` prints them.

mod events;
mod imports;
mod nexthops;
mod notation;
mod reach;

use std::{collections::BTreeSet, net::Ipv4Addr};

use dataplane_common::reason::Reason;

use self::notation::*;
use super::{Mirror, Policy, Wanted};

#[test]
fn the_whole_table_of_a_node() {
    let mirror = node("");
    let mut all = mirror.wanted(&policy(&mirror));
    all.extend(mirror.host().into_iter().map(|(prefix, reason)| (prefix, Wanted::Kernel(reason))));
    let table: Vec<String> = all
        .into_iter()
        .map(|(destination, wanted)| match wanted {
            Wanted::NextHop { gateway: Some(gateway), ifindex, mtu } => {
                format!("{destination} via {gateway} dev {ifindex} mtu {mtu}")
            }
            Wanted::NextHop { gateway: None, ifindex, mtu } => {
                format!("{destination} dev {ifindex} mtu {mtu}")
            }
            Wanted::Block => format!("{destination} block"),
            Wanted::Kernel(reason) => format!("{destination} {}", reason.name()),
        })
        .collect();
    let expected = "
        0.0.0.0/0 via 10.141.255.254 dev 2 mtu 1500
        0.0.0.0/8 reserved
        10.141.0.0/16 dev 2 mtu 1500
        10.141.0.1/32 to-host
        10.141.255.255/32 broadcast
        127.0.0.0/8 reserved
        127.0.0.1/32 to-host
        127.255.255.255/32 broadcast
        169.254.0.0/16 link-local
        172.19.35.0/24 kernel-route
        172.19.36.0/24 kernel-route
        192.0.2.4/30 dev 3 mtu 9000
        192.0.2.7/32 to-host
        198.51.100.0/24 kernel-route
        224.0.0.0/4 multicast
        255.255.255.255/32 broadcast";
    assert_eq!(table, lines(expected).collect::<Vec<_>>());
}

#[test]
fn the_best_metric_decides_and_our_own_routes_do_not() {
    let mirror = node("default via 192.0.2.5 dev eth1 proto 171 metric 0");
    assert_eq!(wanted(&mirror, "default"), next_hop(Some("10.141.255.254"), ETH0, 1500));

    let worse = node("default via 192.0.2.5 dev eth1 proto static metric 10");
    assert_eq!(wanted(&worse, "default"), next_hop(Some("10.141.255.254"), ETH0, 1500));

    let blackhole = "blackhole 10.141.0.0/16 proto static metric 4";
    assert_eq!(wanted(&node(blackhole), "10.141.0.0/16"), next_hop(None, ETH0, 1500));
    let connected = "10.8.0.0/16 dev eth1 proto kernel scope link metric 5";
    let mirror = node(&format!("{connected}\n unreachable 10.8.0.0/16 proto static metric 4"));
    assert_eq!(wanted(&mirror, "10.8.0.0/16"), KERNEL_ROUTE);
}

#[test]
fn whatever_the_data_path_cannot_carry_stays_the_kernels() {
    for line in [
        "10.8.0.0/16 dev eth0 proto kernel scope link nexthops eth0,eth1",
        "10.8.0.0/16 dev eth0 proto kernel scope link encap",
        "10.8.0.0/16 dev eth0 proto kernel scope link tos 16",
        "10.8.0.0/16 dev eth0 proto static scope link",
        "10.8.0.0/16 via 10.141.0.9 dev eth0 proto kernel",
        "10.8.0.0/16 dev tun0 proto kernel scope link",
        "10.8.0.0/16 dev cali1 scope link",
        "prohibit 10.8.0.0/16",
        "throw 10.8.0.0/16",
    ] {
        assert_eq!(wanted(&node(line), "10.8.0.0/16"), KERNEL_ROUTE, "{line}");
    }
    // Another table than `main` is not consulted.
    assert_eq!(wanted(&node("10.8.0.0/16 dev eth0 proto kernel scope link table 100"), "10.8.0.0/16"), None);
    // An Ethernet header cannot be put on what leaves by a tunnel, uplink or not.
    let mirror = node("10.8.0.0/16 dev tun0 proto kernel scope link");
    let wanted = mirror.wanted(&Policy {
        uplinks: mirror.link(9).cloned().into_iter().collect(),
        endpoints: BTreeSet::new(),
        ..policy(&mirror)
    });
    assert_eq!(wanted.get(&prefix("10.8.0.0/16")).copied(), KERNEL_ROUTE);
    assert_eq!(wanted.get(&prefix("default")).copied(), KERNEL_ROUTE, "eth0 is no uplink here");
}

#[test]
fn the_smaller_mtu_counts() {
    let connected = "10.8.0.0/16 dev eth1 proto kernel scope link mtu";
    assert_eq!(wanted(&node(&format!("{connected} 1400")), "10.8.0.0/16"), next_hop(None, ETH1, 1400));
    assert_eq!(wanted(&node(&format!("{connected} 9216")), "10.8.0.0/16"), next_hop(None, ETH1, 9000));
    assert_eq!(wanted(&node(&format!("{connected} 0")), "10.8.0.0/16"), next_hop(None, ETH1, 9000));
}

#[test]
fn a_shorter_prefix_in_table_local_outdoes_a_longer_one_in_main() {
    let mirror = node(
        "local 203.0.113.0/24 dev lo table local
         203.0.113.128/25 dev eth1 proto kernel scope link
         127.8.0.0/16 dev eth1 proto kernel scope link
         169.254.8.0/24 dev eth1 proto kernel scope link",
    );
    assert_eq!(wanted(&mirror, "203.0.113.0/24"), Some(Wanted::Kernel(Reason::ToHost)));
    assert_eq!(wanted(&mirror, "203.0.113.128/25"), None);
    assert_eq!(wanted(&mirror, "127.8.0.0/16"), None);
    assert_eq!(wanted(&mirror, "169.254.8.0/24"), None);
}

#[test]
fn the_broadcast_address_of_a_subnet_needs_no_route() {
    let broadcast = Some(Wanted::Kernel(Reason::Broadcast));
    let mirror = node("inet 203.0.113.9/28 dev eth1");
    assert_eq!(wanted(&mirror, "203.0.113.15"), broadcast);
    // In NODE, 192.0.2.7 is both the last address of its /30 and the node's own.
    assert_eq!(wanted(&mirror, "192.0.2.7"), Some(Wanted::Kernel(Reason::ToHost)));
    // RFC 3021: a /31 has none.
    assert_eq!(wanted(&node("inet 203.0.113.8/31 dev eth1"), "203.0.113.9"), None);
    assert_eq!(wanted(&node("inet 203.0.113.8/24 brd 203.0.113.99 dev eth1"), "203.0.113.99"), broadcast);
    assert_eq!(wanted(&node("inet 10.9.0.1/24 peer 203.0.113.8 dev eth1"), "203.0.113.255"), broadcast);
}

#[test]
fn containers_are_host_routes_onto_workload_veths() {
    let mirror = node(
        "10: eth2 UP,LOWER_UP mtu 1500 veth 9@0
         11: cali9 UP,LOWER_UP mtu 1500 bond
         172.19.35.4 dev eth2 scope link
         172.19.35.5 dev cali9 scope link
         172.19.35.6 dev cali1 scope link proto 171
         172.19.35.8/31 dev cali1 scope link
         172.19.35.10 via 172.19.35.2 dev cali1
         172.19.35.11 dev cali1 scope link table 100
         blackhole 172.19.35.12 metric 1
         172.19.35.12 dev cali1 scope link metric 2
         172.19.35.13 dev cali2 scope link metric 1
         172.19.35.13 dev cali1 scope link metric 2",
    );
    let address = |last| Ipv4Addr::new(172, 19, 35, last);
    assert_eq!(mirror.discovered("cali"), [(address(2), 7), (address(3), 8), (address(13), 8)]);
    assert_eq!(mirror.discovered("eth"), [(address(4), 10)]);

    // Those that are endpoints are left out; the same route is the kernel's where it is none.
    let with = |endpoints| mirror.wanted(&Policy { endpoints, ..policy(&mirror) });
    let none = with(BTreeSet::new());
    assert_eq!(none.get(&prefix("172.19.35.2")).copied(), KERNEL_ROUTE);
    assert_eq!(wanted(&mirror, "172.19.35.2"), None);
    assert_eq!(wanted(&mirror, "172.19.35.12"), KERNEL_ROUTE);
    let elsewhere = with(BTreeSet::from([(address(2), 8)]));
    assert_eq!(elsewhere.get(&prefix("172.19.35.2")).copied(), KERNEL_ROUTE);
}

#[test]
fn the_default_routes_name_the_uplinks() {
    assert_eq!(node("").default_uplinks(), [ETH0]);
    let several = node(
        "default via 192.0.2.5 dev eth1 metric 20
         default via 10.141.255.254 dev eth0 metric 30
         unreachable default metric 40",
    );
    assert_eq!(several.default_uplinks(), [ETH0, ETH1]);
    assert_eq!(node("default metric 7 nexthops eth1,eth0").default_uplinks(), [ETH0, ETH1]);
    assert!(Mirror::default().default_uplinks().is_empty());
}
