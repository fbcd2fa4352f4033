//! `kernel::netlink` and the mirror against the running kernel. Needs root and iproute2.

#[path = "netlink/following.rs"]
mod following;
#[path = "netlink/harness.rs"]
mod harness;
#[path = "netlink/listing.rs"]
mod listing;
#[path = "netlink/mirror.rs"]
mod mirror;
#[path = "netlink/own_routes.rs"]
mod own_routes;
#[path = "netlink/ports.rs"]
mod ports;

use anyhow::{Context, Result};
use dataplane::kernel::netlink::{Link, Route, RouteKind};
use harness::ip;
use ipnet::Ipv4Net;

/// An uplink `eth0` with an address, its other end in the same namespace.
fn make_uplink() {
    ip("link add eth0 mtu 1450 type veth peer name fabric0");
    ip("link set fabric0 up");
    ip("link set eth0 up");
    ip("addr add 10.141.0.1/16 broadcast 10.141.255.255 dev eth0");
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn by_name(links: &[Link], name: &str) -> Result<Link> {
    links.iter().find(|link| link.name == name).cloned().with_context(|| format!("no link {name}"))
}

/// A route that was added with `ip route add PREFIX dev OIF` alone.
fn plain(destination: &str, oif: u32) -> Route {
    Route {
        destination: net(destination),
        table: 254,
        kind: RouteKind::Unicast,
        protocol: libc::RTPROT_BOOT,
        scope: libc::RT_SCOPE_LINK,
        metric: 0,
        tos: 0,
        gateway: None,
        oif: Some(oif),
        source: None,
        mtu: None,
        nexthop: None,
        multipath: false,
        multipath_oifs: Box::default(),
        encap: false,
        via_ipv6: false,
    }
}
