//! The kernel's messages, as the types of this module.
//!
//! Only the attributes that matter are read, so that one that is unknown cannot hide a link or a route.
//! The layouts are those of linux/{netlink,rtnetlink,if_link,if_addr,fib_rules}.h.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, anyhow};
use dataplane_common::net::MacAddr;
use ipnet::Ipv4Net;
use netlink_packet_core::{NetlinkBuffer, NlasIterator};

use super::types::{Address, Link, Peer, Route, RouteKind};

/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// `struct rtnexthop`.
const NEXT_HOP_HEADER: usize = 8;
/// `struct fib_rule_hdr`.
const RULE_HEADER: usize = 12;

/// Attributes that libc does not name.
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const IFA_FLAGS: u16 = 8;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PAD: u16 = 18;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_PERMANENT: u32 = 1;

/// Priority and table of the rules of a new namespace (`fib_default_rules_init()` in net/ipv4/fib_rules.c).
pub(super) const DEFAULT_RULES: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

/// One message of a datagram.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram (RFC 3549, section 2.3.2).
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let message = match NetlinkBuffer::new_checked(datagram) {
            Ok(message) => message,
            Err(error) => {
                datagram = &[];
                return Some(Err(anyhow!(error)).context("a netlink message is cut short"));
            }
        };
        let padded = (message.length() as usize).next_multiple_of(4);
        let found = Message {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            payload: message.payload(),
        };
        datagram = datagram.get(padded..).unwrap_or_default();
        Some(Ok(found))
    })
}

/// The fixed header of a message, and what follows.
pub(super) fn split<const LENGTH: usize>(payload: &[u8]) -> Result<(&[u8; LENGTH], &[u8])> {
    payload
        .split_first_chunk()
        .with_context(|| format!("a netlink message of {} bytes has no room for its header", payload.len()))
}

pub(super) fn for_each_attribute(bytes: &[u8], mut each: impl FnMut(u16, &[u8]) -> Result<()>) -> Result<()> {
    for attribute in NlasIterator::new(bytes) {
        let attribute =
            attribute.map_err(|error| anyhow!(error)).context("a netlink attribute is cut short")?;
        let (kind, value) = (attribute.kind(), attribute.value());
        each(kind, value).with_context(|| format!("netlink attribute {kind} of {} bytes", value.len()))?;
    }
    Ok(())
}

pub(super) fn u32_of(value: &[u8]) -> Result<u32> {
    Ok(u32::from_ne_bytes(value.try_into().context("not a number of 32 bits")?))
}

pub(super) fn u64_of(value: &[u8]) -> Result<u64> {
    Ok(u64::from_ne_bytes(value.try_into().context("not a number of 64 bits")?))
}

pub(super) fn ipv4_of(value: &[u8]) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::from(<[u8; 4]>::try_from(value).context("not an IPv4 address")?))
}

pub(super) fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The index in a link message; `None` where the message is not about a link as such.
pub(super) fn link_index(payload: &[u8]) -> Result<Option<u32>> {
    let (header, _) = split::<LINK_HEADER>(payload)?;
    // A bridge speaks of its ports in link messages of its own family: a RTM_DELLINK of that family says
    // that a port left the bridge, not that the link is gone.
    let is_link = i32::from(header[0]) == libc::AF_UNSPEC;
    let [.., a, b, c, d, _, _, _, _, _, _, _, _] = *header;
    Ok(is_link.then_some(u32::from_ne_bytes([a, b, c, d])))
}

