//! Which connections of the kernel's BPF carries.

use std::net::Ipv4Addr;

use dataplane_common::flow::tuple::protocol;
use ipnet::Ipv4Net;

use super::LEASE;
use crate::{
    config::SkipMark,
    kernel::netlink::conntrack::{Entry, Tuple},
};

/// What the configuration and the node say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Connections with this mark stay with the kernel.
    pub skip_mark: Option<SkipMark>,
    /// And those from or to these.
    pub skip: Vec<Ipv4Net>,
    /// Why every connection stays with the kernel at the moment, if so.
    pub paused: Option<String>,
}

/// Shortest timeout of an entry that is carried, in seconds: it must outlive its lease, and be kept fresh meanwhile.
pub(super) const SHORTEST_TIMEOUT: u32 = 40;

macro_rules! causes {
    ($($variant:ident $name:literal $text:literal,)+) => {
        /// Why a connection is left to the kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause {
            $(#[doc = $text] $variant,)+
        }

        impl Cause {
            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in outputs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

causes! {
    NotTracked "not-tracked" "Connection tracking has no entry of zone 0 for it.",
    NotAssured "not-assured" "It is not established yet, or not any more.",
    Protocol "protocol" "It is neither TCP nor UDP.",
    Helper "helper" "A helper reads it, or its sequence numbers are adjusted.",
    Zone "zone" "It is in a zone of connection tracking.",
    Flowtable "flowtable" "A flowtable of nftables has it.",
    ShortTimeout "short-timeout" "Connection tracking forgets it too soon.",
    SkipMark "skip-mark" "It has the mark of `skip-mark`.",
    Skip "skip" "One of its ends is in `skip`.",
    Unreachable "unreachable" "BPF does not reach both ends, or neither is a container of this node.",
    TableFull "table-full" "The table of flows has no room for it.",
    Paused "paused" "Every connection is, as the complaints say.",
}

/// Why the connection stays with the kernel; none where it is to be carried.
pub(super) fn left(entry: &Entry, settings: &Settings) -> Option<Cause> {
    let is_tcp = entry.original.protocol == protocol::TCP;
    let is_skipped = |tuple: &Tuple| {
        let ends = [tuple.source, tuple.destination].map(Ipv4Addr::from);
        settings.skip.iter().any(|network| ends.iter().any(|end| network.contains(end)))
    };
    let causes = [
        (Cause::Protocol, !is_tcp && entry.original.protocol != protocol::UDP),
        (Cause::Zone, entry.zone != 0),
        (Cause::Helper, entry.is_helped),
        (Cause::Flowtable, entry.is_offloaded),
        (Cause::NotAssured, !entry.is_assured || entry.is_dying || (is_tcp && !entry.is_established)),
        (Cause::ShortTimeout, entry.timeout < SHORTEST_TIMEOUT),
        (Cause::SkipMark, settings.skip_mark.is_some_and(|mark| mark.matches(entry.mark))),
        (Cause::Skip, is_skipped(&entry.original) || is_skipped(&entry.reply)),
    ];
    causes.into_iter().find(|(_, holds)| *holds).map(|(cause, _)| cause)
}

/// How long BPF may carry a connection without another word: never as long as its entry lives.
pub(super) fn lease(timeout: u32) -> u32 {
    (LEASE.as_secs() as u32).min(timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8) -> Entry {
        let tuple = Tuple {
            source: Ipv4Addr::new(172, 19, 35, 2).into(),
            destination: Ipv4Addr::new(192, 0, 2, 1).into(),
            source_port: 40_000,
            destination_port: 80,
            protocol: number,
        };
        Entry {
            original: tuple,
            reply: tuple.reversed(),
            is_assured: true,
            is_dying: false,
            is_offloaded: false,
            is_helped: false,
            is_established: number == protocol::TCP,
            is_liberal: false,
            timeout: 120,
            mark: 0x40,
            zone: 0,
        }
    }

    #[test]
    fn what_is_established_and_plain_is_carried() {
        let (settings, udp, tcp) = (Settings::default(), entry(protocol::UDP), entry(protocol::TCP));
        assert_eq!((left(&udp, &settings), left(&tcp, &settings)), (None, None));
        let cases = [
            (Entry { is_assured: false, ..udp.clone() }, Cause::NotAssured),
            (Entry { is_dying: true, ..udp.clone() }, Cause::NotAssured),
            (Entry { is_established: false, ..tcp.clone() }, Cause::NotAssured),
            (Entry { is_helped: true, ..tcp.clone() }, Cause::Helper),
            (Entry { is_offloaded: true, ..tcp.clone() }, Cause::Flowtable),
            (Entry { zone: 1, ..tcp }, Cause::Zone),
            (Entry { timeout: 39, ..udp }, Cause::ShortTimeout),
            (entry(132), Cause::Protocol),
        ];
        for (entry, cause) in cases {
            assert_eq!(left(&entry, &settings), Some(cause), "{entry:?}");
        }
    }

    #[test]
    fn marks_and_ends_are_skipped() {
        let udp = entry(protocol::UDP);
        let marked =
            |value, mask| Settings { skip_mark: Some(SkipMark { value, mask }), ..Settings::default() };
        assert_eq!(left(&udp, &marked(0x40, 0x40)), Some(Cause::SkipMark));
        assert_eq!(left(&udp, &marked(0, 0x40)), None);
        for (network, expected) in [("192.0.2.0/24", Some(Cause::Skip)), ("198.51.100.0/24", None)] {
            let settings = Settings { skip: vec![network.parse().unwrap()], ..Settings::default() };
            assert_eq!(left(&udp, &settings), expected, "{network}");
        }
    }

    #[test]
    fn a_lease_ends_before_the_entry() {
        assert_eq!((lease(SHORTEST_TIMEOUT), lease(120), lease(432_000)), (20, 30, 30));
    }
}
