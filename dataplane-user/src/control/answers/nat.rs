//! Answers about translations.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

/// A line of `dataplane nat list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Translation {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// The container's address and port; of ICMP echo the identifier.
    pub original: SocketAddrV4,
    /// The address and port that the outside sees.
    pub translated: SocketAddrV4,
    /// Whom it talks to.
    pub remote: SocketAddrV4,
    /// As the keys of `[timeouts]` name it, without `-seconds`.
    pub state: String,
    /// Seconds since it began.
    pub age_seconds: u64,
    /// Seconds until it ends, unless a packet comes.
    pub expires_seconds: u64,
    /// Bytes of frames in both directions.
    pub bytes: u64,
    /// Bytes of frames from the container.
    pub bytes_out: u64,
    /// Bytes of frames to the container.
    pub bytes_in: u64,
    /// Packets from the container; an aggregate counts once.
    pub packets_out: u64,
    /// Packets to the container.
    pub packets_in: u64,
}

/// `dataplane nat stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NatStats {
    /// Translations that live.
    pub flows: u64,
    /// Those that live, by state.
    pub by_state: BTreeMap<String, u64>,
    /// Most translations.
    pub max_flows: u64,
    /// Most translations of one source.
    pub max_flows_per_source: u64,
    /// Bytes of memory of the table.
    pub table_bytes: u64,
    /// The rules that hold, one for each uplink.
    pub rules: Vec<NatRule>,
    /// Translations that began since the counters were made.
    pub opened: u64,
    /// Those that expired.
    pub expired: u64,
    /// Closed ones that gave way to new ones.
    pub displaced_ended: u64,
    /// Half-open ones that gave way to new ones.
    pub displaced_half_open: u64,
    /// Those that ended because no rule allowed them any more.
    pub revoked: u64,
    /// Packets that had to be translated and were dropped, by reason.
    pub refused_packets: BTreeMap<String, u64>,
    /// Translations by the probes that their port took.
    pub probes: Vec<ProbeRow>,
}

/// A rule, as the data path asks it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NatRule {
    /// The uplink.
    pub interface: String,
    /// The address that the outside sees; none where the interface has none.
    pub address: Option<Ipv4Addr>,
    /// The first and the last port.
    pub ports: (u16, u16),
    /// Different ports in use, by protocol.
    pub ports_in_use: BTreeMap<String, u64>,
}

/// A row of the histogram of probes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeRow {
    /// So many probes at least...
    pub from: u32,
    /// ...and at most.
    pub to: u32,
    /// Translations whose port took as many.
    pub flows: u64,
}
