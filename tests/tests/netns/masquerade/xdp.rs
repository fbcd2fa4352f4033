//! A head node whose uplinks are served at XDP, as in [`super::gateway`]: what XDP carries, what it leaves to tc, and
//! what happens to it meanwhile.

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use serde_json::Value;
use tests::harness::{
    Daemon, eventually, skip,
    topology::take_frames,
    traffic::{self, TcpPair, UdpPair},
};

use super::{
    super::{foreign, network::SteadyPing, require_feature},
    FAR, NODE, PATIENCE, config,
    gateway::Gateway,
    offload, require_root,
};

/// A head node at XDP, among ends that take its frames and finish their checksums.
fn gateway(hook: &str) -> Result<Gateway> {
    let net = Gateway::with(config().datapath("uplink-hook", format!("\"{hook}\"")))?;
    let Gateway { head, c3, .. } = &net;
    head.fabric.take_frames()?;
    take_frames(&head.outside, "eth0")?;
    offload(c3, "eth0", "off")?;
    Ok(net)
}

/// Where the program of an uplink runs, and why.
fn uplink(daemon: &Daemon, interface: &str) -> Result<(String, String)> {
    let status = daemon.cli(&["status", "--json"])?;
    let uplinks = status["uplinks"].as_array().context("status without uplinks")?;
    let uplink = uplinks.iter().find(|uplink| uplink["interface"] == interface).context("no such uplink")?;
    let text = |member: &Value| member.as_str().unwrap_or_default().to_owned();
    Ok((text(&uplink["uplink_hook"]), text(&uplink["why"])))
}

fn await_uplink(daemon: &Daemon, interface: &str, hook: &str, why: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let found = uplink(daemon, interface)?;
        ensure!(found.0 == hook && found.1.contains(why), "{interface}: {found:?}");
        Ok(())
    })
}

/// Packets that the program at XDP carried by itself.
fn carried(daemon: &Daemon) -> Result<u64> {
    let status = daemon.cli(&["status", "--json"])?;
    status["packets_by_hook"][Hook::XdpFromUplink.name()]["forwarded"].as_u64().context("no counters of XDP")
}

/// Packets that it left to tc for that reason.
fn left(daemon: &Daemon, reason: Reason) -> Result<u64> {
    daemon.drops(Hook::XdpFromUplink, reason)
}

/// Exchanges datagrams until the program at XDP carries both directions.
fn await_carried(net: &Gateway, pair: &UdpPair) -> Result<()> {
    await_payload_carried(net, pair, b"again")
}

fn await_payload_carried(net: &Gateway, pair: &UdpPair, payload: &[u8]) -> Result<()> {
    eventually(PATIENCE, || {
        let before = carried(&net.head.daemon)?;
        let seen_as = pair.exchange(payload)?;
        ensure!(seen_as.ip() == NODE, "seen as {seen_as}");
        let now = carried(&net.head.daemon)?;
        ensure!(now == before + 2, "{} of 2 packets were carried at XDP", now - before);
        Ok(())
    })
}

#[test]
fn known_flows_are_carried_and_their_first_packets_are_tc_s() -> Result<()> {
    require_feature!(XdpFeatures);
    let net = gateway("xdp")?;
    let daemon = &net.head.daemon;
    await_uplink(daemon, "eth0", "xdp", "configured")?;
    net.by_bpf(|| {
        let pair = UdpPair::new(&net.c3, &net.head.outside, FAR)?;
        pair.exchange(b"first")?;
        ensure!(left(daemon, Reason::TcTranslates)? > 0, "the first packet of a flow was not left to tc");
        await_carried(&net, &pair)?;

        let before = carried(daemon)?;
        let pair = TcpPair::connect(&net.c3, &net.head.outside, FAR)?;
        pair.upload(300_000)?;
        pair.download(300_000)?;
        let packets = carried(daemon)? - before;
        ensure!(packets > 300, "of a TCP connection, {packets} packets were carried at XDP");
        traffic::ping(&net.c3, FAR, 5)?.all_answered()
    })?;
    net.finish().map(drop)
}

