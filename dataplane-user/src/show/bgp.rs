//! `dataplane bgp peers` and `dataplane bgp routes`.

use super::{duration, render, table};
use crate::control::answers::{BgpPeer, BgpRoutes};

/// `dataplane bgp peers`: a line for each, and below what is wrong.
pub fn peers(peers: &[BgpPeer]) -> String {
    if peers.is_empty() {
        return "no peers: the configuration file has no [[bgp.peer]]\n".to_owned();
    }
    let mut table = table(["PEER", "AS", "STATE", "UPTIME", "RECEIVED", "ACCEPTED", "STALE", "ANNOUNCED"]);
    for peer in peers {
        table.add_row([
            peer.address.to_string(),
            peer.asn.to_string(),
            peer.state.clone(),
            peer.uptime_seconds.map_or("-".to_owned(), duration),
            peer.prefixes_received.to_string(),
            peer.prefixes_accepted.to_string(),
            peer.prefixes_stale.to_string(),
            peer.prefixes_announced.to_string(),
        ]);
    }
    let mut text = render(&table);
    for peer in peers {
        if let (Some(error), Some(age)) = (&peer.last_error, peer.last_error_age_seconds) {
            text.push_str(&format!("{}: last error, {} ago: {error}\n", peer.address, duration(age)));
        }
        if let (Some(fall), Some(age)) = (&peer.last_fall, peer.last_fall_age_seconds)
            && peer.last_fall != peer.last_error
        {
            text.push_str(&format!("{}: before that, {} ago: {fall}\n", peer.address, duration(age)));
        }
        if let Some(fault) = &peer.last_fault {
            let count = peer.faulty_updates;
            text.push_str(&format!("{}: {count} malformed UPDATEs, the last: {fault}\n", peer.address));
        }
        for (reason, count) in &peer.refused {
            text.push_str(&format!(
                "{}: {count} prefixes refused ({reason}): `dataplane bgp routes --refused` lists them\n",
                peer.address
            ));
        }
    }
    text
}

/// `dataplane bgp routes`: what was learned, `*` before the best ones, and what is announced.
pub fn routes(routes: &BgpRoutes) -> String {
    let mut table = table(["", "PREFIX", "NEXT HOP", "PEER", "PREF", "AS PATH", "ORIGIN", "NOTE"]);
    for route in &routes.learned {
        let path: Vec<_> = route.as_path.iter().map(ToString::to_string).collect();
        let stale = route.stale.then_some("stale: the peer restarts");
        let note = route.refused_text.as_deref().map(|text| format!("refused: {text}"));
        table.add_row([
            if route.best { "*" } else { "" }.to_owned(),
            route.prefix.to_string(),
            route.next_hop.to_string(),
            route.peer.to_string(),
            route.local_preference.to_string(),
            path.join(" "),
            route.origin.clone(),
            note.or(stale.map(str::to_owned)).unwrap_or_default(),
        ]);
    }
    let mut text = render(&table);
    for prefix in &routes.announced {
        text.push_str(&format!("announced: {prefix}\n"));
    }
    text
}
