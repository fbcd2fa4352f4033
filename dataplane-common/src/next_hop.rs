//! The next router on the way to another node or to the outside.

use bytemuck::{Pod, Zeroable};

use crate::net::Ipv4Be;

/// One slot of the next-hop table, found by the index in a route [`Entry`](crate::route::Entry).
///
/// It holds no MAC address: the kernel's neighbour table is asked for each packet (`bpf_redirect_neigh`),
/// so that it can never be stale, with or without a running daemon. As with endpoints, a slot does not
/// change while a route points to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct NextHop {
    /// The router's address; [`Ipv4Be::UNSPECIFIED`] where destinations are on the link themselves.
    pub gateway: Ipv4Be,
    /// The uplink.
    pub ifindex: u32,
    /// MTU of the uplink, or of the route where that is smaller, in bytes of IP packet.
    pub mtu: u32,
    /// 1 where a rule may say that packets by this next hop are to be translated, else 0.
    pub translates: u32,
    /// The node's address that translated packets by this next hop get, unless their rule names one: the one on the router's
    /// subnet, else the uplink's first (`inet_select_addr()` in net/ipv4/devinet.c); [`Ipv4Be::UNSPECIFIED`] without any.
    pub source: Ipv4Be,
    /// For what is to come, such as tunnels: zero.
    pub reserved: [u32; 3],
}

const _: () = assert!(size_of::<NextHop>() == 32);
