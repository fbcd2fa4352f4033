//! The network: what of it there is, and how it is made.

use std::time::Instant;

use ::tests::harness::topology::take_frames;
use ::tests::harness::{Config, Container, ContainerSpec, Fabric, Namespace, Node, Outside};
use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use super::UplinkHook;
use super::screen::Told;

/// The picture, and how the steps' commands are to be read.
pub(super) const INTRODUCTION: &str = "\
Two nodes with two containers each, and a head node towards the outside, in network namespaces of this machine:

 c1 172.19.35.2 ─ cali1┐                                  ┌cali3 ─ 172.19.36.2 c3
                       node1 10.141.0.1 ══fabric══ 10.141.0.2 node2
 c2 172.19.35.3 ─ cali2┘             ║                    └cali4 ─ 172.19.36.3 c4
                            head 10.141.255.254 / 198.51.100.172 ── outside 198.51.100.1

`c1$ COMMAND` stands for `nsenter --net=/run/netns/dp-demo-c1 COMMAND`, and so for the others.
";

/// Addresses of the whole cluster's containers.
const POOL: &str = "172.19.0.0/16";
/// An address in node1's block that no container has.
pub(super) const NOBODY_ON_NODE1: &str = "172.19.35.99";
/// An address in node2's block that no container has.
pub(super) const NOBODY_ON_NODE2: &str = "172.19.36.99";

/// The head node's address on the fabric: the nodes' default router.
const HEAD: &str = "10.141.255.254";
/// Its address towards the outside, and that of the host there (RFC 5737).
const HEAD_OUTSIDE: &str = "198.51.100.172/24";
const OUTSIDE: &str = "198.51.100.1";

/// A node with its containers.
pub(super) struct Host {
    pub(super) containers: [Container; 2],
    pub(super) node: Node,
    pub(super) block: &'static str,
}

/// Everything in [`INTRODUCTION`]'s picture.
pub(super) struct Network {
    pub(super) host1: Host,
    pub(super) host2: Host,
    /// It has no containers, and translates for those of the others.
    pub(super) head: Node,
    /// It knows no address of a container.
    pub(super) outside: Outside,
    uplink_hook: UplinkHook,
    /// The link between the nodes.
    fabric: Fabric,
}

impl Network {
    /// Makes it; nothing in it forwards yet but the nodes' kernels, to what they know.
    pub(super) fn build(uplink_hook: UplinkHook, told: &mut Told<'_>) -> Result<Self> {
        let begin = Instant::now();
        told.command("", "ip netns add dp-demo-node1; ip netns add dp-demo-c1; …");
        told.command("node1", "ip link add cali1 type veth peer name eth0 netns dp-demo-c1; …");
        told.command("node1", "ip route add 172.19.35.2/32 dev cali1 scope link; …");
        told.command("c1", "ip address add 172.19.35.2/32 dev eth0; ip route add default via 169.254.1.1; …");
        let fabric = Fabric::new()?;
        let host1 = Host::new(
            &fabric,
            ("node1", "10.141.0.1"),
            "172.19.35.0/24",
            [("c1", "cali1", "172.19.35.2"), ("c2", "cali2", "172.19.35.3")],
        )?;
        let host2 = Host::new(
            &fabric,
            ("node2", "10.141.0.2"),
            "172.19.36.0/24",
            [("c3", "cali3", "172.19.36.2"), ("c4", "cali4", "172.19.36.3")],
        )?;
        let head = Node::new(&fabric, "head", HEAD)?;
        let outside = head.outside("eth1", HEAD_OUTSIDE, OUTSIDE)?;
        for host in [&host1, &host2] {
            host.node.default_via(HEAD)?;
        }
        let network = Self { host1, host2, head, outside, uplink_hook, fabric };
        if uplink_hook == UplinkHook::Xdp {
            network.be_like_wires()?;
        }
        let milliseconds = begin.elapsed().as_millis();
        told.result(format!("made in {milliseconds} ms, as Calico's plugin leaves a node; no daemon yet"));
        Ok(network)
    }

    /// Has the links of the head node carry what wires carry: frames that XDP sends, and checksums that are finished.
    fn be_like_wires(&self) -> Result<()> {
        self.fabric.take_frames()?;
        take_frames(&self.outside, "eth0")?;
        let containers = [&self.host1, &self.host2].into_iter().flat_map(|host| &host.containers);
        let ends = containers.map(|container| -> &Namespace { container }).chain([&*self.outside]);
        for end in ends {
            end.run(["ethtool", "-K", "eth0", "tx", "off"]).ok()?;
        }
        Ok(())
    }

    /// Every node that has a daemon.
    pub(super) fn nodes(&self) -> [&Node; 3] {
        [&self.host1.node, &self.host2.node, &self.head]
    }

    /// A node's configuration file: containers are found by their routes in the kernel, and the other nodes'
    /// blocks are learned from their daemons. Without BGP, each would be a `[[route]]`.
    pub(super) fn config(&self, node: &Node) -> Config {
        let own = node.address;
        let mut bgp = format!("[bgp]\nasn = 64512\nrouter-id = \"{own}\"\nlisten = \"{own}:179\"\n");
        for peer in self.nodes().into_iter().filter(|peer| peer.address != own) {
            bgp += &format!("\n[[bgp.peer]]\naddress = \"{}\"\nasn = 64512\n", peer.address);
        }
        let mut config = Config::new().node("name", format!("\"{}\"", node.name)).pool(POOL);
        for host in [&self.host1, &self.host2].into_iter().filter(|host| host.node.address == own) {
            config = config.block(host.block);
        }
        if own == self.head.address {
            let rule = format!("[[masquerade]]\nsource = \"{POOL}\"\ninterface = \"eth1\"\n");
            let hook = self.uplink_hook.to_possible_value().map(|hook| format!("\"{}\"", hook.get_name()));
            config = config.node("uplinks", r#"["eth0", "eth1"]"#).table(&rule);
            config = config.datapath("uplink-hook", hook.unwrap_or_default());
        } else {
            config = config.node("uplinks", r#"["eth0"]"#);
        }
        config.table(&bgp)
    }
}

impl Host {
    fn new(
        fabric: &Fabric,
        (name, address): (&str, &str),
        block: &'static str,
        containers: [(&str, &str, &str); 2],
    ) -> Result<Self> {
        let node = Node::new(fabric, name, address)?;
        let specs = containers
            .map(|(name, interface, address)| {
                Ok(ContainerSpec::new(interface, address)?.named(name).host_route())
            })
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let containers = node.add(&specs)?.try_into().ok().context("not two containers were made")?;
        Ok(Self { containers, node, block })
    }
}
