//! The host's own sockets: who is bound to which port (sock_diag(7)).
//!
//! Sockets are filtered by the kernel, since those of a busy service are many: `netlink-packet-sock-diag` has no type for
//! the filter, which is the one attribute that is written here.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    Emitable as _, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, Parseable as _,
};
use netlink_packet_sock_diag::{
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SOCK_DIAG_BY_FAMILY},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::exchange::{Answer, Requests};

/// `INET_DIAG_REQ_BYTECODE` of linux/inet_diag.h.
const BYTECODE: u16 = 1;
/// `INET_DIAG_BC_NOP`: here, the operand of the instruction before.
const BC_NOP: u8 = 0;
/// `INET_DIAG_BC_S_GE`: the socket's own port is at least that.
const BC_SOURCE_AT_LEAST: u8 = 2;

/// Bytes of an instruction (`struct inet_diag_bc_op`).
const OP: u16 = 4;

/// A socket that holds a port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    /// The address that it is bound to; none for any address.
    pub address: Option<Ipv4Addr>,
    /// The port.
    pub port: u16,
}

/// Whose ports are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP: sockets that listen, are connected, closing, or only bound (those from Linux 6.8 on).
    Tcp,
    /// UDP.
    Udp,
}

/// The way to ask for sockets.
#[derive(Debug)]
pub struct Sockets {
    requests: Requests,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { requests: Requests::closed(NETLINK_SOCK_DIAG) }
    }
}

impl Sockets {
    /// The sockets of the calling thread's namespace that hold a port of at least `lowest` for IPv4 packets: those for any
    /// address or for an IPv4 one, of whichever family.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, as one without the modules `tcp_diag` and `udp_diag` does.
    pub async fn bound(&self, transport: Transport, lowest: u16) -> Result<Vec<BoundSocket>> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut request = NetlinkMessage::new(
                NetlinkHeader::default(),
                NetlinkPayload::InnerMessage(Dump::new(family, transport, lowest)),
            );
            request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let each = |payload: &[u8]| {
                let socket = InetResponseHeader::parse(payload)
                    .map_err(|error| anyhow::anyhow!("a socket that cannot be read: {error}"))?;
                found.extend(bound(&socket.socket_id));
                Ok(())
            };
            let answer =
                self.requests.exchange(request, each).await.context("asking for the host's sockets")?;
            if let Answer::Refused(refusal) = answer {
                return Err(refusal).context("asking for the host's sockets");
            }
        }
        Ok(found)
    }
}

/// The socket, where it may get IPv4 packets. One for any IPv6 address may be for IPv6 alone, which is not asked.
fn bound(id: &SocketId) -> Option<BoundSocket> {
    let address = match id.source_address {
        address if address.is_unspecified() => None,
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) => Some(address.to_ipv4_mapped()?),
    };
    Some(BoundSocket { address: address.filter(|address| !address.is_unspecified()), port: id.source_port })
}

/// A request for all sockets with a port of at least that.
#[derive(Debug)]
struct Dump {
    body: InetRequest,
    lowest: u16,
}

impl Dump {
    fn new(family: u8, transport: Transport, lowest: u16) -> Self {
        let protocol = match transport {
            Transport::Tcp => IPPROTO_TCP,
            Transport::Udp => IPPROTO_UDP,
        };
        let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
        let states = StateFlags::from_bits_retain(u32::MAX); // such as Linux has added, too
        let extensions = ExtensionFlags::empty();
        Self { body: InetRequest { family, protocol, extensions, states, socket_id }, lowest }
    }

    /// The attribute with the filter: at its end a socket is accepted, beyond it refused (`inet_diag_bc_run()` in
    /// net/ipv4/inet_diag.c).
    fn filter(&self) -> Vec<u8> {
        let op =
            |code: u8, yes: u8, no: u16| [code.to_ne_bytes().to_vec(), vec![yes], no.to_ne_bytes().to_vec()];
        let length = 2 * OP;
        let header = [(4 + length).to_ne_bytes().to_vec(), BYTECODE.to_ne_bytes().to_vec()];
        let compare = op(BC_SOURCE_AT_LEAST, length as u8, length + OP);
        let operand = op(BC_NOP, 0, self.lowest);
        header.into_iter().chain(compare).chain(operand).flatten().collect()
    }
}

impl NetlinkSerializable for Dump {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.body.buffer_len() + self.filter().len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (body, filter) = buffer.split_at_mut(self.body.buffer_len());
        self.body.emit(body);
        filter.copy_from_slice(&self.filter());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(address: &str) -> SocketId {
        let mut id = SocketId::new_v4();
        (id.source_address, id.source_port) = (address.parse().unwrap(), 53);
        id
    }

    #[test]
    fn sockets_for_ipv4_packets_count() {
        let bound = |address| bound(&id(address)).map(|socket| socket.address);
        assert_eq!(
            (bound("0.0.0.0"), bound("::"), bound("::ffff:0.0.0.0")),
            (Some(None), Some(None), Some(None))
        );
        let one = Some(Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!((bound("192.0.2.1"), bound("::ffff:192.0.2.1"), bound("2001:db8::1")), (one, one, None));
    }
}
