//! The mirror, on states written as `ip` prints them.

use std::{collections::BTreeSet, net::Ipv4Addr};

use dataplane_common::{names, reason::Reason};
use ipnet::Ipv4Net;

use super::{Effect, Mirror, Wanted};
use crate::kernel::netlink::{Address, Event, Link, Peer, Place, Route, RouteKind};

/// A node with two containers, another node's block by BIRD, and one of ours.
const NODE: &str = "
    1: lo LOOPBACK,UP,LOWER_UP mtu 65536
    2: eth0 UP,LOWER_UP mtu 1500
    3: eth1 UP,LOWER_UP mtu 9000
    7: cali1 UP,LOWER_UP mtu 1480 veth 2@0
    8: cali2 UP,LOWER_UP mtu 1480 veth 2@1
    9: tun0 UP,LOWER_UP mtu 1400 tun
    inet 127.0.0.1/8 dev lo
    inet 10.141.0.1/16 brd 10.141.255.255 dev eth0
    inet 192.0.2.7/30 dev eth1
    default via 10.141.255.254 dev eth0 proto static
    10.141.0.0/16 dev eth0 proto kernel scope link src 10.141.0.1
    192.0.2.4/30 dev eth1 proto kernel scope link src 192.0.2.7
    172.19.35.2 dev cali1 scope link
    172.19.35.3 dev cali2 scope link
    blackhole 172.19.35.0/24 proto 12
    172.19.36.0/24 via 10.141.0.2 dev eth0 proto 12
    172.19.37.0/24 via 10.141.0.3 dev eth0 proto 171
    198.51.100.0/24 dev tun0 scope link
    local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
    local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
    local 10.141.0.1 dev eth0 table local proto kernel scope host src 10.141.0.1
    broadcast 10.141.255.255 dev eth0 table local proto kernel scope link src 10.141.0.1
    local 192.0.2.7 dev eth1 table local proto kernel scope host src 192.0.2.7
    broadcast 127.255.255.255 dev lo table local proto kernel scope link src 127.0.0.1
";

const ETH0: u32 = 2;
const ETH1: u32 = 3;

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn node(extra: &str) -> Mirror {
    let mut mirror = Mirror::default();
    for line in lines(NODE).chain(lines(extra)) {
        let effect = mirror.apply(event(&mirror, line));
        assert_eq!(effect, Effect::Changed, "{line}");
    }
    mirror
}

/// The news that a line is there.
fn event(mirror: &Mirror, line: &str) -> Event {
    if line.starts_with("inet") {
        Event::Address(address(mirror, line))
    } else if line.contains(": ") {
        Event::Link(link(line))
    } else {
        Event::Route(route(mirror, line), Place::Last)
    }
}

fn index(mirror: &Mirror, name: &str) -> u32 {
    mirror.link_by_name(name).unwrap_or_else(|| panic!("no link {name}")).index
}

fn link(line: &str) -> Link {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [number, name, flags, "mtu", mtu, kind @ ..] = words.as_slice() else { panic!("{line}") };
    let flags: Vec<&str> = flags.split(',').collect();
    Link {
        index: number.trim_end_matches(':').parse().unwrap(),
        name: (*name).to_owned(),
        mac: None,
        mtu: mtu.parse().unwrap(),
        up: flags.contains(&"UP"),
        carrier: flags.contains(&"LOWER_UP"),
        ethernet: !flags.contains(&"LOOPBACK") && kind.first() != Some(&"tun"),
        kind: kind.first().map(|kind| (*kind).to_owned()),
        peer: kind.get(1).and_then(|peer| peer.split_once('@')).map(|(ifindex, netnsid)| Peer {
            ifindex: ifindex.parse().unwrap(),
            netnsid: Some(netnsid.parse().unwrap()),
        }),
    }
}

fn address(mirror: &Mirror, line: &str) -> Address {
    let mut words = line.split_whitespace().skip(1);
    let mut address = Address {
        ifindex: 0,
        network: words.next().unwrap().parse().unwrap(),
        peer: None,
        broadcast: None,
        secondary: false,
        scope: 0,
    };
    while let Some(word) = words.next() {
        match word {
            "brd" => address.broadcast = Some(words.next().unwrap().parse().unwrap()),
            "peer" => address.peer = Some(words.next().unwrap().parse().unwrap()),
            "dev" => address.ifindex = index(mirror, words.next().unwrap()),
            other => panic!("{other} in {line}"),
        }
    }
    address
}

