//! The speaker's state as the commands show it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use tokio::time::Instant;

use super::{
    attributes::Attributes,
    filter::Refusal,
    speaker::Handle,
    table::{Path, PeerId, Table},
};
use crate::control::answers;

/// How a peer is.
pub fn peer(peer: &Handle, table: &Table) -> answers::BgpPeer {
    let (config, status, counts) = (&peer.config, peer.status.borrow(), table.counts(peer.id));
    let now = Instant::now();
    let refused = Refusal::ALL.into_iter().zip(counts.refused).filter(|(_, count)| *count != 0);
    let negotiated = status.negotiated;
    let restart = negotiated.and_then(|negotiated| negotiated.graceful_restart);
    answers::BgpPeer {
        address: config.address,
        port: config.port,
        asn: config.asn,
        passive: config.passive,
        state: status.state.name().to_owned(),
        uptime_seconds: status.established.map(|since| now.duration_since(since).as_secs()),
        sessions: status.sessions,
        router_id: negotiated.map(|negotiated| negotiated.identifier),
        local_address: status.local.map(|local| *local.ip()),
        hold_seconds: negotiated.map(|negotiated| negotiated.hold.unwrap_or_default().as_secs()),
        graceful_restart_seconds: restart
            .filter(|restart| restart.ipv4.is_some())
            .map(|restart| restart.seconds),
        prefixes_received: counts.received,
        prefixes_accepted: counts.accepted(),
        prefixes_refused: counts.received - counts.accepted(),
        refused: refused.map(|(refusal, count)| (refusal.name().to_owned(), count)).collect(),
        prefixes_stale: counts.stale,
        stale_seconds: status.stale_until.map(|until| until.duration_since(now).as_secs()),
        excluded_seconds: status.excluded_until.map(|until| until.duration_since(now).as_secs()),
        prefixes_announced: status.announced,
        ipv6_prefixes_received: status.ipv6_prefixes,
        faulty_updates: status.faulty_updates,
        last_fault: status.last_fault.clone(),
        warnings: Vec::new(),
        last_down_reason: status.last_down.as_ref().map(|(why, _)| why.clone()),
        last_down_age_seconds: status.last_down.as_ref().map(|(_, at)| now.duration_since(*at).as_secs()),
        last_error: status.last_error.as_ref().map(|(why, _)| why.clone()),
        last_error_age_seconds: status.last_error.as_ref().map(|(_, at)| now.duration_since(*at).as_secs()),
    }
}

/// Prefixes that are looked at for one answer: some milliseconds' worth.
const PAGE: usize = 2048;

/// The routes to the prefixes after `after`, by prefix and peer; all, or those that are refused. With the last prefix
/// that was looked at, where more follow.
pub fn routes(
    table: &Table,
    peers: &BTreeMap<PeerId, Ipv4Addr>,
    refused: bool,
    after: Option<Ipv4Net>,
) -> (Vec<answers::BgpRoute>, Option<Ipv4Net>) {
    let (mut routes, mut last) = (Vec::new(), None);
    for (looked_at, (prefix, paths)) in table.after(after).enumerate() {
        if looked_at == PAGE {
            return (routes, last);
        }
        last = Some(prefix);
        let begin = routes.len();
        for (place, (path, attributes)) in paths.enumerate() {
            // One that is on its way out has no address any more.
            let Some(&peer) = peers.get(&path.peer) else { continue };
            if !refused || path.refused.is_some() {
                let best = place == 0 && path.refused.is_none();
                routes.push(route(prefix, peer, path, attributes, best));
            }
        }
        routes[begin..].sort_by_key(|route| route.peer);
    }
    (routes, None)
}

fn route(
    prefix: Ipv4Net,
    peer: Ipv4Addr,
    path: &Path,
    attributes: &Attributes,
    best: bool,
) -> answers::BgpRoute {
    answers::BgpRoute {
        prefix,
        peer,
        next_hop: attributes.next_hop,
        best,
        stale: path.stale,
        refused: path.refused.map(|refusal| refusal.name().to_owned()),
        refused_text: path.refused.map(|refusal| refusal.text().to_owned()),
        local_preference: attributes.preference(),
        as_path: attributes.as_path.to_vec(),
        origin: ["igp", "egp", "incomplete"][usize::from(attributes.origin.min(2))].to_owned(),
        med: attributes.med,
        originator: attributes.originator,
        clusters: attributes.clusters.to_vec(),
    }
}
