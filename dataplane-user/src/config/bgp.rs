//! `[bgp]` and `[[bgp.peer]]`: routes learned from, and announced to, other routers.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use dataplane_common::names;
use ipnet::Ipv4Net;
use toml::de::DeTable;

use super::address;
use super::report::{Fault, Placed, Report};
use super::schema::{Form, Schema};
use super::section::Section;
use super::system::System;
use super::value;

/// The BGP speaker (RFC 4271).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// Our autonomous system, four octets (RFC 6793).
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Where connections are taken; `None` to make them only.
    pub listen: Option<SocketAddrV4>,
    /// Learned prefixes outside these are refused; every pool by default.
    pub accept: Vec<Ipv4Net>,
    /// How long peers keep our routes while we restart, in seconds (RFC 4724).
    pub graceful_restart_seconds: u16,
    /// The other routers.
    pub peers: Vec<BgpPeer>,
}

/// Another router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its autonomous system.
    pub asn: u32,
    /// The TCP port it listens on.
    pub port: u16,
    /// Whether we wait for it to connect.
    pub passive: bool,
    /// File with the key of the TCP MD5 signature (RFC 2385).
    pub password_file: Option<PathBuf>,
    /// How many hops away the peer is at most, by the TTL of what comes from it (RFC 5082); any number without it.
    pub ttl_security_hops: Option<u8>,
    /// The hold time that we propose, in seconds; 0 for none (RFC 4271 section 4.2).
    pub hold_seconds: u16,
    /// More prefixes than this end the session.
    pub max_prefixes: u32,
    /// Routes with more distinct next hops than this are refused.
    pub max_next_hops: u32,
    /// How often our own autonomous system may stand in the AS_PATH of a route.
    pub allowas_in: u8,
}

const PORT: u16 = 179;
const HOLD_SECONDS: u16 = 90;
const MAX_PREFIXES: u32 = 100_000;
/// A next hop takes one slot of the data path's table, or two where only some of its routes are translated: so a peer
/// takes half of them at most.
const MAX_NEXT_HOPS: u32 = names::MAX_NEXT_HOPS / 4;
/// As FRR's.
const MAX_OWN_AS: u8 = 10;
const GRACEFUL_RESTART_SECONDS: u16 = 120;
/// The field has 12 bits (RFC 4724 section 3).
const GRACEFUL_RESTART_RANGE: RangeInclusive<u16> = 0..=4095;

pub(super) const SCHEMA: Schema = Schema {
    name: "bgp",
    parent: "",
    form: Form::Single,
    keys: &[
        ("asn", "64512"),
        ("router-id", "\"10.141.0.1\""),
        ("listen", "\"10.141.0.1:179\""),
        ("accept", "[\"172.19.0.0/16\"]"),
        ("graceful-restart-seconds", "120"),
    ],
    sections: &[&PEER],
};

const PEER: Schema = Schema {
    name: "peer",
    parent: "bgp.",
    form: Form::Many,
    keys: &[
        ("address", "\"10.141.0.2\""),
        ("asn", "64512"),
        ("port", "179"),
        ("passive", "false"),
        ("password-file", "\"/etc/dataplane/bgp-secret\""),
        ("ttl-security-hops", "1"),
        ("hold-seconds", "90"),
        ("max-prefixes", "100000"),
        ("max-next-hops", "4096"),
        ("allowas-in", "1"),
    ],
    sections: &[],
};

/// A [`Bgp`] of the file; `None` where a value is not given, or wrong, which has been reported.
pub(super) struct Draft {
    pub(super) at: usize,
    asn: Option<Placed<u32>>,
    router_id: Option<Placed<Ipv4Addr>>,
    listen: Option<Placed<SocketAddrV4>>,
    accept: Option<Vec<Ipv4Net>>,
    graceful_restart_seconds: u16,
    peers: Vec<PeerDraft>,
}

struct PeerDraft {
    at: usize,
    address: Option<Placed<Ipv4Addr>>,
    asn: Option<Placed<u32>>,
    port: u16,
    passive: Option<Placed<bool>>,
    password_file: Option<Placed<PathBuf>>,
    ttl_security_hops: Option<u8>,
    hold_seconds: u16,
    max_prefixes: u32,
    max_next_hops: u32,
    allowas_in: u8,
}

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Option<Draft> {
    let section = &mut Section::single(tree, &SCHEMA, report);
    let table = section.table()?;
    Some(Draft {
        at: section.at(),
        asn: asn(section),
        router_id: section.required_text("router-id", address::identifier),
        listen: section.text("listen", value::socket_address),
        accept: section
            .texts("accept", address::any_network)
            .map(|list| list.into_iter().map(|network| network.value).collect()),
        graceful_restart_seconds: section
            .number("graceful-restart-seconds", GRACEFUL_RESTART_RANGE)
            .map_or(GRACEFUL_RESTART_SECONDS, |seconds| seconds.value),
        peers: peers(table, section.report()),
    })
}

fn peers<'a>(bgp: &'a DeTable<'a>, report: &mut Report<'a>) -> Vec<PeerDraft> {
    let peers = Section::each(bgp, &PEER, report, |section| PeerDraft {
        at: section.at(),
        address: section.required_text("address", address::peer),
        asn: asn(section),
        port: section.number("port", 1..=u16::MAX).map_or(PORT, |port| port.value),
        passive: section.flag("passive"),
        password_file: section.text("password-file", value::absolute_path),
        ttl_security_hops: section.number("ttl-security-hops", 1..=u8::MAX - 1).map(|hops| hops.value),
        hold_seconds: hold_seconds(section),
        max_prefixes: section
            .number("max-prefixes", 1..=super::MAX_ROUTES)
            .map_or(MAX_PREFIXES, |number| number.value),
        max_next_hops: section
            .number("max-next-hops", 1..=names::MAX_NEXT_HOPS)
            .map_or(MAX_NEXT_HOPS, |number| number.value),
        allowas_in: section.number("allowas-in", 0..=MAX_OWN_AS).map_or(0, |number| number.value),
    });
    peers.into_iter().flatten().collect()
}

