//! The answers of the daemon: also what `--json` prints, and so stable.

mod bgp;
mod flow;
mod nat;
mod sources;

use std::{collections::BTreeMap, net::Ipv4Addr};

use dataplane_common::{
    endpoint,
    reason::{Class, Reason},
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{rib::Source, wanted::Destination};

pub use bgp::{BgpPeer, BgpRoute, BgpRoutes};
pub use flow::{FlowEnd, FlowEntry, FlowStats, FlowTuple, Respect, TraceFlow};
pub use nat::{NatRule, NatStats, ProbeRow, Translation};
pub use sources::{Offers, SourcePage};

/// `dataplane status --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Name of the node.
    pub node: String,
    /// `ok`, or `degraded` where there are complaints.
    pub health: String,
    /// What is wrong, each with the mend.
    pub complaints: Vec<String>,
    /// Seconds since the daemon became ready.
    pub uptime_seconds: u64,
    /// Process id of the daemon.
    pub pid: u32,
    /// The configuration file; none for built-in defaults.
    pub config_file: Option<String>,
    /// Programs that are attached.
    pub hooks: Vec<HookStatus>,
    /// Where the uplinks' programs run.
    pub uplinks: Vec<UplinkStatus>,
    /// Tables and how full they are.
    pub tables: Vec<TableStatus>,
    /// Bytes of memory of the route table.
    pub route_table_bytes: u64,
    /// Connections that the kernel decides; none where BPF does.
    #[serde(default)]
    pub respect: Option<Respect>,
    /// Routing peers.
    pub peers: Vec<BgpPeer>,
    /// What is taken over from the kernel's table; none where nothing is.
    pub import: Option<Import>,
    /// Networks that are left to the kernel, because IPsec policies select packets to and from them.
    #[serde(default)]
    pub ipsec: Vec<Ipv4Net>,
    /// Packets that BPF carried, passed to the kernel and dropped since the counters were made.
    pub packets: PacketShare,
    /// The same for each hook; what `xdp-from-uplink` passed comes to `from-uplink`.
    pub packets_by_hook: BTreeMap<String, PacketShare>,
}

/// A program at its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookStatus {
    /// The interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// `from-container`, `from-uplink` or `xdp-from-uplink`.
    pub hook: String,
    /// Name of the program; `waiting` where no container is known behind a veth yet.
    pub program: String,
    /// The kernel's id of the program; none where it is not attached.
    pub program_id: Option<u32>,
    /// `tcx`, `clsact` or `xdp`.
    pub mode: String,
}

/// Where the program of an uplink runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// The uplink.
    pub interface: String,
    /// `tc`, or `xdp` where the program runs at XDP first.
    pub uplink_hook: String,
    /// Why, in words.
    pub why: String,
}

/// How full a table is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableStatus {
    /// `routes`, `endpoints` or `next-hops`.
    pub table: String,
    /// Entries in use.
    pub used: u64,
    /// Entries that fit.
    pub max: u64,
}

/// Routes of other daemons in the kernel, taken over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Import {
    /// Number of the kernel's table.
    pub table: u32,
    /// Routes that the data path carries, blocks among them.
    pub carried: u64,
    /// Routes that are left to the kernel, by cause.
    pub left: Vec<ImportLeft>,
}

/// Routes that are left to the kernel for one cause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportLeft {
    /// `multipath`, `encapsulation`, `ipv6-next-hop`, `tos`, `not-by-uplink` or `kind` (`unreachable`, `prohibit`, …).
    pub cause: String,
    /// How many.
    pub routes: u64,
    /// The first of them.
    pub first: Ipv4Net,
}

/// Where packets went.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PacketShare {
    /// Carried or answered by BPF.
    pub forwarded: u64,
    /// Left to the kernel.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
}

impl PacketShare {
    /// Counts packets of that class.
    pub fn add(&mut self, class: Class, packets: u64) {
        *match class {
            Class::Forward => &mut self.forwarded,
            Class::Pass => &mut self.passed,
            Class::Drop => &mut self.dropped,
        } += packets;
    }
}

