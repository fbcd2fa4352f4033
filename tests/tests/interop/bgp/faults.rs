//! Peers that are configured wrongly, and one made by hand that breaks the rules.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use tests::harness::{Bird, Daemon, Fabric, Neighbour, Node, RoutingDaemon as _, Speaker, traffic};

use super::{await_error, await_established, await_peer, await_route, config, peer, require_root};

#[test]
fn a_wrong_number_or_identifier_is_named() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
    let daemon = Daemon::start(&node1, &peer(config(&node1, "172.19.35.0/24"), node2.address, ""))?;
    let right = Speaker::of(&node2).neighbour(Neighbour::new(node1.address));
    let mut bird = Bird::start(&node2, &Speaker { asn: 64999, ..right.clone() })?;
    await_error(&daemon, node2.address, "the peer is in autonomous system 64999, not 64512")?;
    bird.change(&right)?;
    await_established(&daemon, node2.address)?;
    // What BIRD announces and we must not take.
    bird.change(&right.block("172.19.35.0/24").block("192.0.2.0/24").block("172.19.40.0/24"))?;
    await_route(&daemon, "172.19.40.1", node2.address)?;
    let refused = daemon.cli(&["bgp", "peers", "--json"])?[0]["refused"].take();
    ensure!(refused["own-block"] == 1 && refused["not-accepted"] == 1, "{refused}");
    let listed = daemon.cli_output(&["bgp", "routes", "--refused"]).ok()?;
    ensure!(listed.contains("192.0.2.0/24") && listed.contains("a block of this node"), "{listed}");
    ensure!(!listed.contains("172.19.40.0/24"), "{listed}");
    let shown = daemon.cli_output(&["status"]).ok()?;
    ensure!(shown.contains("established"), "{shown}");
    Ok(())
}

/// A peer made by hand, at the end of a connection.
struct Hand(TcpStream);

impl Hand {
    /// Waits on a node for the daemon to connect, and answers its OPEN: AS 64512, hold time 9 s.
    fn establish(node: &Node) -> Result<Self> {
        let address = SocketAddr::from((node.address, 179));
        let stream = node.enter(|| Ok(TcpListener::bind(address)?.accept()?.0))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut hand = Self(stream);
        // Version 4, the system, the hold time, the identifier, no capabilities.
        let [a, b, c, d] = node.address.octets();
        hand.say(1, &[4, 0xfc, 0, 0, 9, a, b, c, d, 0])?;
        hand.hear(1)?;
        hand.say(4, &[])?;
        hand.hear(4)?;
        Ok(hand)
    }

    fn say(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let length = u16::try_from(19 + body.len())?;
        let message = [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat();
        Ok(self.0.write_all(&message)?)
    }

    /// Announces prefixes of three bytes by an internal route with these attributes besides.
    fn announce(&mut self, attributes: &[u8], prefixes: &[[u8; 3]]) -> Result<()> {
        let attributes = [&[0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100], attributes].concat();
        let length = u16::try_from(attributes.len())?.to_be_bytes();
        let prefixes: Vec<u8> = prefixes.iter().flat_map(|[a, b, c]| [24, *a, *b, *c]).collect();
        self.say(2, &[&[0, 0], &length[..], &attributes, &prefixes].concat())
    }

    fn withdraw(&mut self, prefixes: &[[u8; 3]]) -> Result<()> {
        let prefixes: Vec<u8> = prefixes.iter().flat_map(|[a, b, c]| [24, *a, *b, *c]).collect();
        let length = u16::try_from(prefixes.len())?.to_be_bytes();
        self.say(2, &[&length[..], &prefixes, &[0, 0]].concat())
    }

    /// The body of the next message of that kind.
    fn hear(&mut self, kind: u8) -> Result<Vec<u8>> {
        loop {
            let mut header = [0; 19];
            self.0.read_exact(&mut header)?;
            let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
            self.0.read_exact(&mut body)?;
            if header[18] == kind {
                return Ok(body);
            }
        }
    }
}

const ORIGIN: [u8; 4] = [0x40, 1, 1, 0];

#[test]
fn a_flap_storm_ends_as_it_was_told() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let rogue = Node::new(&fabric, "rogue", "10.141.0.9")?;
    let c1 = node1.routed_container("cali1", "172.19.35.2")?;
    let c2 = node1.routed_container("cali2", "172.19.35.3")?;
    let daemon = Daemon::start(&node1, &peer(config(&node1, "172.19.35.0/24"), rogue.address, ""))?;
    let mut hand = Hand::establish(&rogue)?;
    let attributes = [&ORIGIN[..], &[0x40, 3, 4, 10, 141, 0, 9]].concat();
    let prefixes: Vec<[u8; 3]> = (50..150).map(|third| [172, 19, third]).collect();
    // Each prefix comes and goes a hundred times, in UPDATEs of its own; half of them stay.
    for _ in 0..100 {
        for prefix in &prefixes {
            hand.announce(&attributes, &[*prefix])?;
        }
        for prefix in &prefixes {
            hand.withdraw(&[*prefix])?;
        }
    }
    let (stay, _) = prefixes.split_at(50);
    stay.iter().try_for_each(|prefix| hand.announce(&attributes, &[*prefix]))?;
    await_peer(&daemon, rogue.address, "at the end", |peer| peer["prefixes_accepted"] == 50)?;
    await_route(&daemon, "172.19.99.1", rogue.address)?;
    super::await_no_route(&daemon, "172.19.100.1")?;
    super::eventually(super::PATIENCE, || {
        // With the block that is ours.
        let routes = node1.ip("route show proto 171")?.lines().count();
        ensure!(routes == 51, "{routes} routes in the kernel");
        Ok(())
    })?;
    ensure!(super::bgp_peer(&daemon, rogue.address)?["sessions"] == 1, "the session fell");
    traffic::ping(&c1, c2.address, 20)?.all_answered()
}

