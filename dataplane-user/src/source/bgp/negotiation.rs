//! What two OPENs agree on (RFC 4271 section 6.2, RFC 5492).

use std::{net::Ipv4Addr, time::Duration};

use super::wire::{Encoding, GracefulRestart, Notification, Open, Unreadable};

/// What holds for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's BGP identifier.
    pub identifier: Ipv4Addr,
    /// After this long without a word the peer is dead; `None` for never.
    pub hold: Option<Duration>,
    /// How UPDATEs are written.
    pub encoding: Encoding,
    /// Both carry IPv4 unicast.
    pub ipv4: bool,
    /// Both carry IPv6 unicast.
    pub ipv6: bool,
    /// The peer's restarts.
    pub graceful_restart: Option<GracefulRestart>,
}

/// Compares the peer's OPEN with ours.
///
/// # Errors
///
/// What is wrong with it, for the peer and in words.
pub fn negotiate(ours: &Open, theirs: &Open, expected_asn: u32) -> Result<Negotiated, Unreadable> {
    let refuse =
        |subcode, detail: String| Err(Unreadable { notification: Notification::new(2, subcode), detail });
    if theirs.asn != expected_asn {
        return refuse(
            2,
            format!("the peer is in autonomous system {}, not {expected_asn}: correct `asn`", theirs.asn),
        );
    }
    // RFC 6286: an identifier need only be unique within an autonomous system.
    if theirs.identifier.is_unspecified() {
        return refuse(3, "the peer's BGP identifier is 0.0.0.0: give it a router id".to_owned());
    }
    if theirs.identifier == ours.identifier && theirs.asn == ours.asn {
        return refuse(
            3,
            format!("the peer has our own BGP identifier {}: correct one `router-id`", ours.identifier),
        );
    }
    if matches!(theirs.hold_seconds, 1 | 2) {
        return refuse(6, format!("the peer proposes a hold time of {} s, less than 3", theirs.hold_seconds));
    }
    let hold = ours.hold_seconds.min(theirs.hold_seconds);
    Ok(Negotiated {
        identifier: theirs.identifier,
        hold: (hold != 0).then(|| Duration::from_secs(hold.into())),
        encoding: Encoding {
            four_octets: ours.four_octets && theirs.four_octets,
            external: theirs.asn != ours.asn,
        },
        ipv4: ours.ipv4 && theirs.ipv4,
        ipv6: ours.ipv6 && theirs.ipv6,
        graceful_restart: theirs.graceful_restart,
    })
}

/// Whether the connection that we made survives a collision; else the one that the peer made does (RFC 4271
/// section 6.8, RFC 6286 section 2.3).
pub fn ours_survives(ours: &Open, theirs: &Negotiated, their_asn: u32) -> bool {
    (ours.identifier, ours.asn) > (theirs.identifier, their_asn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(asn: u32, identifier: &str) -> Open {
        Open {
            asn,
            hold_seconds: 90,
            identifier: identifier.parse().unwrap(),
            four_octets: true,
            ipv4: true,
            ipv6: true,
            route_refresh: true,
            graceful_restart: None,
        }
    }

    #[test]
    fn the_smaller_hold_time_holds_and_zero_is_none() {
        let (ours, theirs) = (open(64_512, "10.0.0.1"), open(64_512, "10.0.0.2"));
        let hold = |seconds| {
            let theirs = Open { hold_seconds: seconds, ..theirs.clone() };
            negotiate(&ours, &theirs, 64_512).map(|negotiated| negotiated.hold)
        };
        assert_eq!(hold(30), Ok(Some(Duration::from_secs(30))));
        assert_eq!(hold(240), Ok(Some(Duration::from_secs(90))));
        assert_eq!(hold(0), Ok(None));
        assert_eq!(hold(2).unwrap_err().notification, Notification::new(2, 6));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let ours = open(64_512, "10.0.0.1");
        for (theirs, expected, words) in [
            (open(64_513, "10.0.0.2"), Notification::new(2, 2), "system 64513, not 64512"),
            (open(64_512, "10.0.0.1"), Notification::new(2, 3), "our own BGP identifier 10.0.0.1"),
            (open(64_512, "0.0.0.0"), Notification::new(2, 3), "0.0.0.0"),
        ] {
            let error = negotiate(&ours, &theirs, 64_512).unwrap_err();
            assert_eq!(error.notification, expected);
            assert!(error.detail.contains(words), "{}", error.detail);
        }
        let external = negotiate(&ours, &open(64_513, "10.0.0.1"), 64_513).unwrap();
        assert!(external.encoding.external, "in another system the identifier may be ours");
    }

    #[test]
    fn the_higher_identifier_keeps_its_connection() {
        let (low, high) = (open(64_512, "10.0.0.1"), open(64_512, "10.0.0.2"));
        let seen = |by: &Open, of: &Open| negotiate(by, of, of.asn).unwrap();
        assert!(!ours_survives(&low, &seen(&low, &high), high.asn));
        assert!(ours_survives(&high, &seen(&high, &low), low.asn));
    }
}
