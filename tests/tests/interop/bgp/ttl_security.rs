//! TTL security (GTSM, RFC 5082), on both sides and on one alone.

use anyhow::Result;
use serde_json::Value;
use tests::harness::{Daemon, Fabric, Neighbour, Node, RoutingDaemon, Speaker};

use super::{await_error, await_established, await_peer, await_route, config, with_daemons};

with_daemons!(bird: Bird, frr: Frr, gobgp: GoBgp => [who_is_too_far_is_not_heard]);

/// The peer's autonomous system is another: without TTL security, routers send with a TTL of 1 then.
const ASN: u32 = 64999;

fn who_is_too_far_is_not_heard<R: RoutingDaemon>() -> Result<()> {
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let router = Node::new(&fabric, "router", "10.141.0.254")?;
    let peer = |keys: &str| {
        let table = format!("[[bgp.peer]]\naddress = \"10.141.0.254\"\nasn = {ASN}\n{keys}");
        config(&node, "172.19.35.0/24").table(&table)
    };
    let speaker = |ttl_security| {
        let speaker = Speaker { asn: ASN, ..Speaker::of(&router) };
        speaker.block("172.19.36.0/24").neighbour(Neighbour { ttl_security, ..Neighbour::new(node.address) })
    };
    let daemon = Daemon::start(&node, &peer("ttl-security-hops = 1"))?;
    let mut other = R::start(&router, &speaker(true))?;
    await_established(&daemon, router.address)?;
    await_route(&daemon, "172.19.36.9", router.address)?;
    other.await_next_hop("172.19.35.0/24", Some(node.address))?;

    // GoBGP does not end a session for this, and so is started anew.
    other.stop()?;
    let mut other = R::start(&router, &speaker(false))?;
    await_error(&daemon, router.address, "the peer does not send with a TTL of 255")?;
    daemon.write_config(&peer(""))?;
    daemon.reload()?;
    await_established(&daemon, router.address)?;

    // A peer that wants it needs nothing of ours: everything is sent with a TTL of 255.
    other.stop()?;
    let _other = R::start(&router, &speaker(true))?;
    await_established(&daemon, router.address)?;
    await_route(&daemon, "172.19.36.9", router.address)?;

    // The router connects.
    daemon.write_config(&peer("ttl-security-hops = 1\npassive = true"))?;
    daemon.reload()?;
    let accepted = |peer: &Value| peer["state"] == "established" && peer["passive"] == true;
    await_peer(&daemon, router.address, "established by the router", accepted).map(drop)
}
