//! Uplinks that go, come and change, while containers' packets are translated: nothing leaves with a container's address.

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Config, eventually,
    traffic::{self, TcpPair, UdpPair},
};

use super::{
    masquerade::{Egress, FAR, NODE, RULE},
    network::PATIENCE,
    reconcile::{await_complaint, await_health},
    require_root,
};

/// The node's file, with these keys of `[node]`.
fn file(uplinks: Option<&str>) -> Config {
    let file = Config::new().pool("172.19.0.0/16").block("172.19.35.0/24").endpoint("172.19.35.2", "cali1");
    let file = file.table(RULE);
    match uplinks {
        Some(uplinks) => file.node("uplinks", uplinks),
        None => file,
    }
}

#[test]
fn a_default_route_that_goes_and_comes_back_ends_no_connection() -> Result<()> {
    require_root!();
    let net = Egress::with(file(None))?;
    let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    pair.exchange()?;
    net.node.ip_batch("route del default\nroute add default via 198.51.100.1\n")?;
    pair.exchange()?;
    // For as long as it takes the daemon to see that there is none.
    net.node.ip("route del default")?;
    await_complaint(&net.daemon, &["the default route is gone: eth1 stays the uplink"])?;
    // To the uplink's own network, which needs no default route.
    let seen_as = UdpPair::new(&net.c1, &net.outside, net.outside.address)?.exchange(b"question")?;
    ensure!(seen_as.ip() == NODE, "{seen_as}");
    net.node.ip("route add default via 198.51.100.1")?;
    pair.exchange()?;
    await_health(&net.daemon)?;
    net.finish().map(drop)
}

#[test]
fn what_a_rule_covers_is_dropped_while_the_named_uplink_is_missing() -> Result<()> {
    require_root!();
    let net = Egress::with(file(Some(r#"["eth1"]"#)))?;
    traffic::ping(&net.c1, FAR, 1)?.all_answered()?;
    net.node.ip_batch(
        "link set eth1 down\nlink set eth1 name wan0\nlink set wan0 up\nroute add default via 198.51.100.1\n",
    )?;
    await_complaint(&net.daemon, &["uplink eth1 does not exist"])?;
    await_complaint(&net.daemon, &["masquerade of 172.19.0.0/16", "are dropped"])?;
    let before = net.daemon.drops(Hook::FromContainer, Reason::NatKernelRoute)?;
    traffic::ping_with(&net.c1, FAR, 3, &["-W", "0.2", "-i", "0.2"])?.all_refused()?;
    let after = net.daemon.drops(Hook::FromContainer, Reason::NatKernelRoute)?;
    ensure!(after == before + 3, "{before} {after}");
    net.node.ip_batch(
        "link set wan0 down\nlink set wan0 name eth1\nlink set eth1 up\nroute add default via 198.51.100.1\n",
    )?;
    await_health(&net.daemon)?;
    eventually(PATIENCE, || traffic::ping(&net.c1, FAR, 1)?.all_answered())?;
    net.finish().map(drop)
}

#[test]
fn a_default_route_that_bpf_does_not_carry_is_complained_of() -> Result<()> {
    require_root!();
    let net = Egress::with(file(Some(r#"["eth0", "eth1"]"#)))?;
    net.node.ip_batch("link add veth8 type veth peer name veth9\nlink set veth8 up\nlink set veth9 up\n")?;
    for (route, why) in [
        ("nexthop via 198.51.100.1 dev eth1 nexthop via 10.141.0.2 dev eth0", "it has several next hops"),
        ("dev veth8", "it does not lead by an uplink"),
    ] {
        net.node.ip(&format!("route replace default {route}"))?;
        let complaint = await_complaint(&net.daemon, &["the default route is left to the kernel", why])?;
        ensure!(complaint.contains("is dropped"), "{complaint}");
        traffic::ping_with(&net.c1, FAR, 1, &["-W", "0.2"])?.all_refused()?;
    }
    net.node.ip("route replace default via 198.51.100.1")?;
    await_health(&net.daemon)?;
    traffic::ping(&net.c1, FAR, 3)?.all_answered()?;
    let packets = net.finish()?;
    packets.iter().find(|packet| packet.source == NODE).context("nothing was translated").map(drop)
}
