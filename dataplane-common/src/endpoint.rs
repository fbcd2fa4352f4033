//! A container, as the data path sees it.

use bytemuck::{Pod, Zeroable};

use crate::net::{Ipv4Be, MacPair};

/// One slot of the endpoint table, found by the index in a route [`Entry`](crate::route::Entry).
///
/// A slot does not change while a route points to it: a container that comes back with the same address
/// gets a new slot, and the route is switched with one store.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Endpoint {
    /// The container's address.
    pub address: Ipv4Be,
    /// The host side of its veth.
    pub ifindex: u32,
    /// MTU of the veth, in bytes of IP packet.
    pub mtu: u32,
    /// MACs of the container's side of the veth and of the host's, with which ARP requests are answered.
    pub macs: MacPair,
    /// [`Self::KERNEL_EGRESS`], or 0.
    pub flags: u32,
    /// For what is to come, such as policy: zero. A slot is a cache line.
    pub reserved: [u32; 9],
}

impl Endpoint {
    /// Where no route of BPF's leads, the kernel carries this container's packets, with its connection tracking
    /// and translation. So it must see the packets that come from there as well: they are left to it.
    pub const KERNEL_EGRESS: u32 = 1;
}

const _: () = assert!(size_of::<Endpoint>() == 64);
