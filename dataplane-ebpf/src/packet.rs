//! A packet at a hook: the only module that touches packet memory and the hooks' contexts.

pub mod frame;
pub mod skb;

use core::hint;

use dataplane_common::{net::Ipv4Be, reason::Reason};

use crate::{ipv4::Ipv4, verdict::Walk};

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
// SAFETY: as above.
unsafe impl<const N: usize> Header for [u16; N] {}

/// A packet at a hook. The walks are the same for all; what differs is here.
///
/// What a hook cannot do ends the walk with a reason, before anything is rewritten.
pub trait Packet {
    /// Whether the kernel has nothing beside the bytes yet: no aggregate, no state of the checksum. What is not plain
    /// (fragments, ICMP errors, new flows) is left to a hook that has a socket buffer.
    const IS_FRAME: bool;

    /// Length of the frame in bytes, Ethernet header included; for an aggregate, that of the whole.
    fn len(&self) -> u32;

    /// The interface at whose hook the program runs.
    fn ifindex(&self) -> u32;

    /// Whether the frame came with a VLAN tag, which the kernel keeps beside the packet.
    fn has_vlan_tag(&self) -> bool;

    /// Takes off the outermost tags as long as they are priority tags (VLAN 0); [`Reason::Malformed`] where there are more
    /// than anybody would send. The headers are in linear memory afterwards.
    fn remove_priority_tags(&self) -> Walk<()>;

    /// Whether the frame is addressed to this interface's own MAC.
    fn is_for_this_host(&self) -> bool;

    /// Bytes of payload in each segment of an aggregate; 0 for a single packet.
    fn gso_size(&self) -> u32;

    /// Where the linear bytes begin, and where they end.
    fn linear(&self) -> (usize, usize);

    /// Why the bytes up to `end` are not among the linear ones.
    fn missing(&self, end: usize) -> Reason;

    /// Brings so many bytes into linear memory, or all there are if those are fewer.
    fn pull(&self, bytes: u32);

    /// Cuts off what follows so many bytes, of which there are more. The headers are in linear memory afterwards.
    fn trim(&self, bytes: u32) -> Walk<()>;

    /// Copies so many bytes from `offset` on; says whether they are there.
    ///
    /// # Safety
    ///
    /// There is room for them.
    unsafe fn load(&self, offset: u32, to: *mut u8, count: u32) -> bool;

    /// The byte at `offset`, wherever that is.
    #[inline(always)]
    fn byte(&self, offset: u32) -> Walk<u8> {
        let mut byte = 0;
        // SAFETY: there is room for one.
        if unsafe { self.load(offset, &raw mut byte, 1) } { Ok(byte) } else { Err(Reason::Malformed) }
    }

    /// Copies the first bytes, as many as fit and are there; gives how many.
    #[inline(always)]
    fn copy<const N: usize>(&self, bytes: &mut [u8; N]) -> u32 {
        // Linux 6.1 takes a length only if that very value was compared, and not one that it is a copy of; and what
        // is not zero may be zero there. So the compiler is not to know what follows from the line before.
        let last = hint::black_box(self.len().clamp(1, N as u32) - 1);
        if last >= N as u32 {
            return 0;
        }
        let count = last + 1;
        // SAFETY: there are N bytes.
        if unsafe { self.load(0, bytes.as_mut_ptr(), count) } { count } else { 0 }
    }

    /// Goes on in another program of the same kind of hook; comes back only where there is none.
    fn tail_call(&self, program: u32);

    /// Goes on in another program, from the beginning of the packet; comes back only where it cannot, with the reason.
    fn go_on_in(&self, program: u32) -> Reason;

    /// Whether the transport checksum is the sender's final word, as far as the hook must care.
    fn check_finished(&self, ipv4: &Ipv4) -> Walk<()>;

    /// Sets a transport checksum right after a change from `from` to `to`, as `flags` say
    /// (bpf-helpers(7), `bpf_l4_csum_replace`). One that the sender left to the device stays that.
    fn replace_checksum(&self, offset: usize, from: u32, to: u32, flags: u32) -> Walk<()>;

    /// Takes note that the packet goes to the container behind that veth. Nothing is rewritten yet.
    fn exit_to_container(&self, ifindex: u32) -> Walk<()>;

    /// Takes note that the packet goes to that neighbour by that uplink. Nothing is rewritten yet.
    fn exit_to_neighbour(&self, ifindex: u32, neighbour: Ipv4Be) -> Walk<()>;

    /// Hands the packet to the container; gives what the program returns, as all of the following.
    fn deliver(&self) -> i32;

    /// Sends the packet to the neighbour.
    fn forward(&self) -> i32;

    /// Sends the packet back by the interface that it came by.
    fn send_back(&self) -> i32;

    /// Leaves the packet to who comes next.
    fn pass() -> i32;

    /// Ends the packet.
    fn drop() -> i32;

    /// Brings the headers into linear memory, where drivers left them in fragments.
    #[inline(always)]
    fn pull_headers(&self) {
        self.pull(HEADERS);
    }

    /// The header at `offset` bytes; [`Reason::Malformed`] where the packet ends before it does.
    ///
    /// Two headers that are held at a time must not overlap.
    #[expect(clippy::mut_from_ref, reason = "packet memory is not part of `self`; the verifier watches it")]
    #[inline(always)]
    fn header<T: Header>(&self, offset: usize) -> Walk<&mut T> {
        let () = T::IS_ALIGNED;
        let (data, data_end) = self.linear();
        let start = data + offset;
        if start + size_of::<T>() > data_end {
            return Err(self.missing(offset + size_of::<T>()));
        }
        // SAFETY: the bytes are inside the packet, any value of them is valid, and they are aligned.
        Ok(unsafe { &mut *(start as *mut T) })
    }

    /// The same value, of which the verifier knows nothing any more: it looks at what follows once, and not once for each
    /// value that leads there.
    #[inline(always)]
    fn veil(&self, value: u32) -> u32 {
        // No packet is that long, which neither the compiler nor the verifier knows.
        value ^ (self.len() >> 31)
    }
}
