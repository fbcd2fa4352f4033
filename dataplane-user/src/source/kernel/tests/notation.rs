//! States and events, read from lines as `ip` prints them.

use std::net::Ipv4Addr;

use dataplane_common::reason::Reason;
use ipnet::Ipv4Net;

use super::super::{Effect, Import, Mirror, Policy, Wanted};
use crate::kernel::netlink::{Address, Event, Link, Peer, Place, Route, RouteKind};

/// A node with two containers, another node's block by BIRD, and one of ours.
pub(super) const NODE: &str = "
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
    172.19.37.0/24 via 10.141.0.3 dev eth0 proto 171 metric 16
    198.51.100.0/24 dev tun0 scope link
    local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
    local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
    local 10.141.0.1 dev eth0 table local proto kernel scope host src 10.141.0.1
    broadcast 10.141.255.255 dev eth0 table local proto kernel scope link src 10.141.0.1
    local 192.0.2.7 dev eth1 table local proto kernel scope host src 192.0.2.7
    broadcast 127.255.255.255 dev lo table local proto kernel scope link src 127.0.0.1
";

pub(super) const ETH0: u32 = 2;
pub(super) const ETH1: u32 = 3;

pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

pub(super) fn node(extra: &str) -> Mirror {
    let mut mirror = Mirror::default();
    for line in lines(NODE).chain(lines(extra)) {
        let effect = mirror.apply(event(&mirror, line));
        assert!(matches!(effect, Effect::Changed | Effect::Route(_) | Effect::Unchanged), "{line}");
    }
    mirror
}

/// The news that a line is there.
pub(super) fn event(mirror: &Mirror, line: &str) -> Event {
    if line.starts_with("inet") {
        Event::Address(address(mirror, line))
    } else if line.contains(": ") {
        Event::Link(link(line))
    } else {
        Event::Route(route(mirror, line), Place::Last)
    }
}

pub(super) fn index(mirror: &Mirror, name: &str) -> u32 {
    mirror.link_by_name(name).unwrap_or_else(|| panic!("no link {name}")).index
}

pub(super) fn link(line: &str) -> Link {
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
        vlan_of: match kind {
            ["vlan", lower] => Some(lower.parse().unwrap()),
            _ => None,
        },
    }
}

pub(super) fn address(mirror: &Mirror, line: &str) -> Address {
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

pub(super) fn route(mirror: &Mirror, line: &str) -> Route {
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
        nexthop: None,
        multipath: false,
        multipath_oifs: Box::default(),
        encap: false,
        via_ipv6: false,
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
            "inet6" => (route.encap, route.via_ipv6) = (true, true),
            "nhid" => route.nexthop = Some(value().parse().unwrap()),
            "nexthops" => {
                route.multipath = true;
                route.multipath_oifs = value().split(',').map(|name| index(mirror, name)).collect();
            }
            "table" => {
                route.table = match value() {
                    "local" => 255,
                    number => number.parse().unwrap(),
                }
            }
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

pub(super) fn prefix(text: &str) -> Ipv4Net {
    match text {
        "default" => Ipv4Net::default(),
        text => text.parse().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from)).unwrap(),
    }
}

/// Both uplinks, the endpoints that are discovered, egress by BPF, and no import.
pub(super) fn policy(mirror: &Mirror) -> Policy {
    Policy {
        uplinks: [ETH0, ETH1].iter().filter_map(|index| mirror.link(*index)).cloned().collect(),
        endpoints: mirror.discovered("cali").into_iter().collect(),
        egress: true,
        translates: false,
        import: None,
        shadows: mirror.shadows(),
    }
}

/// With the import of another daemon's routes, of every protocol.
pub(super) fn importing(mirror: &Mirror) -> Policy {
    let import = Import { table: 254, protocols: None, pools: Vec::new() };
    Policy { import: Some(import), ..policy(mirror) }
}

/// What the data path finds for exactly that prefix.
pub(super) fn wanted(mirror: &Mirror, destination: &str) -> Option<Wanted> {
    let destination = prefix(destination);
    let host = mirror.host().get(&destination).map(|reason| Wanted::Kernel(*reason));
    host.or_else(|| mirror.wanted_at(destination, &policy(mirror)))
}

pub(super) fn next_hop(gateway: Option<&str>, ifindex: u32, mtu: u32) -> Option<Wanted> {
    Some(Wanted::NextHop { gateway: gateway.map(|gateway| gateway.parse().unwrap()), ifindex, mtu })
}

pub(super) const KERNEL_ROUTE: Option<Wanted> = Some(Wanted::Kernel(Reason::KernelRoute));