/// A line of `dataplane endpoint list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The container's address.
    pub address: Ipv4Addr,
    /// The host side of its veth.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// MAC of the container's side.
    pub mac: String,
    /// MTU of the veth in bytes.
    pub mtu_bytes: u32,
    /// `config` or `kernel`; none where no daemon says so.
    pub source: Option<String>,
}

impl Endpoint {
    /// An endpoint as it stands in its slot.
    pub fn new(endpoint: &endpoint::Endpoint, interface: String, source: Option<Source>) -> Self {
        Self {
            address: endpoint.address.into(),
            interface,
            ifindex: endpoint.ifindex,
            mac: endpoint.macs.destination().to_string(),
            mtu_bytes: endpoint.mtu,
            source: source.map(|source| source.name().to_owned()),
        }
    }
}

/// A line of `dataplane route list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub prefix: Ipv4Net,
    /// `endpoint`, `next-hop`, `block` or `kernel`.
    pub kind: String,
    /// The next hop's router; none where destinations are on the link.
    pub via: Option<Ipv4Addr>,
    /// The interface that packets leave by.
    pub interface: Option<String>,
    /// For `kernel`: the reason with which packets are passed.
    pub reason: Option<String>,
    /// Who wants it: `config`, `bgp` or `kernel`; none where no daemon says so.
    pub source: Option<String>,
}

impl Route {
    /// A route to that destination.
    pub fn new(
        prefix: Ipv4Net,
        destination: &Destination,
        source: Option<Source>,
        interface: &mut dyn FnMut(u32) -> String,
    ) -> Self {
        let (kind, via, ifindex, reason): (_, _, _, Option<Reason>) = match *destination {
            Destination::Endpoint(endpoint) => ("endpoint", None, Some(endpoint.ifindex), None),
            Destination::NextHop(next_hop) => {
                let gateway = (next_hop.gateway.to_wire() != 0).then(|| next_hop.gateway.into());
                ("next-hop", gateway, Some(next_hop.ifindex), None)
            }
            Destination::Block => ("block", None, None, None),
            Destination::Kernel(reason) => ("kernel", None, None, Some(reason)),
        };
        Self {
            prefix,
            kind: kind.to_owned(),
            via,
            interface: ifindex.map(interface),
            reason: reason.map(|reason| reason.name().to_owned()),
            source: source.map(|source| source.name().to_owned()),
        }
    }
}

/// `dataplane route get ADDR`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteGet {
    /// The address asked for.
    pub address: Ipv4Addr,
    /// The route of the longest prefix; none where the kernel decides alone.
    pub route: Option<Route>,
    /// What other sources offer for the same prefix, in order of preference.
    pub other_offers: Vec<Route>,
}

/// A line of `dataplane drops`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    /// The hook.
    pub hook: String,
    /// The reason.
    pub reason: String,
    /// `forward`, `pass` or `drop`.
    pub class: String,
    /// What the reason means.
    pub text: String,
    /// Packets; an aggregate counts once.
    pub packets: u64,
    /// Bytes of the frames.
    pub bytes: u64,
}

/// `dataplane trace`.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// The hook whose program was run.
    pub hook: String,
    /// The interface at which the packet was put.
    pub interface: String,
    /// The steps in order.
    pub steps: Vec<TraceStep>,
    /// `forward`, `pass` or `drop`.
    pub verdict: String,
    /// The reason's name.
    pub reason: String,
    /// The verdict in words.
    pub text: String,
    /// The flow that the packet belongs to; none where it belongs to none yet.
    pub flow: Option<TraceFlow>,
}

/// One step of a walk.
#[derive(Clone, Debug, Serialize)]
pub struct TraceStep {
    /// Short name of the step.
    pub step: String,
    /// What was looked at, found or done.
    pub text: String,
}
