//! IPsec policies (`ip xfrm policy`): which packets the kernel encrypts, wants encrypted, or blocks (linux/xfrm.h).

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkMessage};

use super::{
    decode::{for_each_attribute, split, u32_of},
    raw::{self, Raw},
};

const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
/// `XFRMNLGRP_POLICY`: policies come, go or change.
pub(super) const GROUP: u32 = 4;

const XFRMA_TMPL: u16 = 5;
const XFRMA_IF_ID: u16 = 31;
/// `struct xfrm_userpolicy_id`.
const ID: usize = 64;
/// `struct xfrm_userpolicy_info`.
const INFO: usize = 168;
/// `struct xfrm_userpolicy_default`: a byte for each direction.
const DEFAULT: usize = 3;
/// `XFRM_USERPOLICY_BLOCK`.
const DEFAULT_BLOCK: u8 = 1;
/// `XFRM_POLICY_OUT` and `XFRM_POLICY_FWD`. Those of `XFRM_POLICY_IN` are for packets to the node itself.
const DIRECTIONS: [u8; 2] = [1, 2];
/// `XFRM_POLICY_BLOCK`.
const ACTION_BLOCK: u8 = 1;

/// The packets that a policy selects: those of other protocols or ports, too, which it may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpsecPolicy {
    /// Where they come from.
    pub source: Ipv4Net,
    /// Where they go.
    pub destination: Ipv4Net,
}

pub(super) fn dump() -> NetlinkMessage<Raw> {
    raw::request(XFRM_MSG_GETPOLICY, NLM_F_DUMP, vec![0; ID])
}

/// The request for what becomes of packets without a policy (Linux 5.15).
pub(super) fn default() -> NetlinkMessage<Raw> {
    raw::request(XFRM_MSG_GETDEFAULT, NLM_F_ACK, vec![0; DEFAULT.next_multiple_of(4)])
}

/// Whether forwarded packets without a policy are blocked.
pub(super) fn blocks_by_default(payload: &[u8]) -> Result<bool> {
    let ([_, forward, out], _) = split::<DEFAULT>(payload)?;
    Ok([*forward, *out].contains(&DEFAULT_BLOCK))
}

/// A policy that does something to forwarded IPv4 packets; `None` for any other.
///
/// One that allows packets as they are changes nothing, but for what another one would do: without it, more is left to the
/// kernel than must be. One with the number of an XFRM interface holds for packets that are routed there, and such an
/// interface is no uplink.
pub(super) fn decode(payload: &[u8]) -> Result<Option<IpsecPolicy>> {
    let (info, attributes) = split::<INFO>(payload)?;
    let family = u16::from_ne_bytes([info[40], info[41]]);
    let (direction, action) = (info[160], info[161]);
    if i32::from(family) != libc::AF_INET || !DIRECTIONS.contains(&direction) {
        return Ok(None);
    }
    let (mut templates, mut interface) = (false, 0);
    for_each_attribute(attributes, |kind, value| {
        match kind {
            XFRMA_TMPL => templates = !value.is_empty(),
            XFRMA_IF_ID => interface = u32_of(value)?,
            _ => {}
        }
        Ok(())
    })?;
    if interface != 0 || !(templates || action == ACTION_BLOCK) {
        return Ok(None);
    }
    let network = |offset: usize, length: u8| -> Result<Ipv4Net> {
        let octets = info[offset..].first_chunk::<4>().context("no address")?;
        Ok(Ipv4Net::new(Ipv4Addr::from(*octets), length).context("an IPsec policy's network")?.trunc())
    };
    let (destination, source) = (network(0, info[42])?, network(16, info[43])?);
    Ok(Some(IpsecPolicy { source, destination }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(direction: u8, action: u8, attributes: &[u8]) -> Vec<u8> {
        let mut info = [0; INFO];
        info[..4].copy_from_slice(&[192, 0, 2, 0]);
        info[16..20].copy_from_slice(&[172, 19, 35, 0]);
        info[40..42].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        (info[42], info[43], info[160], info[161]) = (24, 25, direction, action);
        [&info[..], attributes].concat()
    }

    #[test]
    fn what_does_something_to_forwarded_packets_is_found() -> Result<()> {
        let found = Some(IpsecPolicy {
            source: Ipv4Net::new(Ipv4Addr::new(172, 19, 35, 0), 25)?,
            destination: Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 0), 24)?,
        });
        let template = raw::attribute(XFRMA_TMPL, &[0; 64]);
        let interface = [template.clone(), raw::attribute(XFRMA_IF_ID, &9_u32.to_ne_bytes())].concat();
        for (direction, action, attributes, expected) in [
            (1, 1, &[][..], found),
            (2, 1, &[], found),
            (1, 0, &template, found),
            (0, 1, &[], None),
            (1, 0, &[], None),
            (1, 0, &interface, None),
        ] {
            assert_eq!(decode(&policy(direction, action, attributes))?, expected, "{direction} {action}");
        }
        Ok(())
    }
}