#[test]
fn malformed_updates_and_a_peer_that_stops_cost_the_others_nothing() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
    let rogue = Node::new(&fabric, "rogue", "10.141.0.9")?;
    node2.default_via("10.141.255.254")?;
    let c1 = node1.routed_container("cali1", "172.19.35.2")?;
    let c3 = node2.routed_container("cali3", "172.19.36.2")?;
    let file = peer(peer(config(&node1, "172.19.35.0/24"), node2.address, ""), rogue.address, "");
    let daemon = Daemon::start(&node1, &file)?;
    let speaker = Speaker::of(&node2).block("172.19.36.0/24").neighbour(Neighbour::new(node1.address));
    let _bird = Bird::start(&node2, &speaker)?;
    await_route(&daemon, c3.address, node2.address)?;

    let mut hand = Hand::establish(&rogue)?;
    let next_hop = [0x40, 3, 4, 10, 141, 0, 9];
    hand.announce(&[&ORIGIN[..], &next_hop].concat(), &[[172, 19, 50], [172, 19, 51]])?;
    await_route(&daemon, "172.19.50.1", rogue.address)?;
    // Without a next hop: withdrawn. With an ORIGIN of two bytes: likewise. The session stays.
    hand.announce(&ORIGIN, &[[172, 19, 50]])?;
    super::await_no_route(&daemon, "172.19.50.1")?;
    hand.announce(&[&[0x40, 1, 2, 0, 0], &next_hop[..]].concat(), &[[172, 19, 51]])?;
    super::await_no_route(&daemon, "172.19.51.1")?;
    let state = await_peer(&daemon, rogue.address, "blamed", |peer| peer["faulty_updates"] == 2)?;
    ensure!(state["state"] == "established" && state["sessions"] == 1, "{state:#}");
    // A multicast prefix, a next hop that is the node itself, one that nobody reaches.
    hand.announce(&[&ORIGIN[..], &next_hop].concat(), &[[224, 0, 1]])?;
    hand.announce(&[&ORIGIN[..], &[0x40, 3, 4, 10, 141, 0, 1]].concat(), &[[172, 19, 52]])?;
    hand.announce(&[&ORIGIN[..], &[0x40, 3, 4, 192, 0, 2, 1]].concat(), &[[172, 19, 53]])?;
    let state = await_peer(&daemon, rogue.address, "refused", |peer| peer["prefixes_refused"] == 3)?;
    for reason in ["reserved", "next-hop-own", "next-hop-unreachable"] {
        ensure!(state["refused"][reason] == 1, "{reason}: {state:#}");
    }
    // An NLRI that cannot be read ends it, with words on both sides.
    hand.say(2, &[0, 0, 0, 0, 40, 1, 2, 3, 4, 5])?;
    ensure!(hand.hear(3)?[0] == 3, "not an UPDATE Message Error");
    await_error(&daemon, rogue.address, "we ended the session: Invalid Network Field")?;

    // A peer that says nothing any more is given up when its hold time is over; traffic goes on.
    let mut silent = Hand::establish(&rogue)?;
    silent.announce(&[&ORIGIN[..], &next_hop].concat(), &[[172, 19, 50]])?;
    await_route(&daemon, "172.19.50.1", rogue.address)?;
    traffic::ping(&c1, c3.address, 100)?.all_answered()?;
    ensure!(silent.hear(3)? == [4, 0], "not Hold Timer Expired");
    await_error(&daemon, rogue.address, "Hold Timer Expired")?;
    super::await_no_route(&daemon, "172.19.50.1")?;
    traffic::ping(&c1, c3.address, 20)?.all_answered()
}
