//! The configuration file: what it can say, and what is said about what it does say.
//!
//! A file is read to its end: every fault in it is reported, with its place and its mend. No key is read and
//! then ignored.

mod address;
mod bgp;
mod check;
mod datapath;
mod diagnostic;
mod difference;
mod file;
mod kernel;
mod log;
mod masquerade;
mod metrics;
mod network;
mod node;
mod prefixes;
mod report;
mod schema;
mod section;
mod suggest;
mod syntax;
mod system;
#[cfg(test)]
mod tests;
mod text;
mod timeouts;
mod value;

use dataplane_common::flow::index::buckets_for;
use ipnet::Ipv4Net;
use toml::de::DeTable;

pub use self::bgp::{Bgp, BgpPeer};
pub use self::datapath::{
    Datapath, Egress, HostPorts, MAX_ENDPOINTS, MAX_FLOWS, MAX_ROUTES, Netfilter, SkipMark, TcAttach,
    UplinkHook,
};
pub use self::diagnostic::{Diagnostic, Failure};
pub use self::file::{load, load_for};
pub use self::kernel::{KernelImport, RouteProtocol};
pub use self::log::{Log, LogFormat, LogLevel};
pub use self::masquerade::{DEFAULT_PORTS, HOST_PORTS, Masquerade};
pub use self::metrics::Metrics;
pub use self::network::{Endpoint, Route};
pub use self::node::{Node, Places};
use self::report::Report;
pub use self::system::{AnySystem, RunningSystem, System};
pub use self::timeouts::Timeouts;

use crate::kernel::nat::Limits;

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "/etc/dataplane/node.toml";

/// What a node is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[datapath]`
    pub datapath: Datapath,
    /// `[[pool]]`: the address space of the whole cluster's containers; no two overlap.
    pub pools: Vec<Ipv4Net>,
    /// `[[block]]`: what this node owns of it; no two overlap, and each lies in a pool where there is any.
    pub blocks: Vec<Ipv4Net>,
    /// `[[endpoint]]`: this node's containers; no two have the same address, and each lies in a block.
    pub endpoints: Vec<Endpoint>,
    /// `[[route]]`: other nodes' blocks; no two to the same prefix, and none overlaps a block.
    pub routes: Vec<Route>,
    /// `[[masquerade]]`
    pub masquerade: Vec<Masquerade>,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[bgp]`
    pub bgp: Option<Bgp>,
    /// `[kernel]`
    pub kernel: KernelImport,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[log]`
    pub log: Log,
}

impl Config {
    /// What an empty file says; the node is called by its host name.
    pub fn default_node() -> Self {
        Self {
            node: Node::default(),
            datapath: Datapath::default(),
            pools: Vec::new(),
            blocks: Vec::new(),
            endpoints: Vec::new(),
            routes: Vec::new(),
            masquerade: Vec::new(),
            timeouts: Timeouts::default(),
            bgp: None,
            kernel: KernelImport::default(),
            metrics: Metrics::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// Whether the kernel decides about connections.
    pub fn respects(&self) -> bool {
        self.datapath.netfilter == Netfilter::Respect
    }

    /// Whether there is anything that needs a table of flows.
    fn has_flows(&self) -> bool {
        self.respects() || !self.masquerade.is_empty()
    }

    /// What the file says of the flow table.
    pub fn limits(&self) -> Limits {
        let max_flows = self.datapath.max_flows;
        Limits {
            buckets: if self.has_flows() { buckets_for(max_flows) } else { 0 },
            max_flows,
            max_flows_per_source: self.datapath.max_flows_per_source.unwrap_or(
                match self.datapath.netfilter {
                    Netfilter::Bypass => max_flows.div_ceil(2),
                    // The kernel has let them all in.
                    Netfilter::Respect => max_flows,
                },
            ),
            timeouts: self.timeouts.ticks(),
        }
    }
}

impl Config {
    /// What `--from-kernel` stands for: everything is taken from the kernel, nothing is written to its tables. It decides about
    /// connections, too; where it is bypassed, what goes to no container stays with it, since its rules may translate that.
    pub fn from_kernel(netfilter: Netfilter) -> Self {
        let default = Self::default_node();
        let egress = match netfilter {
            Netfilter::Respect => Egress::Bpf,
            Netfilter::Bypass => Egress::Kernel,
        };
        Self {
            datapath: Datapath { netfilter, egress, kernel_routes: false, ..default.datapath },
            kernel: KernelImport::of_routing_daemons(),
            ..default
        }
    }
}

/// A file without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What was noticed, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Takes the text of a file, and compares it with the system.
///
/// # Errors
///
/// Every fault of the text, in its order.
pub fn parse(file_name: &str, text: &str, system: &dyn System) -> Result<Loaded, Failure> {
    // Editors do not show a byte order mark, and so count no column for it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(text);
    let tree = syntax::parse(text, &mut report);
    let draft = Draft::read(&tree, &mut report);
    check::check(&draft, system, &mut report);
    let warnings = report.finish(file_name)?;
    Ok(Loaded { config: draft.build(), warnings })
}

/// What could be read of a file, with the places that the checks need.
struct Draft {
    node: node::Draft,
    datapath: datapath::Draft,
    network: network::Draft,
    masquerade: Vec<masquerade::Draft>,
    timeouts: timeouts::Draft,
    bgp: Option<bgp::Draft>,
    kernel: KernelImport,
    metrics: Metrics,
    log: Log,
}

impl Draft {
    fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Self {
        schema::refuse_unknown_sections(tree, report);
        Self {
            node: node::read(tree, report),
            datapath: datapath::read(tree, report),
            network: network::read(tree, report),
            masquerade: masquerade::read(tree, report),
            timeouts: timeouts::read(tree, report),
            bgp: bgp::read(tree, report),
            kernel: kernel::read(tree, report),
            metrics: metrics::read(tree, report),
            log: log::read(tree, report),
        }
    }

    /// The configuration of a file without errors: then no part is left out.
    fn build(self) -> Config {
        let pools = network::values(&self.network.pools);
        Config {
            node: self.node.node,
            datapath: self.datapath.datapath,
            blocks: network::values(&self.network.blocks),
            endpoints: self.network.endpoints(),
            routes: self.network.routes(),
            masquerade: self.masquerade.iter().filter_map(|rule| rule.build(&pools)).collect(),
            timeouts: self.timeouts.timeouts,
            bgp: self.bgp.and_then(|bgp| bgp.build(&pools)),
            kernel: self.kernel,
            metrics: self.metrics,
            log: self.log,
            pools,
        }
    }
}
