//! Translation of addresses and ports (MASQUERADE), from a node with two containers to a host outside.
//!
//! ```text
//!  c1 172.19.35.2 ─ cali1┐
//!                        node ─ eth1 198.51.100.10 ══ 198.51.100.1 outside (203.0.113.5)
//!  c2 172.19.35.3 ─ cali2┘   └─ eth0 10.141.0.1 ══ fabric
//! ```
//!
//! The outside knows its own link alone: a packet that came to it untranslated would have no way back. Each test
//! that ends with [`Egress::finish`] has seen that none came.

mod doors;
mod errors;
mod flows;
mod fragments;
mod gateway;
mod inbound;
mod lifetime;
mod limits;
mod paths;
mod ports;
mod rules;
mod seen;
mod traffic;
mod upgrade;
mod xdp;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use serde_json::Value;
use tests::harness::{
    Capture, Config, Container, ContainerSpec, Daemon, Fabric, Namespace, Node, Outside,
    daemon::config::uplink_hook,
    eventually,
    inject::Injector,
    packet::{Frame, Ipv4, L4},
    topology::HOST_MAC,
};

use super::{network::PATIENCE, require_root};

/// The node's address towards the outside: what its containers are translated to.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

/// A host outside that is not on the node's link.
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// The rule of most tests: ports are those above the range of the kernel.
pub(super) const RULE: &str = "[[masquerade]]\nsource = \"172.19.0.0/16\"";

/// A node that translates, and what is around it. Dropped from the top: the daemon first.
pub(super) struct Egress {
    pub(super) daemon: Daemon,
    /// All IP packets on the outside's link.
    seen: Capture,
    pub(super) c1: Container,
    c2: Container,
    pub(super) outside: Outside,
    pub(super) node: Node,
    /// Behind the node's other uplink.
    fabric: Fabric,
}

impl Egress {
    fn new() -> Result<Self> {
        Self::with(config().table(RULE))
    }

    pub(super) fn with(config: Config) -> Result<Self> {
        Self::build(config, |_| Ok(()))
    }

    /// With something done to the node before its daemon starts.
    fn build(config: Config, prepare: impl FnOnce(&Node) -> Result<()>) -> Result<Self> {
        Self::build_with(config, 1500, prepare)
    }

    /// With containers of that MTU.
    fn build_with(
        config: Config,
        container_mtu: u32,
        prepare: impl FnOnce(&Node) -> Result<()>,
    ) -> Result<Self> {
        let fabric = Fabric::new()?;
        let node = Node::new(&fabric, "node1", "10.141.0.1")?;
        let spec =
            |interface, address| anyhow::Ok(ContainerSpec::new(interface, address)?.mtu(container_mtu));
        let specs = [spec("cali1", "172.19.35.2")?, spec("cali2", "172.19.35.3")?];
        let [c1, c2]: [Container; 2] =
            node.add(&specs)?.try_into().map_err(|_| anyhow::anyhow!("not two containers"))?;
        let outside = node.outside("eth1", "198.51.100.10/24", "198.51.100.1")?;
        outside.add_address(FAR)?;
        // As on a router: errors are not limited in number, and show who sends them.
        outside.sysctl("net.ipv4.icmp_ratelimit", "0")?;
        prepare(&node)?;
        // Before anything is sent, checksums are complete where the packets are seen.
        offload(&node, "eth1", "off")?;
        offload(&outside, "eth0", "off")?;
        let seen = Capture::start(&outside, "eth0", "ip")?;
        let daemon = Daemon::start(&node, &config)?;
        Ok(Self { daemon, seen, c1, c2, outside, node, fabric })
    }

