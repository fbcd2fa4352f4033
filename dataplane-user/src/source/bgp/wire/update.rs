//! UPDATE, both ways (RFC 4271 section 4.3, RFC 4760, RFC 7606).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use rustbgpd_wire::{
    Afi, AsPath, AsPathSegment, ErrorDisposition, Ipv4NlriEntry, Ipv4Prefix, Ipv4UnicastMode, NlriEntry,
    Origin, PathAttribute, Prefix, Safi, UpdateMessage, validate::validate_update_attributes,
};

use super::{Encoding, MAX_MESSAGE, Notification, Raw, Unreadable};
use crate::source::bgp::attributes::{Attributes, DEFAULT_LOCAL_PREFERENCE};

/// Prefixes in one UPDATE of ours: five bytes each at most, and room for the attributes.
const PREFIXES: usize = (MAX_MESSAGE - 128) / 5;

/// The longest AS_PATH and CLUSTER_LIST that are taken, in numbers. There is no such limit in the standards; without
/// one, a peer could make each of its routes cost four kilobytes.
const LONGEST_PATH: usize = 128;

/// What an UPDATE says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that are not reachable by this peer any more.
    pub withdrawn: Vec<Ipv4Net>,
    /// Prefixes that are, and how: those of the NLRI field have another next hop than those of MP_REACH_NLRI.
    pub announced: Vec<Announced>,
    /// IPv6: likewise, without the attributes, which nobody needs yet.
    pub withdrawn_ipv6: Vec<Ipv6Net>,
    /// IPv6 prefixes that are reachable.
    pub announced_ipv6: Vec<Ipv6Net>,
    /// The peer has told everything (RFC 4724 section 2).
    pub end_of_rib: Option<EndOfRib>,
    /// What was wrong with it, and what was done about it (RFC 7606).
    pub fault: Option<String>,
}

/// Prefixes with the attributes of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The prefixes.
    pub prefixes: Vec<Ipv4Net>,
    /// The attributes.
    pub attributes: Attributes,
}

/// Of which family everything was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfRib {
    /// IPv4 unicast.
    Ipv4,
    /// Another one.
    Other,
}

