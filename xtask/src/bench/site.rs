//! A node with one container, whose packets take one of the paths that are compared.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::harness::{Config, Container, Daemon, Fabric, Namespace, Node};

use super::Bench;
use super::baseline::Path;

/// The container's interface on its node.
const INTERFACE: &str = "cali1";

/// That of the second one.
const SECOND: &str = "cali2";

/// The default of `max-flows`.
pub(super) const MAX_FLOWS: u32 = 262_144;

/// The prefix length of the fabric's network.
pub(super) const FABRIC_LENGTH: u8 = 16;

/// The way out of the fabric.
pub(super) const GATEWAY: &str = "10.141.255.254";

/// What a site translates, as the baselines' rules do: packets to no container.
pub(super) const MASQUERADE: &str = "[[masquerade]]\nsource = \"172.19.0.0/16\"";

/// A node, its container, and the data path on it if that is its path.
///
/// Site number N has the address 10.141.0.N, the block 172.19.N.0/24, and in it the container 172.19.N.2.
pub(super) struct Site {
    daemon: Option<Daemon>,
    pub(super) container: Container,
    /// A second one, 172.19.N.3, where the case has use for it.
    pub(super) second: Option<Container>,
    pub(super) node: Node,
    pub(super) path: Path,
}

impl Site {
    /// A site on the fabric, with routes to the blocks of the sites `others`.
    pub(super) fn new(bench: &Bench, fabric: &Fabric, path: Path, number: u8, others: &[u8]) -> Result<Self> {
        Self::make(bench, fabric, path, number, others, false, |config| config)
    }

    /// The same with more in the daemon's file.
    pub(super) fn with(
        bench: &Bench,
        fabric: &Fabric,
        path: Path,
        number: u8,
        others: &[u8],
        more: impl FnOnce(Config) -> Config,
    ) -> Result<Self> {
        Self::make(bench, fabric, path, number, others, false, more)
    }

    /// A site with two containers.
    pub(super) fn of_two(bench: &Bench, fabric: &Fabric, path: Path, number: u8) -> Result<Self> {
        Self::make(bench, fabric, path, number, &[], true, |config| config)
    }

    /// A site, perhaps with two containers, and with more in the daemon's file.
    pub(super) fn make(
        bench: &Bench,
        fabric: &Fabric,
        path: Path,
        number: u8,
        others: &[u8],
        has_second: bool,
        more: impl FnOnce(Config) -> Config,
    ) -> Result<Self> {
        let node = Node::new(fabric, &format!("{}{number}", path.name()), address(number))?;
        let container = node.routed_container(INTERFACE, format!("172.19.{number}.2"))?;
        // Without a default route the kernel answers no container that asks for its gateway.
        node.default_via(GATEWAY)?;
        let second =
            has_second.then(|| node.routed_container(SECOND, format!("172.19.{number}.3"))).transpose()?;
        path.install(&node, if has_second { &[INTERFACE, SECOND] } else { &[INTERFACE] })?;
        let binary = match path {
            Path::Dataplane | Path::Respect => Some(bench.binary.as_path()),
            Path::Build => bench.against.as_deref(),
            Path::Route | Path::Iptables | Path::Services | Path::Nftables | Path::Flowtable => None,
        };
        let daemon = if let Some(binary) = binary {
            let mut config =
                Config::new().node("uplinks", r#"["eth0"]"#).pool("172.19.0.0/16").block(&block(number));
            // One container has all flows here.
            config = config.datapath("max-flows-per-source", MAX_FLOWS);
            config = match path {
                Path::Respect => config.datapath("netfilter", "\"respect\""),
                _ => config.table(MASQUERADE),
            };
            for &other in others {
                config = config.route(&block(other), address(other));
            }
            Some(bench.daemon(binary, &node, &more(config))?)
        } else {
            for &other in others {
                node.route_via(&block(other), address(other))?;
            }
            None
        };
        Ok(Self { daemon, container, second, node, path })
    }

    /// Tells the node the MAC of a router, which need not be there.
    pub(super) fn know_neighbour(&self, address: &str, mac: [u8; 6]) -> Result<()> {
        let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        self.node.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent")).map(drop)
    }

    /// The daemon, if the data path is this site's.
    pub(super) fn daemon(&self) -> Option<&Daemon> {
        self.daemon.as_ref()
    }

    /// An answer of the daemon's.
    pub(super) fn ask(&self, command: &[&str]) -> Result<Option<Value>> {
        self.daemon.as_ref().map(|daemon| daemon.cli(&[command, &["--json"]].concat())).transpose()
    }

    /// Takes the data path away, and fails if something of it stays.
    pub(super) fn finish(self) -> Result<()> {
        self.daemon.map_or(Ok(()), Daemon::finish)
    }
}

/// The address of site `number` on the fabric.
pub(super) fn address(number: u8) -> String {
    format!("10.141.0.{number}")
}

fn block(number: u8) -> String {
    format!("172.19.{number}.0/24")
}

/// Makes a veth's end take redirected frames, which needs NAPI there: GRO turns it on (`veth_set_features()`
/// in drivers/net/veth.c).
pub(super) fn take_redirected(place: &Namespace, interface: &str) -> Result<()> {
    place.run(["ethtool", "-K", interface, "gro", "on"]).ok().map(drop)
}

/// The fabric's end of a node's uplink.
pub(super) fn port_of(fabric: &Fabric, node: &Node) -> Result<String> {
    let uplink: Value = serde_json::from_str(&node.ip("-j link show dev eth0")?)?;
    let ports: Value = serde_json::from_str(&fabric.ip("-j link show")?)?;
    let index = &uplink[0]["link_index"];
    let port = ports.as_array().into_iter().flatten().find(|port| port["ifindex"] == *index);
    let name = port.and_then(|port| port["ifname"].as_str());
    name.map(str::to_owned).with_context(|| format!("the fabric has no link {index}"))
}