fn asn(section: &mut Section<'_, '_>) -> Option<Placed<u32>> {
    let asn = section.required_number("asn", 1..=u32::MAX)?;
    let reserved = match asn.value {
        23_456 => "stands for numbers above 65535 in old messages (RFC 6793)",
        65_535 | u32::MAX => "is reserved (RFC 7300)",
        _ => return Some(asn),
    };
    let fault = Fault::new(
        format!("the autonomous system {} {reserved}", asn.value),
        "use your own, or a private one from 64512 to 65534",
    );
    section.report().error(asn.at, fault);
    None
}

fn hold_seconds(section: &mut Section<'_, '_>) -> u16 {
    let Some(seconds) = section.number("hold-seconds", 0..=u16::MAX) else { return HOLD_SECONDS };
    if matches!(seconds.value, 1 | 2) {
        let message = format!("a hold time of {} is not allowed (RFC 4271 section 4.2)", seconds.value);
        section.report().error(seconds.at, Fault::new(message, "write 3 or more, or 0 for none"));
    }
    seconds.value
}

impl Draft {
    pub(super) fn build(&self, pools: &[Ipv4Net]) -> Option<Bgp> {
        Some(Bgp {
            asn: self.asn.as_ref()?.value,
            router_id: self.router_id.as_ref()?.value,
            listen: self.listen.as_ref().map(|listen| listen.value),
            accept: self.accept.clone().unwrap_or_else(|| pools.to_vec()),
            graceful_restart_seconds: self.graceful_restart_seconds,
            peers: self.peers.iter().map(PeerDraft::build).collect::<Option<_>>()?,
        })
    }
}

impl PeerDraft {
    fn build(&self) -> Option<BgpPeer> {
        Some(BgpPeer {
            address: self.address.as_ref()?.value,
            asn: self.asn.as_ref()?.value,
            port: self.port,
            passive: self.is_passive(),
            password_file: self.password_file.as_ref().map(|file| file.value.clone()),
            ttl_security_hops: self.ttl_security_hops,
            hold_seconds: self.hold_seconds,
            max_prefixes: self.max_prefixes,
            max_next_hops: self.max_next_hops,
            allowas_in: self.allowas_in,
        })
    }

    fn is_passive(&self) -> bool {
        self.passive.as_ref().is_some_and(|passive| passive.value)
    }
}

/// Compares the peers with each other, with ourselves and with the files they name.
pub(super) fn check(
    bgp: &Draft,
    pools: &[Option<Placed<Ipv4Net>>],
    system: &dyn System,
    report: &mut Report<'_>,
) {
    if bgp.accept.is_none() && pools.is_empty() {
        let fault = Fault::new(
            "[bgp] would refuse every prefix: it has no `accept`, and there is no pool",
            "add a line such as `accept = [\"172.19.0.0/16\"]`, or a [[pool]]",
        );
        report.warning(bgp.at, fault);
    }
    for (index, peer) in bgp.peers.iter().enumerate() {
        if let Some(passive) = peer.passive.as_ref().filter(|passive| passive.value && bgp.listen.is_none()) {
            let fault = Fault::new(
                "a passive peer cannot connect: [bgp] has no `listen`",
                "add `listen` to [bgp], or write `passive = false`",
            );
            report.error(passive.at, fault);
        }
        if let Some(file) = &peer.password_file
            && let Some(fault) = system.password_fault(&file.value)
        {
            let mend = "write the password that the peer has into it, or correct the line";
            report.error(file.at, Fault::new(fault, mend));
        }
        if let Some(file) = &peer.password_file
            && let Some(exposure) = system.password_exposure(&file.value)
        {
            let fault = Fault::new(exposure, format!("chmod o-rw {}", file.value.display()));
            report.warning(file.at, fault);
        }
        let Some(address) = &peer.address else { continue };
        let same = |other: &&PeerDraft| {
            other.port == peer.port
                && other.address.as_ref().is_some_and(|other| other.value == address.value)
        };
        if let Some(other) = bgp.peers[..index].iter().find(same) {
            let message = format!(
                "peer {} port {} is given in line {} already",
                address.value,
                peer.port,
                report.line(other.at)
            );
            report.error(address.at, Fault::new(message, "remove one of the two"));
        }
        let passive = |other: &&PeerDraft| {
            (other.is_passive() || peer.is_passive())
                && other.port != peer.port
                && other.address.as_ref().is_some_and(|other| other.value == address.value)
        };
        if let Some(other) = bgp.peers[..index].iter().find(passive) {
            let message = format!(
                "peer {} has the address of the one in line {}: whose connection from there is whose cannot be told",
                address.value,
                report.line(other.at)
            );
            let mend = "give them different addresses, or write `passive = false` for both";
            report.warning(address.at, Fault::new(message, mend));
        }
        let ourselves = bgp
            .listen
            .as_ref()
            .is_some_and(|listen| listen.value == SocketAddrV4::new(address.value, peer.port));
        if ourselves {
            let message = format!("peer {} port {} is this node itself", address.value, peer.port);
            report.error(address.at, Fault::new(message, "remove it, or correct `listen` of [bgp]"));
        }
    }
}
