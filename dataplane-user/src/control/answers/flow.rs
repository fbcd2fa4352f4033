//! What `dataplane flow` prints.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

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
}

/// `dataplane flow end`.
#[derive(Clone, Debug, Serialize)]
pub struct FlowEnd {
    /// Flows that were ended.
    pub ended: u64,
}
