//! Nexthop objects: where routes lead that only say which object they refer to (linux/nexthop.h, `ip nexthop`).

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

use super::decode::{for_each_attribute, ipv4_of, split, u32_of};

/// What libc does not name.
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
/// `RTNLGRP_NEXTHOP`.
pub(super) const GROUP: u32 = 32;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;

/// `struct nhmsg`.
const HEADER: usize = 8;
/// `struct nexthop_grp`.
const MEMBER: usize = 8;

/// A nexthop object, to which routes may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Its number, unique in the namespace.
    pub id: u32,
    /// Where it leads.
    pub target: NextHopTarget,
}

/// Where a nexthop object leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopTarget {
    /// By one link.
    Single {
        /// The next router; `None` where destinations are on the link.
        gateway: Option<Ipv4Addr>,
        /// The outgoing interface.
        oif: Option<u32>,
        /// Packets are encapsulated, or the gateway is not an IPv4 one.
        encap: bool,
        /// The gateway is an IPv6 one.
        via_ipv6: bool,
    },
    /// Nowhere.
    Blackhole,
    /// To one of these objects for each packet.
    Group(Box<[u32]>),
}

/// The request for all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dump;

impl NetlinkSerializable for Dump {
    fn message_type(&self) -> u16 {
        RTM_GETNEXTHOP
    }

    fn buffer_len(&self) -> usize {
        HEADER
    }

    /// Of every family.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

pub(super) fn dump() -> NetlinkMessage<Dump> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Dump))
}

/// A nexthop object of a message, of whatever family: a group is of none.
pub(super) fn decode(payload: &[u8]) -> Result<NextHop> {
    let (_, attributes) = split::<HEADER>(payload)?;
    let (mut id, mut members, mut blackhole) = (None, None, false);
    let (mut gateway, mut oif, mut encap, mut via_ipv6) = (None, None, false, false);
    for_each_attribute(attributes, |attribute, value| {
        match attribute {
            NHA_ID => id = Some(u32_of(value)?),
            NHA_GROUP => members = Some(value.chunks(MEMBER).map(member).collect::<Result<_>>()?),
            NHA_BLACKHOLE => blackhole = true,
            NHA_OIF => oif = Some(u32_of(value)?),
            NHA_GATEWAY if value.len() != 4 => (encap, via_ipv6) = (true, true),
            NHA_GATEWAY => gateway = Some(ipv4_of(value)?),
            NHA_ENCAP | NHA_ENCAP_TYPE => encap = true,
            _ => {}
        }
        Ok(())
    })?;
    let target = match members {
        Some(members) => NextHopTarget::Group(members),
        None if blackhole => NextHopTarget::Blackhole,
        None => NextHopTarget::Single { gateway, oif, encap, via_ipv6 },
    };
    Ok(NextHop { id: id.context("a nexthop message has no number")?, target })
}

/// The number in a row of `struct nexthop_grp`; the weight is behind it.
fn member(row: &[u8]) -> Result<u32> {
    u32_of(row.get(..4).unwrap_or(row))
}
