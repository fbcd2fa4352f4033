//! The kernel's neighbour entries (ARP) on a link.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use dataplane_common::net::MacAddr;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE, NetlinkMessage};

use super::{
    decode::{for_each_attribute, ipv4_of, split},
    raw::{self, Raw, attribute},
};

/// `struct ndmsg` of `linux/neighbour.h`.
const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
/// Usable at once; the kernel verifies it when it has used it.
const NUD_STALE: u16 = 0x04;
/// Entries that somebody set, and that the kernel never verifies.
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// An entry that the kernel found out by ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) ifindex: u32,
    pub(super) address: Ipv4Addr,
    pub(super) mac: MacAddr,
}

/// `struct ndmsg`; the index stands in an attribute where entries are listed.
fn header(ifindex: u32, state: u16) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    header[0] = libc::AF_INET as u8;
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header
}

/// The entries of a link.
pub(super) fn dump(ifindex: u32) -> NetlinkMessage<Raw> {
    let body = [header(0, 0), attribute(NDA_IFINDEX, &ifindex.to_ne_bytes())].concat();
    raw::request(libc::RTM_GETNEIGH, NLM_F_DUMP, body)
}

/// Gives an entry that is there another MAC address.
pub(super) fn replace(neighbour: &Neighbour) -> NetlinkMessage<Raw> {
    let address = attribute(NDA_DST, &neighbour.address.octets());
    let mac = attribute(NDA_LLADDR, &neighbour.mac.octets());
    let body = [header(neighbour.ifindex, NUD_STALE), address, mac].concat();
    raw::request(libc::RTM_NEWNEIGH, NLM_F_ACK | NLM_F_REPLACE, body)
}

/// An entry with a MAC address; `None` for one without, and for one that somebody set.
pub(super) fn decode(payload: &[u8]) -> Result<Option<Neighbour>> {
    let (header, attributes) = split::<HEADER>(payload)?;
    let [family, _, _, _, a, b, c, d, low, high, _, _] = *header;
    let is_set = u16::from_ne_bytes([low, high]) & (NUD_PERMANENT | NUD_NOARP) != 0;
    if i32::from(family) != libc::AF_INET || is_set {
        return Ok(None);
    }
    let (mut address, mut mac) = (None, None);
    for_each_attribute(attributes, |kind, value| {
        match kind {
            NDA_DST => address = Some(ipv4_of(value)?),
            NDA_LLADDR => mac = Some(MacAddr::new(value.try_into().context("not an Ethernet address")?)),
            _ => {}
        }
        Ok(())
    })?;
    let ifindex = u32::from_ne_bytes([a, b, c, d]);
    Ok(address.zip(mac).map(|(address, mac)| Neighbour { ifindex, address, mac }))
}
