//! `dataplane bgp peers` and `dataplane bgp routes`.

mod routes;

use super::{render, table};
use crate::control::answers::BgpPeer;
pub use routes::Routes;

/// `dataplane bgp peers`: a line for each, and below what is wrong; what was wrong before the session that is
/// established, only where `verbose`.
pub fn peers(peers: &[BgpPeer], verbose: bool) -> String {
    if peers.is_empty() {
        return "no peers: the configuration file has no [[bgp.peer]]\n".to_owned();
    }
    let mut table = table(["PEER", "AS", "STATE", "UPTIME", "RECEIVED", "ACCEPTED", "STALE", "ANNOUNCED"]);
    for peer in peers {
        table.add_row([
            peer.address.to_string(),
            peer.asn.to_string(),
            peer.state.clone(),
            peer.uptime_seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s")),
            peer.prefixes_received.to_string(),
            peer.prefixes_accepted.to_string(),
            peer.prefixes_stale.to_string(),
            peer.prefixes_announced.to_string(),
        ]);
    }
    let mut text = render(&table);
    for peer in peers {
        text.push_str(&errors(peer, verbose));
        if let Some(seconds) = peer.excluded_seconds {
            text.push_str(&format!(
                "{}: no session for {seconds} s more, or until `dataplane reload`: it exceeded `max-prefixes`\n",
                peer.address
            ));
        }
        for warning in &peer.warnings {
            text.push_str(&format!("{}: {warning}\n", peer.address));
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

/// Why there is no session, or, as history, was none.
fn errors(peer: &BgpPeer, verbose: bool) -> String {
    let mut text = String::new();
    if peer.uptime_seconds.is_some() && !verbose {
        return text;
    }
    if let (Some(error), Some(age)) = (&peer.last_error, peer.last_error_age_seconds) {
        text.push_str(&format!("{}: last error, {age} s ago: {error}\n", peer.address));
    }
    if let (Some(reason), Some(age)) = (&peer.last_down_reason, peer.last_down_age_seconds)
        && peer.last_down_reason != peer.last_error
    {
        let address = peer.address;
        text.push_str(&format!("{address}: reason for last session down, {age} s ago: {reason}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_from_before_the_session_are_history() {
        let up = [BgpPeer::example()];
        let [healthy, verbose] = [false, true].map(|verbose| peers(&up, verbose));
        assert!(!healthy.contains("refused") && !healthy.contains("down"), "{healthy}");
        assert!(verbose.contains("last error, 8 s ago: connection refused"), "{verbose}");
        let reason = "reason for last session down, 9 s ago: the peer ended the session";
        assert!(verbose.contains(reason), "{verbose}");
        let down = [BgpPeer { uptime_seconds: None, state: "active".to_owned(), ..BgpPeer::example() }];
        assert!(peers(&down, false).contains(reason));
    }
}