    /// Runs the work, and sees that the node's kernel forwarded nothing.
    pub(super) fn by_bpf<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = tests::harness::traffic::ip_forw_datagrams(&self.node)?;
        let result = work()?;
        let after = tests::harness::traffic::ip_forw_datagrams(&self.node)?;
        ensure!(after == before, "the kernel forwarded {} packets", after - before);
        Ok(result)
    }

    /// What passed on the outside's link: nothing with a container's address, and every checksum right.
    pub(super) fn finish(self) -> Result<Vec<Ipv4>> {
        self.seen.verify_checksums()?;
        let packets: Vec<Ipv4> = self.seen.stop()?.iter().filter_map(|frame| frame.ipv4().cloned()).collect();
        ensure!(!packets.is_empty(), "nothing was captured");
        for packet in &packets {
            let [a, b, ..] = packet.source.octets();
            ensure!((a, b) != (172, 19), "left untranslated: {packet:?}");
            ensure!(packet.checksum.is_none(), "a wrong header checksum: {packet:?}");
        }
        Ok(packets)
    }

    /// The flows with that protocol and remote end, as `dataplane nat list` shows them.
    fn flows(&self, protocol: &str, remote: impl Into<SocketAddr>) -> Result<Vec<Value>> {
        let remote = remote.into().to_string();
        let list = self.daemon.cli(&["nat", "list", "--json"])?;
        let list = list.as_array().context("the list is none")?;
        let wanted = |flow: &&Value| flow["protocol"] == protocol && flow["remote"] == *remote;
        Ok(list.iter().filter(wanted).cloned().collect())
    }

    /// The only flow with that protocol and remote end.
    fn flow(&self, protocol: &str, remote: impl Into<SocketAddr>) -> Result<Value> {
        let flows = self.flows(protocol, remote)?;
        ensure!(flows.len() == 1, "not one flow: {flows:?}");
        Ok(flows[0].clone())
    }

    /// Waits until so many packets were dropped or passed for that reason.
    fn await_count(&self, hook: Hook, reason: Reason, count: u64) -> Result<()> {
        eventually(PATIENCE, || {
            let now = self.daemon.drops(hook, reason)?;
            ensure!(now == count, "{} {}: {now} in place of {count}", hook.name(), reason.name());
            Ok(())
        })
    }

    /// What sends as the outside does.
    fn back(&self) -> Result<Sender> {
        Sender::new(&self.outside, self.node.mac("eth1")?)
    }

    /// Waits until the outside gets a packet that the predicate accepts.
    fn arrives(&self, predicate: impl Fn(&Ipv4) -> bool) -> Result<Ipv4> {
        let frame = self.seen.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(&predicate))?;
        frame.ipv4().cloned().context("no packet")
    }
}

/// Sends packets as they are, from the `eth0` of a namespace.
struct Sender {
    injector: Injector,
    source: [u8; 6],
    destination: [u8; 6],
}

impl Sender {
    /// A container's.
    fn of(container: &Container) -> Result<Self> {
        Self::new(container, HOST_MAC)
    }

    fn new(namespace: &Namespace, destination: [u8; 6]) -> Result<Self> {
        let (injector, source) = (Injector::new(namespace, "eth0")?, namespace.mac("eth0")?);
        Ok(Self { injector, source, destination })
    }

    fn send(&self, packet: &Ipv4) -> Result<()> {
        self.injector.send(&Frame::new(self.source, self.destination, packet.clone()).bytes())
    }
}

/// The file of the node, without a rule.
pub(super) fn config() -> Config {
    Config::new()
        .node("uplinks", r#"["eth0", "eth1"]"#)
        .pool("172.19.0.0/16")
        .block("172.19.35.0/24")
        .endpoint("172.19.35.2", "cali1")
        .endpoint("172.19.35.3", "cali2")
}

/// Turns the offloads of an interface that make packets look other than on a wire.
fn offload(namespace: &Namespace, interface: &str, state: &str) -> Result<()> {
    let features = ["tso", state, "gso", state, "tx", state];
    namespace.run(["ethtool", "-K", interface].iter().chain(&features)).ok()?;
    if state == "off" && uplink_hook().is_some() {
        return Ok(()); // frames come redirected, for which it must poll
    }
    namespace.run(["ethtool", "-K", interface, "gro", state]).ok().map(drop)
}

/// The source port of a packet to that port, or the identifier of an echo request.
fn source_port(packet: &Ipv4) -> Option<u16> {
    match &packet.payload {
        L4::Icmp(message) => Some(message.identifier()),
        other => Some(other.ports()?.0),
    }
}

/// The port of a flow's translated side.
fn translated_port(flow: &Value) -> Result<u16> {
    let translated: SocketAddr = flow["translated"].as_str().context("no address")?.parse()?;
    Ok(translated.port())
}