#[test]
fn fragments_and_errors_are_left_to_tc() -> Result<()> {
    require_feature!(XdpFeatures);
    let net = gateway("xdp")?;
    net.by_bpf(|| {
        let pair = UdpPair::new(&net.c3, &net.head.outside, FAR)?;
        ensure!(pair.exchange(&[7; 4000])?.ip() == NODE);
        let hops = traffic::traceroute_with(&net.c3, FAR, &[])?;
        ensure!(hops.last().is_some_and(|hop| hop.address == Some(FAR)), "{hops:?}");
        Ok(())
    })?;
    net.finish().map(drop)
}

/// A datagram of two pages is a frame in several pieces, and goes whole.
#[test]
fn jumbo_frames_are_carried() -> Result<()> {
    require_root!();
    require_feature!(XdpFeatures);
    let net = gateway("xdp")?;
    let Gateway { head, c3, node2, .. } = &net;
    head.fabric.ip_batch("link set port0 mtu 9000\nlink set port1 mtu 9000\nlink set br0 mtu 9000\n")?;
    node2.ip_batch("link set eth0 mtu 9000\nlink set cali3 mtu 9000\n")?;
    c3.ip("link set eth0 mtu 9000")?;
    head.outside.ip("link set eth0 mtu 9000")?;
    head.node.ip_batch("link set eth0 mtu 9000\nlink set eth1 mtu 9000\n")?;
    let pair = UdpPair::new(c3, &head.outside, FAR)?;
    net.by_bpf(|| await_payload_carried(&net, &pair, &[7; 8000]))
}

/// What the sender left to its device, XDP cannot finish: tc has it, and it comes out right.
#[test]
fn unfinished_checksums_are_left_to_tc() -> Result<()> {
    require_feature!(XdpFeatures);
    let net = gateway("xdp")?;
    offload(&net.c3, "eth0", "on")?;
    let pair = UdpPair::new(&net.c3, &net.head.outside, FAR)?;
    net.by_bpf(|| {
        for _ in 0..5 {
            pair.exchange(b"unfinished")?;
        }
        Ok(())
    })?;
    ensure!(
        left(&net.head.daemon, Reason::NeedsSkb)? >= 3,
        "{:?}",
        net.head.daemon.cli(&["drops", "--json"])?
    );
    net.finish().map(drop)
}

#[test]
fn a_neighbour_s_new_mac_is_followed_and_a_forgotten_one_is_asked_for() -> Result<()> {
    require_feature!(XdpFeatures);
    let net = gateway("xdp")?;
    let Gateway { head, c3, .. } = &net;
    let pair = UdpPair::new(c3, &head.outside, FAR)?;
    await_carried(&net, &pair)?;

    head.outside.ip("link set eth0 address 02:00:00:00:77:01")?;
    head.node.ip("neigh replace 198.51.100.1 dev eth1 lladdr 02:00:00:00:77:01 nud reachable")?;
    eventually(PATIENCE, || pair.exchange(b"elsewhere"))?;
    await_carried(&net, &pair)?;

    let before = left(&head.daemon, Reason::NoNeighbour)?;
    head.node.ip("neigh flush dev eth1")?;
    eventually(PATIENCE, || {
        pair.exchange(b"who has it?")?;
        ensure!(left(&head.daemon, Reason::NoNeighbour)? > before, "nobody asked for the neighbour");
        Ok(())
    })?;
    await_carried(&net, &pair)?;
    net.finish().map(drop)
}

#[test]
fn an_end_that_takes_no_frames_is_served_by_tc_and_noticed_when_it_does() -> Result<()> {
    require_feature!(XdpFeatures);
    let net = gateway("xdp")?;
    let Gateway { head, c3, .. } = &net;
    let pair = UdpPair::new(c3, &head.outside, FAR)?;
    await_carried(&net, &pair)?;

    head.outside.run(["ethtool", "-K", "eth0", "gro", "off"]).ok()?;
    eventually(PATIENCE, || {
        let before = left(&head.daemon, Reason::NoXdpExit)?;
        pair.exchange(b"by tc")?;
        ensure!(
            left(&head.daemon, Reason::NoXdpExit)? > before,
            "frames are still sent to who does not take them"
        );
        Ok(())
    })?;
    take_frames(&head.outside, "eth0")?;
    await_carried(&net, &pair)
}

