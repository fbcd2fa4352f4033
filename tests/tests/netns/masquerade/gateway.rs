//! A head node that translates what another node forwards to it: in by one uplink, out by the other.
//!
//! ```text
//!  c3 172.19.36.2 ─ node2 10.141.0.2 ══fabric══ eth0 10.141.0.1 head eth1 198.51.100.10 ══ outside
//! ```

use anyhow::{Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture, Config, Container, Daemon, Node, eventually,
    inject::Injector,
    packet::{Frame, Ipv4, Udp},
    traffic::{self, TcpPair, UdpPair},
};

use super::{Egress, FAR, NODE, PATIENCE, config, offload, require_root};

/// The rule is for one uplink, as on a head node: what goes to the fabric keeps its source.
pub(super) const RULE: &str = "[[masquerade]]\nsource = \"172.19.0.0/16\"\ninterface = \"eth1\"";

/// The head node, and a node behind it. Dropped from the top.
pub(super) struct Gateway {
    daemon2: Daemon,
    pub(super) c3: Container,
    pub(super) node2: Node,
    pub(super) head: Egress,
}

impl Gateway {
    fn new() -> Result<Self> {
        Self::with(config())
    }

    /// With that in the head node's file, besides the rule.
    pub(super) fn with(config: Config) -> Result<Self> {
        let head = Egress::with(config.route("172.19.36.0/24", "10.141.0.2").table(RULE))?;
        let node2 = Node::new(&head.fabric, "node2", "10.141.0.2")?;
        node2.default_via("10.141.0.1")?;
        let c3 = node2.container("cali3", "172.19.36.2")?;
        let config = Config::new()
            .node("uplinks", r#"["eth0"]"#)
            .pool("172.19.0.0/16")
            .block("172.19.36.0/24")
            .endpoint("172.19.36.2", "cali3")
            .route("172.19.35.0/24", "10.141.0.1");
        let daemon2 = Daemon::start(&node2, &config)?;
        Ok(Self { daemon2, c3, node2, head })
    }

    /// Neither node's kernel forwards anything meanwhile.
    pub(super) fn by_bpf<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = traffic::ip_forw_datagrams(&self.node2)?;
        let result = self.head.by_bpf(work)?;
        let after = traffic::ip_forw_datagrams(&self.node2)?;
        ensure!(after == before, "the kernel of node2 forwarded {} packets", after - before);
        Ok(result)
    }

    pub(super) fn finish(self) -> Result<Vec<Ipv4>> {
        self.daemon2.finish()?;
        self.head.finish()
    }
}

#[test]
fn another_node_s_containers_reach_the_outside() -> Result<()> {
    require_root!();
    let net = Gateway::new()?;
    let Gateway { head, c3, .. } = &net;
    net.by_bpf(|| {
        traffic::ping(c3, FAR, 3)?.all_answered()?;
        let seen_as = UdpPair::new(c3, &head.outside, FAR)?.exchange(b"question")?;
        ensure!(seen_as.ip() == NODE, "{seen_as}");
        let pair = TcpPair::connect(c3, &head.outside, FAR)?;
        pair.upload(700_000)?;
        let seen_as = pair.download(700_000)?.client_seen_as;
        ensure!(head.flow("tcp", pair.server.local_addr()?)?["translated"] == *seen_as.to_string());
        // The head's own containers, too.
        traffic::ping(&head.c1, FAR, 3)?.all_answered()
    })?;
    // Between the nodes nothing is translated.
    let pair = UdpPair::new(c3, &head.c1, head.c1.address)?;
    ensure!(pair.exchange(b"inside")?.ip() == c3.address);
    net.finish().map(drop)
}

/// A checksum that the outside left to its device is completed behind the translation, by the kernel, and is right.
#[test]
fn unfinished_checksums_and_aggregates_come_out_right() -> Result<()> {
    require_root!();
    let net = Gateway::new()?;
    let Gateway { head, c3, node2, .. } = &net;
    offload(&head.outside, "eth0", "on")?;
    offload(&head.node, "eth0", "off")?;
    let at_node2 = Capture::start(node2, "eth0", "src net 203.0.113.0/24")?;
    net.by_bpf(|| {
        let pair = TcpPair::connect(c3, &head.outside, FAR)?;
        pair.download(800_000)?;
        UdpPair::new(c3, &head.outside, FAR)?.exchange(b"question")?;
        traffic::ping(c3, FAR, 1)?.all_answered()
    })?;
    eventually(PATIENCE, || {
        ensure!(at_node2.frames()?.len() > 500, "the aggregates were not segmented where it was looked");
        Ok(())
    })?;
    at_node2.verify_checksums()
}

#[test]
fn traceroute_shows_both_nodes() -> Result<()> {
    require_root!();
    let net = Gateway::new()?;
    let Gateway { head, c3, node2, .. } = &net;
    for options in [&[][..], &["-I"]] {
        let hops = traffic::traceroute_with(c3, FAR, options)?;
        let addresses: Vec<_> = hops.iter().map(|hop| hop.address).collect();
        let expected = [Some(node2.address), Some(head.node.address), Some(FAR)];
        ensure!(addresses == expected, "{options:?}: {hops:?}");
    }
    net.finish().map(drop)
}

/// The node's address is lent to those alone who are reached by the uplink that the packet came by.
#[test]
fn a_source_by_the_wrong_uplink_is_not_translated() -> Result<()> {
    require_root!();
    let net = Gateway::new()?;
    let head = &net.head;
    let udp = || Udp::new(5000, 5001, "forged");
    // From the fabric: a container of the head itself.
    let fabric = Injector::new(&head.fabric, "br0")?;
    let forged = Ipv4::new(head.c1.address, FAR, udp());
    fabric.send(&Frame::new([2, 0, 0, 0, 0, 9], head.node.mac("eth0")?, forged).bytes())?;
    head.await_count(Hook::FromUplink, Reason::SpoofedSource, 1)?;
    // From the outside: another node's container, to what the rule would have translated.
    let outside = head.back()?;
    let before = head.daemon.drops(Hook::FromUplink, Reason::NotLocal)?;
    outside.send(&Ipv4::new(net.c3.address, [203, 0, 113, 9], udp()))?;
    head.await_count(Hook::FromUplink, Reason::NotLocal, before + 1)?;
    ensure!(head.daemon.cli(&["nat", "list", "--json"])?.as_array().is_some_and(Vec::is_empty));
    Ok(())
}