/// A link; `None` where the message is not about a link as such.
pub(super) fn link(payload: &[u8]) -> Result<Option<Link>> {
    let Some(index) = link_index(payload)? else { return Ok(None) };
    let (header, attributes) = split::<LINK_HEADER>(payload)?;
    let hardware = u16::from_ne_bytes([header[2], header[3]]);
    let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    let ethernet = hardware == libc::ARPHRD_ETHER;

    let mut name = None;
    let (mut mac, mut mtu, mut kind) = (None, 0, None);
    let (mut peer_index, mut netnsid) = (None, None);
    for_each_attribute(attributes, |attribute, value| {
        match attribute {
            libc::IFLA_IFNAME => name = Some(text_of(value)),
            libc::IFLA_ADDRESS if ethernet => {
                mac = Some(MacAddr::new(value.try_into().context("not an Ethernet address")?));
            }
            libc::IFLA_MTU => mtu = u32_of(value)?,
            libc::IFLA_LINK => peer_index = Some(u32_of(value)?),
            libc::IFLA_LINK_NETNSID => netnsid = Some(u32_of(value)?.cast_signed()),
            libc::IFLA_LINKINFO => for_each_attribute(value, |attribute, value| {
                if attribute == libc::IFLA_INFO_KIND {
                    kind = Some(text_of(value));
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    // Drivers of wireless cards send link messages that hold nothing but their own event.
    let Some(name) = name else { return Ok(None) };
    // On other kinds (vlan, macvlan) IFLA_LINK is the device below; 0 is a veth whose other end is gone.
    let paired = matches!(kind.as_deref(), Some("veth" | "netkit"));
    let peer = peer_index.filter(|ifindex| paired && *ifindex != 0).map(|ifindex| Peer { ifindex, netnsid });
    Ok(Some(Link {
        index,
        name,
        mac,
        mtu,
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        carrier: flags & libc::IFF_LOWER_UP.cast_unsigned() != 0,
        ethernet,
        vlan_of: peer_index.filter(|_| kind.as_deref() == Some("vlan")),
        kind,
        peer,
    }))
}

/// An IPv4 address; `None` where it is of another family.
pub(super) fn address(payload: &[u8]) -> Result<Option<Address>> {
    let (header, attributes) = split::<ADDRESS_HEADER>(payload)?;
    let [family, prefix_length, flags, scope, a, b, c, d] = *header;
    if i32::from(family) != libc::AF_INET {
        return Ok(None);
    }
    let mut flags = u32::from(flags);
    let (mut own, mut far, mut broadcast) = (None, None, None);
    for_each_attribute(attributes, |attribute, value| {
        match attribute {
            libc::IFA_LOCAL => own = Some(ipv4_of(value)?),
            libc::IFA_ADDRESS => far = Some(ipv4_of(value)?),
            libc::IFA_BROADCAST => broadcast = Some(ipv4_of(value)?),
            IFA_FLAGS => flags = u32_of(value)?,
            _ => {}
        }
        Ok(())
    })?;
    let own = own.or(far).context("an IPv4 address message has no address")?;
    Ok(Some(Address {
        ifindex: u32::from_ne_bytes([a, b, c, d]),
        network: Ipv4Net::new(own, prefix_length).context("an IPv4 address message")?,
        peer: far.filter(|far| *far != own),
        broadcast,
        secondary: flags & libc::IFA_F_SECONDARY != 0,
        scope,
    }))
}

/// An IPv4 route; `None` where it is of another family, or not in a table but made up for one destination.
pub(super) fn route(payload: &[u8]) -> Result<Option<Route>> {
    let (header, attributes) = split::<ROUTE_HEADER>(payload)?;
    let [family, length, _, tos, table, protocol, scope, kind, a, b, c, d] = *header;
    let cloned = u32::from_ne_bytes([a, b, c, d]) & libc::RTM_F_CLONED != 0;
    // RTNL_FAMILY_IPMR and other families of multicast routing are left out here, too.
    if i32::from(family) != libc::AF_INET || cloned {
        return Ok(None);
    }
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut route = Route {
        destination: Ipv4Net::default(),
        table: u32::from(table),
        kind: route_kind(kind),
        protocol,
        scope,
        metric: 0,
        tos,
        gateway: None,
        oif: None,
        source: None,
        mtu: None,
        nexthop: None,
        multipath: false,
        multipath_oifs: Box::default(),
        encap: false,
        via_ipv6: false,
    };
    for_each_attribute(attributes, |attribute, value| {
        match attribute {
            libc::RTA_DST => destination = ipv4_of(value)?,
            libc::RTA_TABLE => route.table = u32_of(value)?,
            libc::RTA_PRIORITY => route.metric = u32_of(value)?,
            libc::RTA_GATEWAY => route.gateway = Some(ipv4_of(value)?),
            libc::RTA_OIF => route.oif = Some(u32_of(value)?),
            libc::RTA_PREFSRC => route.source = Some(ipv4_of(value)?),
            libc::RTA_METRICS => for_each_attribute(value, |metric, value| {
                if metric == RTAX_MTU {
                    route.mtu = Some(u32_of(value)?);
                }
                Ok(())
            })?,
            libc::RTA_MULTIPATH => {
                route.multipath = true;
                route.multipath_oifs = next_hop_links(value)?;
            }
            RTA_NH_ID => route.nexthop = Some(u32_of(value)?),
            libc::RTA_ENCAP | libc::RTA_ENCAP_TYPE => route.encap = true,
            // A gateway of another family.
            libc::RTA_VIA => (route.encap, route.via_ipv6) = (true, true),
            _ => {}
        }
        Ok(())
    })?;
    route.destination = Ipv4Net::new(destination, length).context("an IPv4 route message")?.trunc();
    Ok(Some(route))
}

fn route_kind(kind: u8) -> RouteKind {
    match kind {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_LOCAL => RouteKind::Local,
        libc::RTN_BROADCAST => RouteKind::Broadcast,
        libc::RTN_MULTICAST => RouteKind::Multicast,
        libc::RTN_BLACKHOLE => RouteKind::Blackhole,
        libc::RTN_UNREACHABLE => RouteKind::Unreachable,
        libc::RTN_PROHIBIT => RouteKind::Prohibit,
        libc::RTN_THROW => RouteKind::Throw,
        other => RouteKind::Other(other),
    }
}

/// The interfaces of a row of `struct rtnexthop`, each followed by its own attributes.
fn next_hop_links(mut bytes: &[u8]) -> Result<Box<[u32]>> {
    let mut links = Vec::new();
    while !bytes.is_empty() {
        let (header, _) = split::<NEXT_HOP_HEADER>(bytes)?;
        let [low, high, _flags, _weight, a, b, c, d] = *header;
        let length = usize::from(u16::from_ne_bytes([low, high])).max(NEXT_HOP_HEADER);
        links.push(u32::from_ne_bytes([a, b, c, d]));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(links.into())
}

/// Priority and table of a rule that sends every packet to a table; `Some(None)` for any other rule.
pub(super) fn default_rule(payload: &[u8]) -> Result<Option<Option<(u32, u32)>>> {
    let (header, attributes) = split::<RULE_HEADER>(payload)?;
    let [_, to_length, from_length, tos, table, _, _, action, a, b, c, d] = *header;
    let flags = u32::from_ne_bytes([a, b, c, d]);
    let mut plain =
        (to_length, from_length, tos, action) == (0, 0, 0, FR_ACT_TO_TBL) && flags & !FIB_RULE_PERMANENT == 0;
    let (mut priority, mut table) = (0, u32::from(table));
    for_each_attribute(attributes, |attribute, value| {
        match attribute {
            FRA_PRIORITY => priority = u32_of(value)?,
            FRA_TABLE => table = u32_of(value)?,
            // All bits set: no prefix length is suppressed.
            FRA_SUPPRESS_PREFIXLEN => plain &= u32_of(value)? == u32::MAX,
            FRA_PROTOCOL | FRA_PAD => {}
            // Whatever else there is narrows the rule down.
            _ => plain = false,
        }
        Ok(())
    })?;
    Ok(Some(plain.then_some((priority, table))))
}