#[test]
fn somebody_else_s_program_stays_and_tc_serves_the_uplink() -> Result<()> {
    require_root!();
    let net = gateway("tc")?;
    let Gateway { head, c3, .. } = &net;
    let foreign = foreign::attach_xdp(&head.node, "eth1")?;
    let pair = UdpPair::new(c3, &head.outside, FAR)?;
    let at_xdp = || {
        config()
            .datapath("uplink-hook", "\"xdp\"")
            .route("172.19.36.0/24", "10.141.0.2")
            .table(super::gateway::RULE)
    };
    head.daemon.write_config(&at_xdp())?;
    head.daemon.reload()?;
    await_uplink(&head.daemon, "eth1", "tc", "another XDP program is attached to it")?;
    await_uplink(&head.daemon, "eth0", "xdp", "configured")?;
    let status = head.daemon.cli(&["status", "--json"])?;
    ensure!(
        status["health"] == "degraded" && status["complaints"].to_string().contains("uplink eth1"),
        "{status}"
    );
    ensure!(
        head.node.ip("link show eth1")?.contains(foreign::NAME)
            || head.node.ip("link show eth1")?.contains("prog/xdp")
    );
    net.by_bpf(|| pair.exchange(b"by tc"))?;

    drop(foreign);
    head.node.ip("link set eth1 alias changed")?;
    await_uplink(&head.daemon, "eth1", "xdp", "configured")
}

#[test]
fn an_uplink_that_carries_a_vlan_is_served_by_tc() -> Result<()> {
    require_root!();
    let net = gateway("xdp")?;
    let head = &net.head;
    if head
        .node
        .run(["ip", "link", "add", "link", "eth1", "name", "eth1.7", "type", "vlan", "id", "7"])
        .ok()
        .is_err()
    {
        skip(
            "netns::netns::masquerade::xdp::an_uplink_that_carries_a_vlan_is_served_by_tc",
            "this kernel has no VLAN devices",
        );
        return Ok(());
    }
    await_uplink(&head.daemon, "eth1", "tc", "it carries the VLAN of eth1.7")?;
    head.node.ip("link delete eth1.7")?;
    await_uplink(&head.daemon, "eth1", "xdp", "configured")
}

#[test]
fn the_daemon_s_own_choice_for_a_veth_is_tc() -> Result<()> {
    require_root!();
    let net = gateway("auto")?;
    await_uplink(&net.head.daemon, "eth1", "tc", "veth: XDP would turn off segmentation offload")
}

/// Back and forth by reloads, and over an end of the daemon in between.
#[test]
fn nothing_is_lost_while_the_hook_changes() -> Result<()> {
    require_feature!(XdpFeatures);
    let mut net = gateway("xdp")?;
    let ping = SteadyPing::start(&net.c3, FAR)?;
    let text = |hook: &str| {
        let config = config().datapath("uplink-hook", format!("\"{hook}\""));
        config.route("172.19.36.0/24", "10.141.0.2").table(super::gateway::RULE)
    };
    for hook in ["tc", "xdp", "tc", "xdp"] {
        net.head.daemon.write_config(&text(hook))?;
        net.head.daemon.reload()?;
        await_uplink(&net.head.daemon, "eth1", hook, "configured")?;
        ping.continues(5)?;
    }
    net.head.daemon.kill()?;
    ping.continues(20)?;
    net.head.daemon.launch()?;
    await_uplink(&net.head.daemon, "eth1", "xdp", "configured")?;
    ping.nothing_lost()?;
    await_carried(&net, &UdpPair::new(&net.c3, &net.head.outside, FAR)?)?;
    net.finish().map(drop)
}

#[test]
fn an_uplink_that_vanishes_takes_no_other_down() -> Result<()> {
    require_feature!(XdpFeatures);
    let net = gateway("xdp")?;
    let Gateway { head, c3, .. } = &net;
    let pair = UdpPair::new(c3, &head.outside, FAR)?;
    await_carried(&net, &pair)?;
    head.node.ip("link delete eth1")?;
    for _ in 0..100 {
        let _ = pair.client.send(b"nobody there");
    }
    eventually(PATIENCE, || {
        ensure!(uplink(&head.daemon, "eth1").is_err(), "eth1 is still an uplink");
        Ok(())
    })?;
    traffic::ping(c3, head.node.address, 3)?.all_answered()?;
    traffic::ping(&head.c1, c3.address, 3)?.all_answered()
}
