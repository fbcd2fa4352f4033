//! What `dataplane flow` prints.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::NatStats;

/// Addresses and ports of packets of one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowTuple {
    /// Source address.
    pub source: IpAddr,
    /// Source port; of ICMP echo the identifier in requests, and 0 in replies.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port; of ICMP echo 0 in requests, and the identifier in replies.
    pub destination_port: u16,
}

/// A line of `dataplane flow list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowEntry {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: &'static str,
    /// Packets of the first one's direction, as they came.
    pub original: FlowTuple,
    /// Packets of the other direction, as they come.
    pub reply: FlowTuple,
    /// As the keys of `[timeouts]` name it, without `-seconds`.
    pub state: &'static str,
    /// What decided it: `masquerade`, `service`, `policy` or `kernel`.
    pub by: Option<&'static str>,
    /// Whether the original's source is translated.
    pub snat: bool,
    /// Whether the original's destination is translated.
    pub dnat: bool,
    /// `source` of the rule of translation that decided it; none where the rules are others by now.
    pub rule_source: Option<String>,
    /// The interface by which packets of the original direction leave; none where it is no uplink.
    pub interface: Option<String>,
    /// Seconds since it began.
    pub age_seconds: u64,
    /// Seconds until it ends, unless a packet comes.
    pub expires_seconds: u64,
    /// Packets of the original direction; an aggregate counts once.
    pub original_packets: u64,
    /// Bytes of their frames.
    pub original_bytes: u64,
    /// Packets of the reply direction.
    pub reply_packets: u64,
    /// Bytes of their frames.
    pub reply_bytes: u64,
}

/// The flow that a traced packet belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceFlow {
    /// Whose packets go the way of the traced one: `original` or `reply`.
    pub direction: &'static str,
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowEntry,
}

/// `dataplane flow stats`.
#[derive(Clone, Debug, Serialize)]
pub struct FlowStats {
    /// The table.
    #[serde(flatten)]
    pub table: NatStats,
    /// Flows that live, by what decided them.
    pub by: BTreeMap<&'static str, u64>,
    /// Flows that live and are translated.
    pub translated: u64,
    /// Ports that rules of translation may use, by protocol: those of the host are left out.
    pub usable_ports: BTreeMap<&'static str, u64>,
    /// Connections that the kernel decides; none where BPF does, or no daemon says so.
    pub respect: Option<Respect>,
}

/// Connections that the kernel decides (`netfilter = "respect"`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Respect {
    /// Entries of the kernel's connection tracking; none where it does not tell.
    pub tracked: Option<u64>,
    /// Connections that BPF carries now.
    pub carried: u64,
    /// Connections that were handed over since the daemon began.
    pub offered: u64,
    /// Leases that were renewed.
    pub renewed: u64,
    /// Entries of connection tracking that were kept fresh.
    pub refreshed: u64,
    /// Flows that ended since their entry was destroyed.
    pub destroyed: u64,
    /// How often every connection was asked about anew, since more ended at once than could be heard of.
    pub resynchronized: u64,
    /// Connections that were asked about and left to the kernel, by cause; one that goes on is asked about again after seconds.
    pub left: BTreeMap<String, u64>,
    /// Rules of iptables and nftables that want every packet, which those that BPF carries do not pass; of `status` alone.
    #[serde(default)]
    pub every_packet: Vec<String>,
}

/// `dataplane flow end`.
#[derive(Clone, Debug, Serialize)]
pub struct FlowEnd {
    /// Flows that were ended.
    pub ended: u64,
}
