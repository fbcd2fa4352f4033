//! What the BGP speaker answers.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// An entry of `dataplane bgp peers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BgpPeer {
    /// Its address.
    pub address: Ipv4Addr,
    /// The TCP port that is dialled.
    pub port: u16,
    /// Its autonomous system.
    pub asn: u32,
    /// Whether it is waited for.
    pub passive: bool,
    /// `idle`, `connect`, `active`, `open-sent`, `open-confirm` or `established` (RFC 4271 section 8.2.2).
    pub state: String,
    /// Seconds since the session was established; none while there is none.
    pub uptime_seconds: Option<u64>,
    /// Sessions that were established since the daemon started.
    pub sessions: u64,
    /// Its BGP identifier.
    pub router_id: Option<Ipv4Addr>,
    /// Our address at its session.
    pub local_address: Option<Ipv4Addr>,
    /// The hold time that both agreed on, in seconds; 0 for none.
    pub hold_seconds: Option<u64>,
    /// How long it wants its routes kept while it restarts, in seconds; none where it does not.
    pub graceful_restart_seconds: Option<u16>,
    /// IPv4 prefixes that it announces.
    pub prefixes_received: usize,
    /// Those of them that may be used.
    pub prefixes_accepted: usize,
    /// Those of them that may not.
    pub prefixes_refused: usize,
    /// Why not, by reason.
    pub refused: BTreeMap<String, usize>,
    /// Prefixes from before its restart, kept until it has told all.
    pub prefixes_stale: usize,
    /// Seconds for which those are kept at most.
    pub stale_seconds: Option<u64>,
    /// Seconds for which it gets no session yet, because it exceeded `max-prefixes`; a reload ends that.
    pub excluded_seconds: Option<u64>,
    /// Prefixes that it was told.
    pub prefixes_announced: usize,
    /// IPv6 prefixes that it announces, which the data path does not carry.
    pub ipv6_prefixes_received: usize,
    /// UPDATEs with faults for which the session need not end (RFC 7606).
    pub faulty_updates: u64,
    /// What was wrong with the last of them.
    pub last_fault: Option<String>,
    /// What else may be wrong with it.
    pub warnings: Vec<String>,
    /// Why the last session went down, or was refused by either side.
    pub last_down_reason: Option<String>,
    /// How long ago that was, in seconds.
    pub last_down_age_seconds: Option<u64>,
    /// Why the last session, or the last attempt at one, ended: the same, or why the peer cannot be reached.
    pub last_error: Option<String>,
    /// How long ago that was, in seconds.
    pub last_error_age_seconds: Option<u64>,
}

#[cfg(test)]
impl BgpPeer {
    /// An established peer 10.141.0.2 without routes, which was down before.
    pub fn example() -> Self {
        let peer = serde_json::json!({
            "address": "10.141.0.2", "port": 179, "asn": 64512, "passive": false, "state": "established",
            "uptime_seconds": 7, "sessions": 1, "router_id": null, "local_address": null,
            "hold_seconds": null, "graceful_restart_seconds": null, "prefixes_received": 0,
            "prefixes_accepted": 0, "prefixes_refused": 0, "refused": {}, "prefixes_stale": 0,
            "stale_seconds": null, "excluded_seconds": null, "prefixes_announced": 1, "ipv6_prefixes_received": 0,
            "faulty_updates": 0, "last_fault": null, "warnings": [],
            "last_down_reason": "the peer ended the session", "last_down_age_seconds": 9,
            "last_error": "connection refused", "last_error_age_seconds": 8,
        });
        serde_json::from_value(peer).expect("every field is there")
    }
}

/// A part of `dataplane bgp routes`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BgpRoutes {
    /// What the peers announce, by prefix and peer.
    pub learned: Vec<BgpRoute>,
    /// What is announced to every peer; with the last part.
    pub announced: Vec<Ipv4Net>,
    /// The last prefix that was looked at, where more follow.
    pub next: Option<Ipv4Net>,
}

/// What a peer says about a prefix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BgpRoute {
    /// The destination.
    pub prefix: Ipv4Net,
    /// Who says it.
    pub peer: Ipv4Addr,
    /// NEXT_HOP.
    pub next_hop: Ipv4Addr,
    /// Whether it is the best for its prefix.
    pub best: bool,
    /// From before the peer's restart.
    pub stale: bool,
    /// Why it is not used.
    pub refused: Option<String>,
    /// The same in words.
    pub refused_text: Option<String>,
    /// LOCAL_PREF, or what stands for it.
    pub local_preference: u32,
    /// AS_PATH, the neighbour first.
    pub as_path: Vec<u32>,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// ORIGINATOR_ID.
    pub originator: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub clusters: Vec<Ipv4Addr>,
}
