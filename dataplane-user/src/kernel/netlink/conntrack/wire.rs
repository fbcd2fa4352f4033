//! Entries of connection tracking as attributes of netlink.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use dataplane_common::flow::tuple::protocol;
use netlink_packet_core::{NetlinkMessage, Nla as _};
use netlink_packet_netfilter::{
    NetfilterMessage,
    conntrack::{
        ConntrackAttribute as Attribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple,
        Protocol, Status, TCPFlags, Tuple as Part,
    },
};

use super::{Change, Entry, TcpChange, Tuple};

/// Attributes that the library has no type for (`enum ctattr_type` of linux/netfilter/nfnetlink_conntrack.h).
const CTA_HELP: u16 = 5;
const CTA_SEQ_ADJ_ORIG: u16 = 15;
const CTA_SEQ_ADJ_REPLY: u16 = 16;
const CTA_ZONE: u16 = 18;
const CTA_SYNPROXY: u16 = 24;

/// `IP_CT_TCP_FLAG_BE_LIBERAL` of linux/netfilter/nf_conntrack_tcp.h.
const BE_LIBERAL: u8 = 0x08;
/// `IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED` of the same file.
const DATA_UNACKNOWLEDGED: u8 = 0x10;
/// `IP_CT_TCP_FLAG_MAXACK_SET` of the same file.
const MAXACK_SET: u8 = 0x20;

/// `TCP_CONNTRACK_ESTABLISHED` of the same file.
const TCP_ESTABLISHED: u8 = 3;

/// The messages of a datagram.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<NetfilterMessage>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest);
        let length = message.as_ref().map_or(0, |message| message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length..).filter(|_| length != 0).unwrap_or_default();
        Some(
            message.map_err(|error| anyhow::anyhow!("connection tracking says what cannot be read: {error}")),
        )
    })
}

/// The message that makes the change.
pub(super) fn request(change: &Change) -> ConntrackMessage {
    let mut attributes = vec![Attribute::CtaTupleOrig(parts(&change.original))];
    attributes.extend(change.timeout.map(Attribute::CtaTimeout));
    let mask = match change.tcp {
        TcpChange::None => 0,
        TcpChange::Liberal => BE_LIBERAL,
        TcpChange::Forget => BE_LIBERAL | DATA_UNACKNOWLEDGED | MAXACK_SET,
    };
    if mask != 0 {
        let flags = || TCPFlags::parse(&[BE_LIBERAL, mask]);
        let directions = [flags().map(ProtoInfoTCP::OriginalFlags), flags().map(ProtoInfoTCP::ReplyFlags)];
        let directions = directions.into_iter().flatten().collect();
        attributes.push(Attribute::CtaProtoInfo(vec![ProtoInfo::TCP(directions)]));
    }
    ConntrackMessage::New(attributes)
}

/// The attributes of a tuple.
pub(super) fn parts(tuple: &Tuple) -> Vec<Part> {
    let address = |address| IpAddr::V4(Ipv4Addr::from(address));
    let number = match tuple.protocol {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        other => Protocol::Other(other),
    };
    vec![
        Part::Ip(vec![
            IPTuple::SourceAddress(address(tuple.source)),
            IPTuple::DestinationAddress(address(tuple.destination)),
        ]),
        Part::Proto(vec![
            ProtoTuple::Protocol(number),
            ProtoTuple::SourcePort(tuple.source_port),
            ProtoTuple::DestinationPort(tuple.destination_port),
        ]),
    ]
}

/// The tuple, where it is one of IPv4 with ports.
fn tuple(parts: &[Part]) -> Option<Tuple> {
    let (mut addresses, mut ports, mut number) = ((None, None), (None, None), None);
    for part in parts {
        match part {
            Part::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(IpAddr::V4(address)) => addresses.0 = Some(*address),
                        IPTuple::DestinationAddress(IpAddr::V4(address)) => addresses.1 = Some(*address),
                        _ => {}
                    }
                }
            }
            Part::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => number = Some(u8::from(*protocol)),
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        source: addresses.0?.into(),
        destination: addresses.1?.into(),
        source_port: ports.0?,
        destination_port: ports.1?,
        protocol: number?,
    })
}

/// The entry, where it is one of IPv4 with ports.
pub(super) fn entry(attributes: &[Attribute]) -> Option<Entry> {
    let (mut original, mut reply, mut status) = (None, None, Status::empty());
    let (mut state, mut liberal, mut timeout, mut mark, mut zone) = (None, [false; 2], 0, 0, 0);
    let mut is_helped = false;
    for attribute in attributes {
        match attribute {
            Attribute::CtaTupleOrig(parts) => original = tuple(parts),
            Attribute::CtaTupleReply(parts) => reply = tuple(parts),
            Attribute::CtaStatus(bits) => status = *bits,
            Attribute::CtaTimeout(seconds) => timeout = *seconds,
            Attribute::CtaMark(value) => mark = *value,
            Attribute::CtaProtoInfo(infos) => {
                let tcp = infos.iter().filter_map(|info| match info {
                    ProtoInfo::TCP(parts) => Some(parts),
                    _ => None,
                });
                for part in tcp.flatten() {
                    match part {
                        ProtoInfoTCP::State(number) => state = Some(*number),
                        ProtoInfoTCP::OriginalFlags(flags) => liberal[0] = flags.flags & BE_LIBERAL != 0,
                        ProtoInfoTCP::ReplyFlags(flags) => liberal[1] = flags.flags & BE_LIBERAL != 0,
                        _ => {}
                    }
                }
            }
            Attribute::Other(other) => match other.kind() {
                CTA_HELP | CTA_SEQ_ADJ_ORIG | CTA_SEQ_ADJ_REPLY | CTA_SYNPROXY => is_helped = true,
                CTA_ZONE => {
                    let mut value = [0; 2];
                    if other.value_len() == value.len() {
                        other.emit_value(&mut value);
                    }
                    zone = u16::from_be_bytes(value);
                }
                _ => {}
            },
            _ => {}
        }
    }
    Some(Entry {
        original: original?,
        reply: reply?,
        is_assured: status.contains(Status::Assured | Status::SeenReply),
        is_dying: status.contains(Status::Dying),
        is_offloaded: status.contains(Status::Offload),
        is_helped: is_helped || status.contains(Status::SeqAdjust),
        is_established: state == Some(TCP_ESTABLISHED),
        is_liberal: liberal == [true; 2],
        timeout,
        mark,
        zone,
    })
}