impl Raw {
    /// Decodes the UPDATE. Faults in it cost as little as RFC 7606 allows.
    ///
    /// # Errors
    ///
    /// Where it cannot be known which prefixes it is about: the session must end.
    pub fn decode(&self, encoding: Encoding) -> Result<Update, Unreadable> {
        let Self(raw) = self;
        if raw.withdrawn_routes.is_empty() && raw.path_attributes.is_empty() && raw.nlri.is_empty() {
            return Ok(Update { end_of_rib: Some(EndOfRib::Ipv4), ..Update::default() });
        }
        let decoded = raw.parse_revised(encoding.four_octets, !encoding.external, false, &[])?;
        let (parsed, malformed) = (decoded.update, decoded.malformed);
        let mut fault = malformed
            .iter()
            .max_by_key(|fault| fault.disposition)
            .map(|fault| (fault.disposition, fault.error.to_string()));
        if let Some((ErrorDisposition::SessionReset, _)) = fault {
            let worst =
                malformed.into_iter().find(|fault| fault.disposition == ErrorDisposition::SessionReset);
            return Err(worst.map(|fault| fault.error.into()).unwrap_or_else(no_reason));
        }
        let mut update =
            Update { withdrawn: parsed.withdrawn.iter().map(network).collect(), ..Update::default() };
        let in_body: Vec<Ipv4Net> = parsed.announced.iter().map(network).collect();
        let body = !in_body.is_empty();
        // Each with the next hop that is meant for it, if there is one (RFC 4760 section 3).
        let mut announced = vec![(in_body, next_hop(&parsed.attributes))];
        for attribute in &parsed.attributes {
            match attribute {
                PathAttribute::MpUnreachNlri(unreachable) if unreachable.safi == Safi::Unicast => {
                    match unreachable.afi {
                        Afi::Ipv4 => update.withdrawn.extend(ipv4(&unreachable.withdrawn)),
                        Afi::Ipv6 => update.withdrawn_ipv6.extend(ipv6(&unreachable.withdrawn)),
                        _ => {}
                    }
                    if unreachable.withdrawn.is_empty() && parsed.attributes.len() == 1 && !body {
                        let ipv4 = unreachable.afi == Afi::Ipv4;
                        update.end_of_rib = Some(if ipv4 { EndOfRib::Ipv4 } else { EndOfRib::Other });
                    }
                }
                PathAttribute::MpReachNlri(reachable) if reachable.safi == Safi::Unicast => {
                    match reachable.afi {
                        Afi::Ipv4 => {
                            let next_hop = match reachable.next_hop {
                                IpAddr::V4(address) => Some(address),
                                IpAddr::V6(_) => None,
                            };
                            announced.push((ipv4(&reachable.announced).collect(), next_hop));
                        }
                        Afi::Ipv6 => update.announced_ipv6.extend(ipv6(&reachable.announced)),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        announced.retain(|(prefixes, _)| !prefixes.is_empty());
        let any = !announced.is_empty() || !update.announced_ipv6.is_empty();
        if let Err(error) = validate_update_attributes(&parsed.attributes, any, body, encoding.external) {
            let notification = Notification { code: 3, subcode: error.subcode, data: error.data };
            if error.disposition == ErrorDisposition::SessionReset {
                return Err(Unreadable { detail: notification.text(), notification });
            }
            let this = (error.disposition, notification.text());
            fault = Some(fault.map_or(this.clone(), |other| if other.0 > this.0 { other } else { this }));
        }
        let mut withdraw = matches!(fault, Some((ErrorDisposition::TreatAsWithdraw, _)));
        if !withdraw {
            let attributes =
                announced.iter().map(|(_, next_hop)| attributes(&parsed.attributes, *next_hop, encoding));
            match attributes.collect::<Result<Vec<_>, _>>() {
                Ok(all) => {
                    let each = announced.drain(..).zip(all);
                    update.announced =
                        each.map(|((prefixes, _), attributes)| Announced { prefixes, attributes }).collect();
                }
                Err(what) => {
                    withdraw = true;
                    fault = Some((ErrorDisposition::TreatAsWithdraw, what.to_owned()));
                }
            }
        }
        if withdraw {
            update.withdrawn.extend(announced.into_iter().flat_map(|(prefixes, _)| prefixes));
            update.withdrawn_ipv6.append(&mut update.announced_ipv6);
        }
        update.fault = fault.map(|(disposition, what)| {
            let cost = match disposition {
                ErrorDisposition::AttributeDiscard => "the attribute is ignored",
                _ => "its routes count as withdrawn",
            };
            format!("{what}: {cost} (RFC 7606)")
        });
        Ok(update)
    }
}

fn no_reason() -> Unreadable {
    let notification = Notification::new(3, 1);
    Unreadable { detail: notification.text(), notification }
}

/// NEXT_HOP, which is about the prefixes of the NLRI field alone.
fn next_hop(all: &[PathAttribute]) -> Option<Ipv4Addr> {
    all.iter().find_map(|attribute| match attribute {
        PathAttribute::NextHop(address) => Some(*address),
        _ => None,
    })
}

/// What counts of the attributes, with the next hop that is meant.
///
/// # Errors
///
/// What is wrong: the library does not look for a NEXT_HOP from internal peers, and takes paths of any length.
fn attributes(
    all: &[PathAttribute],
    next_hop: Option<Ipv4Addr>,
    encoding: Encoding,
) -> Result<Attributes, &'static str> {
    let mut attributes = Attributes {
        next_hop: Ipv4Addr::UNSPECIFIED,
        origin: Origin::Incomplete as u8,
        local_preference: None,
        med: None,
        as_path: Box::default(),
        originator: None,
        clusters: Box::default(),
    };
    for attribute in all {
        match attribute {
            PathAttribute::Origin(origin) => attributes.origin = *origin as u8,
            PathAttribute::AsPath(path) => attributes.as_path = path.asns().collect(),
            PathAttribute::Med(med) => attributes.med = Some(*med),
            // From another autonomous system these three mean nothing (RFC 4271 section 5.1.5, RFC 4456).
            PathAttribute::LocalPref(preference) if !encoding.external => {
                attributes.local_preference = Some(*preference);
            }
            PathAttribute::OriginatorId(originator) if !encoding.external => {
                attributes.originator = Some(*originator);
            }
            PathAttribute::ClusterList(clusters) if !encoding.external => {
                attributes.clusters = clusters.as_slice().into();
            }
            _ => {}
        }
    }
    if attributes.as_path.len().max(attributes.clusters.len()) > LONGEST_PATH {
        return Err("a path of more than 128 numbers");
    }
    match next_hop {
        Some(address) => Ok(Attributes { next_hop: address, ..attributes }),
        None => Err("no NEXT_HOP"),
    }
}

fn network(entry: &Ipv4NlriEntry) -> Ipv4Net {
    Ipv4Net::new_assert(entry.prefix.addr, entry.prefix.len)
}

fn ipv4(entries: &[NlriEntry]) -> impl Iterator<Item = Ipv4Net> {
    entries.iter().filter_map(|entry| match entry.prefix {
        Prefix::V4(prefix) => Some(Ipv4Net::new_assert(prefix.addr, prefix.len)),
        Prefix::V6(_) => None,
    })
}

fn ipv6(entries: &[NlriEntry]) -> impl Iterator<Item = Ipv6Net> {
    entries.iter().filter_map(|entry| match entry.prefix {
        Prefix::V6(prefix) => Some(Ipv6Net::new_assert(prefix.addr, prefix.len)),
        Prefix::V4(_) => None,
    })
}

fn entry(prefix: &Ipv4Net) -> Ipv4NlriEntry {
    Ipv4NlriEntry { path_id: 0, prefix: Ipv4Prefix::new(prefix.addr(), prefix.prefix_len()) }
}

/// Numbers that do not fit into two octets go into an AS4_PATH, which the library adds (RFC 6793).
fn encode(
    announced: &[Ipv4NlriEntry],
    withdrawn: &[Ipv4NlriEntry],
    attributes: &[PathAttribute],
    four_octets: bool,
) -> Vec<u8> {
    let message =
        UpdateMessage::build(announced, withdrawn, attributes, four_octets, false, Ipv4UnicastMode::Body);
    let mut bytes = Vec::new();
    message.encode(&mut bytes).expect("at most PREFIXES prefixes fit");
    bytes
}

/// UPDATEs that announce the prefixes with ourselves as the next hop.
pub fn announcements(
    prefixes: &[Ipv4Net],
    next_hop: Ipv4Addr,
    asn: u32,
    encoding: Encoding,
) -> impl Iterator<Item = Vec<u8>> {
    let segments = if encoding.external { vec![AsPathSegment::AsSequence(vec![asn])] } else { Vec::new() };
    let mut attributes = vec![
        PathAttribute::Origin(Origin::Igp),
        PathAttribute::AsPath(AsPath { segments }),
        PathAttribute::NextHop(next_hop),
    ];
    if !encoding.external {
        attributes.push(PathAttribute::LocalPref(DEFAULT_LOCAL_PREFERENCE));
    }
    prefixes.chunks(PREFIXES).map(move |chunk| {
        let entries: Vec<_> = chunk.iter().map(entry).collect();
        encode(&entries, &[], &attributes, encoding.four_octets)
    })
}

/// UPDATEs that withdraw the prefixes.
pub fn withdrawals(prefixes: &[Ipv4Net]) -> impl Iterator<Item = Vec<u8>> {
    prefixes
        .chunks(PREFIXES)
        .map(|chunk| encode(&[], &chunk.iter().map(entry).collect::<Vec<_>>(), &[], true))
}

/// The UPDATE that ends the telling of IPv4 unicast routes.
pub fn end_of_rib() -> Vec<u8> {
    encode(&[], &[], &[], true)
}
