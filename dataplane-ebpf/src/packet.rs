//! A packet at a hook: the only module that touches packet memory and the hook's context.

use core::cell::Cell;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_pull_data},
    programs::TcContext,
};
use dataplane_common::{net::Ipv4Be, reason::Reason};

use crate::{
    nat::NAT_PROGRAMS,
    verdict::{Exit, Walk},
};

/// The most that a walk reads: Ethernet, IPv4 and TCP headers without options. ARP packets are shorter.
const HEADERS: u32 = 54;

/// A layout of bytes in a packet.
///
/// # Safety
///
/// Every bit pattern is valid for the type.
pub unsafe trait Header: Copy {
    /// Fails to compile where the alignment is more than packets have: they start at even addresses
    /// (`NET_IP_ALIGN` and `NET_SKB_PAD` of the kernel's `skbuff.h`), and headers lie at even offsets.
    const IS_ALIGNED: () = assert!(align_of::<Self>() <= 2);
}

// SAFETY: structures of bytes, and packed words.
unsafe impl Header for network_types::eth::EthHdr {}
// SAFETY: as above.
unsafe impl Header for network_types::arp::ArpHdr {}
// SAFETY: as above.
unsafe impl Header for network_types::ip::Ipv4Hdr {}
// SAFETY: as above.
unsafe impl Header for network_types::tcp::TcpHdr {}
// SAFETY: as above.
unsafe impl<const N: usize> Header for [u8; N] {}

/// A packet at a tc hook.
pub struct Packet {
    skb: *mut __sk_buff,
    /// Where it leaves by, once that is certain.
    pub exit: Cell<Exit>,
}

impl Packet {
    /// The packet of this run of the program.
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb, exit: Cell::new(Exit { ifindex: 0, neighbour: Ipv4Be::UNSPECIFIED }) }
    }

    /// Length of the frame in bytes, Ethernet header included; for an aggregate, that of the whole.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        // SAFETY: the context is valid while the program runs. Volatile, here and below: the verifier
        // accepts only whole loads of a field, which the compiler could otherwise narrow or merge.
        unsafe { (&raw const (*self.skb).len).read_volatile() }
    }

    /// The interface at whose hook the program runs.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).ifindex).read_volatile() }
    }

    /// Whether the frame came with a VLAN tag, which the kernel keeps beside the packet.
    #[inline(always)]
    pub fn has_vlan_tag(&self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).vlan_present).read_volatile() != 0 }
    }

    /// Whether the frame is addressed to this interface's own MAC: `PACKET_HOST` of `if_packet.h`.
    #[inline(always)]
    pub fn is_for_this_host(&self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).pkt_type).read_volatile() == 0 }
    }

    /// Bytes of payload in each segment of an aggregate; 0 for a single packet.
    #[inline(always)]
    pub fn gso_size(&self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).gso_size).read_volatile() }
    }

    /// Brings the headers into linear memory, where drivers left them in fragments.
    #[inline(always)]
    pub fn pull_headers(&self) {
        self.pull(HEADERS);
    }

    /// Brings so many bytes into linear memory, or all there are if those are fewer.
    #[inline(always)]
    pub fn pull(&self, bytes: u32) {
        let wanted = self.len().min(bytes);
        if self.data() + wanted as usize > self.data_end() {
            // A failure shows at the next access, which finds the bytes missing.
            // SAFETY: the context is valid, and no pointer into the packet is held.
            unsafe { bpf_skb_pull_data(self.skb, wanted) };
        }
    }

    /// The header at `offset` bytes; [`Reason::Malformed`] where the packet ends before it does.
    ///
    /// Two headers that are held at a time must not overlap.
    #[expect(clippy::mut_from_ref, reason = "packet memory is not part of `self`; the verifier watches it")]
    #[inline(always)]
    pub fn header<T: Header>(&self, offset: usize) -> Walk<&mut T> {
        let () = T::IS_ALIGNED;
        let start = self.data() + offset;
        if start + size_of::<T>() > self.data_end() {
            return Err(Reason::Malformed);
        }
        // SAFETY: the bytes are inside the packet, any value of them is valid, and they are aligned.
        Ok(unsafe { &mut *(start as *mut T) })
    }

    /// The same value, of which the verifier knows nothing any more: it looks at what follows once, and not once for each
    /// value that leads there.
    #[inline(always)]
    pub fn veil(&self, value: u32) -> u32 {
        // No packet is that long, which neither the compiler nor the verifier knows.
        value ^ (self.len() >> 31)
    }

    /// Copies the first bytes, as many as fit and are there; gives how many.
    #[inline(always)]
    pub fn copy<const N: usize>(&self, bytes: &mut [u8; N]) -> u32 {
        let count = self.len().clamp(1, N as u32);
        // SAFETY: the context is valid, and there is room for so many bytes.
        let result = unsafe { bpf_skb_load_bytes(self.skb.cast(), 0, bytes.as_mut_ptr().cast(), count) };
        if result == 0 { count } else { 0 }
    }

    /// Goes on in another program, from the beginning of the packet; comes back only where there is none.
    #[inline(always)]
    pub fn go_on_in(&self, program: u32) {
        // SAFETY: the context is valid, and the packet is as it came.
        unsafe { NAT_PROGRAMS.tail_call(&TcContext::new(self.skb), program) };
    }

    /// Sets a transport checksum right after a change from `from` to `to`, as `flags` say
    /// (bpf-helpers(7), `bpf_l4_csum_replace`). One that the sender left to the device stays that.
    #[inline(always)]
    pub fn replace_checksum(&self, offset: usize, from: u32, to: u32, flags: u32) -> Walk<()> {
        // SAFETY: the context is valid, and no pointer into the packet is held.
        let result =
            unsafe { bpf_l4_csum_replace(self.skb, offset as u32, from.into(), to.into(), flags.into()) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).data_end).read_volatile() as usize }
    }
}