fn route(mirror: &Mirror, line: &str) -> Route {
    let mut words = line.split_whitespace().peekable();
    let kind = match *words.peek().unwrap() {
        "local" => RouteKind::Local,
        "broadcast" => RouteKind::Broadcast,
        "blackhole" => RouteKind::Blackhole,
        "unreachable" => RouteKind::Unreachable,
        "prohibit" => RouteKind::Prohibit,
        "throw" => RouteKind::Throw,
        _ => RouteKind::Unicast,
    };
    if kind != RouteKind::Unicast {
        words.next();
    }
    let mut route = Route {
        destination: prefix(words.next().unwrap()),
        table: 254,
        kind,
        protocol: libc::RTPROT_BOOT,
        scope: 0,
        metric: 0,
        tos: 0,
        gateway: None,
        oif: None,
        source: None,
        mtu: None,
        multipath: false,
        multipath_oifs: Box::default(),
        encap: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap();
        match word {
            "via" => route.gateway = Some(value().parse().unwrap()),
            "dev" => route.oif = Some(index(mirror, value())),
            "src" => route.source = Some(value().parse().unwrap()),
            "metric" => route.metric = value().parse().unwrap(),
            "mtu" => route.mtu = Some(value().parse().unwrap()),
            "tos" => route.tos = value().parse().unwrap(),
            "encap" => route.encap = true,
            "nexthops" => {
                route.multipath = true;
                route.multipath_oifs = value().split(',').map(|name| index(mirror, name)).collect();
            }
            "table" => route.table = if value() == "local" { 255 } else { 100 },
            "proto" => {
                route.protocol = match value() {
                    "kernel" => libc::RTPROT_KERNEL,
                    "static" => libc::RTPROT_STATIC,
                    number => number.parse().unwrap(),
                }
            }
            "scope" => {
                route.scope = match value() {
                    "link" => libc::RT_SCOPE_LINK,
                    "host" => libc::RT_SCOPE_HOST,
                    other => panic!("scope {other}"),
                }
            }
            other => panic!("{other} in {line}"),
        }
    }
    route
}

fn prefix(text: &str) -> Ipv4Net {
    match text {
        "default" => Ipv4Net::default(),
        text => text.parse().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from)).unwrap(),
    }
}

fn wanted(mirror: &Mirror, destination: &str) -> Option<Wanted> {
    let endpoints = mirror.discovered("cali").into_iter().collect();
    mirror.wanted(&[ETH0, ETH1], &endpoints).get(&prefix(destination)).copied()
}

fn next_hop(gateway: Option<&str>, ifindex: u32, mtu: u32) -> Option<Wanted> {
    Some(Wanted::NextHop { gateway: gateway.map(|gateway| gateway.parse().unwrap()), ifindex, mtu })
}

const KERNEL_ROUTE: Option<Wanted> = Some(Wanted::Kernel(Reason::KernelRoute));

#[test]
fn the_whole_table_of_a_node() {
    let mirror = node("");
    let endpoints = mirror.discovered("cali").into_iter().collect();
    let table: Vec<String> = mirror
        .wanted(&[ETH0, ETH1], &endpoints)
        .into_iter()
        .map(|(destination, wanted)| match wanted {
            Wanted::NextHop { gateway: Some(gateway), ifindex, mtu } => {
                format!("{destination} via {gateway} dev {ifindex} mtu {mtu}")
            }
            Wanted::NextHop { gateway: None, ifindex, mtu } => {
                format!("{destination} dev {ifindex} mtu {mtu}")
            }
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
    let wanted = mirror.wanted(&[9], &BTreeSet::new());
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
    let none = mirror.wanted(&[ETH0], &BTreeSet::new());
    assert_eq!(none.get(&prefix("172.19.35.2")).copied(), KERNEL_ROUTE);
    assert_eq!(wanted(&mirror, "172.19.35.2"), None);
    assert_eq!(wanted(&mirror, "172.19.35.12"), KERNEL_ROUTE);
    let elsewhere = mirror.wanted(&[ETH0], &BTreeSet::from([(address(2), 8)]));
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

#[test]
fn an_address_is_on_the_link_of_the_longest_match_without_gateway() {
    let mirror = node("10.141.8.0/24 dev eth1 scope link\n 10.141.9.0/24 via 10.141.0.2 dev eth1");
    let link = |address: &str| mirror.on_link(address.parse().unwrap()).and_then(|route| route.oif);
    assert_eq!(link("10.141.0.2"), Some(ETH0));
    assert_eq!(link("10.141.8.2"), Some(ETH1));
    assert_eq!(link("10.141.9.2"), Some(ETH0));
    assert_eq!(link("172.19.35.2"), Some(7));
    assert_eq!(link("203.0.113.1"), None, "the default route has a gateway");
}

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
    assert!(mirror.own_routes().all(|route| route.protocol == names::ROUTE_PROTOCOL));

    let peer = Peer { ifindex: 2, netnsid: Some(1) };
    assert_eq!(mirror.link_with_peer(peer).map(|link| link.name.as_str()), Some("cali2"));
    assert_eq!(mirror.apply(Event::PeerLink { peer, mac: None, gone: true }), Effect::Changed);
    let stranger = Peer { ifindex: 2, netnsid: Some(5) };
    assert_eq!(mirror.apply(Event::PeerLink { peer: stranger, mac: None, gone: true }), Effect::Unchanged);
}
