//! A packet at a tc hook: the kernel's socket buffer.

use core::{cell::Cell, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT, TC_ACT_UNSPEC,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh,
    },
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use dataplane_common::{net::Ipv4Be, reason::Reason};

use network_types::eth::EthHdr;

use super::Packet;
use crate::{ethernet, flow::FLOW_PROGRAMS, ipv4::Ipv4, verdict::Walk};

const AF_INET: u32 = 2;

/// Priority tags that are taken off. One is what devices send.
const PRIORITY_TAGS: usize = 2;

/// Where the control field is of a tag that is among the bytes, and the identifier in it (IEEE 802.1Q, 9.6).
const VLAN_CONTROL: usize = 14;
const VLAN_IDENTIFIER: u32 = 0xfff;

const REDIR_NEIGH: usize = size_of::<bpf_redir_neigh>();
const _: () = assert!(REDIR_NEIGH == 5 * size_of::<u32>());

/// The packet.
pub struct Skb {
    skb: *mut __sk_buff,
    exit: Cell<Exit>,
}

/// Where a packet leaves by.
#[derive(Clone, Copy)]
struct Exit {
    /// The uplink, or the host side of a veth.
    ifindex: u32,
    /// By an uplink: whom to send it to.
    neighbour: Ipv4Be,
}

impl Skb {
    /// Makes room for so many bytes behind the Ethernet header.
    #[inline(always)]
    pub fn make_room(&self, bytes: u32) -> Walk<()> {
        let flags = u64::from(BPF_F_ADJ_ROOM_NO_CSUM_RESET);
        // SAFETY: the context is valid, and no pointer into the packet is held.
        let result = unsafe { bpf_skb_adjust_room(self.skb, bytes as i32, BPF_ADJ_ROOM_MAC, flags) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    /// Overwrites the beginning of the packet; every byte was written.
    #[inline(always)]
    pub fn store<const N: usize>(&self, halves: &MaybeUninit<[u16; N]>) -> Walk<()> {
        let (bytes, flags) = (halves.as_ptr().cast(), u64::from(BPF_F_RECOMPUTE_CSUM));
        // SAFETY: the context is valid, and no pointer into the packet is held.
        let result = unsafe { bpf_skb_store_bytes(self.skb, 0, bytes, 2 * N as u32, flags) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    /// The packet of this run of the program.
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb, exit: Cell::new(Exit { ifindex: 0, neighbour: Ipv4Be::UNSPECIFIED }) }
    }
}

impl Skb {
    /// Whether the outermost tag is one of VLAN 0, wherever it is.
    #[inline(always)]
    fn has_priority_tag(&self) -> Walk<bool> {
        let control = if self.has_vlan_tag() {
            // SAFETY: as in `len`.
            unsafe { (&raw const (*self.skb).vlan_tci).read_volatile() }
        } else if ethernet::is_vlan(u16::from_be(self.header::<EthHdr>(0)?.ether_type)) {
            let control = self.header::<[u8; 2]>(VLAN_CONTROL).map_err(|_| Reason::Vlan)?;
            u16::from_be_bytes(*control).into()
        } else {
            return Ok(false);
        };
        Ok(control & VLAN_IDENTIFIER == 0)
    }
}

impl Packet for Skb {
    const IS_FRAME: bool = false;

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is valid while the program runs. Volatile, here and below: the verifier
        // accepts only whole loads of a field, which the compiler could otherwise narrow or merge.
        unsafe { (&raw const (*self.skb).len).read_volatile() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).ifindex).read_volatile() }
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).vlan_present).read_volatile() != 0 }
    }

    #[inline(always)]
    fn remove_priority_tags(&self) -> Walk<()> {
        for _ in 0..PRIORITY_TAGS {
            if !self.has_priority_tag()? {
                return Ok(());
            }
            // The next tag, if there is one, comes to lie beside the packet.
            // SAFETY: the context is valid, and no pointer into the packet is held.
            if unsafe { bpf_skb_vlan_pop(self.skb) } != 0 {
                return Err(Reason::Malformed);
            }
            self.pull_headers();
        }
        // The kernel would take off any number of them.
        if self.has_priority_tag()? { Err(Reason::Malformed) } else { Ok(()) }
    }

    /// `PACKET_HOST` of `if_packet.h`.
    #[inline(always)]
    fn is_for_this_host(&self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).pkt_type).read_volatile() == 0 }
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (&raw const (*self.skb).gso_size).read_volatile() }
    }

    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        // SAFETY: as in `len`.
        unsafe {
            (
                (&raw const (*self.skb).data).read_volatile() as usize,
                (&raw const (*self.skb).data_end).read_volatile() as usize,
            )
        }
    }

    /// What there is was pulled.
    #[inline(always)]
    fn missing(&self, _end: usize) -> Reason {
        Reason::Malformed
    }

    #[inline(always)]
    fn pull(&self, bytes: u32) {
        let wanted = self.len().min(bytes);
        let (data, data_end) = self.linear();
        if data + wanted as usize > data_end {
            // A failure shows at the next access, which finds the bytes missing.
            // SAFETY: the context is valid, and no pointer into the packet is held.
            unsafe { bpf_skb_pull_data(self.skb, wanted) };
        }
    }

    #[inline(always)]
    fn trim(&self, bytes: u32) -> Walk<()> {
        // SAFETY: the context is valid, and no pointer into the packet is held.
        let result = unsafe { bpf_skb_change_tail(self.skb, bytes, 0) };
        self.pull_headers();
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut u8, count: u32) -> bool {
        // SAFETY: the context is valid, and the caller has room for so many bytes.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, to.cast(), count) == 0 }
    }

    #[inline(always)]
    fn tail_call(&self, program: u32) {
        // SAFETY: the context is valid.
        unsafe { FLOW_PROGRAMS.tail_call(&TcContext::new(self.skb), program) };
    }

    #[inline(always)]
    fn go_on_in(&self, program: u32) -> Reason {
        self.tail_call(program);
        Reason::NatNoProgram
    }

    /// The kernel knows of an unfinished one, and so do the helpers.
    #[inline(always)]
    fn check_finished(&self, _ipv4: &Ipv4) -> Walk<()> {
        Ok(())
    }

    #[inline(always)]
    fn replace_checksum(&self, offset: usize, from: u32, to: u32, flags: u32) -> Walk<()> {
        // SAFETY: the context is valid, and no pointer into the packet is held.
        let result =
            unsafe { bpf_l4_csum_replace(self.skb, offset as u32, from.into(), to.into(), flags.into()) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn exit_to_container(&self, ifindex: u32) -> Walk<()> {
        self.exit.set(Exit { ifindex, neighbour: Ipv4Be::UNSPECIFIED });
        Ok(())
    }

    #[inline(always)]
    fn exit_to_neighbour(&self, ifindex: u32, neighbour: Ipv4Be) -> Walk<()> {
        self.exit.set(Exit { ifindex, neighbour });
        Ok(())
    }

    /// Without passing the veth's queue.
    #[inline(always)]
    fn deliver(&self) -> i32 {
        // SAFETY: a helper that takes integers.
        unsafe { bpf_redirect_peer(self.exit.get().ifindex, 0) as i32 }
    }

    /// The kernel knows or finds the MAC.
    #[inline(always)]
    fn forward(&self) -> i32 {
        let Exit { ifindex, neighbour } = self.exit.get();
        let mut to = MaybeUninit::<bpf_redir_neigh>::uninit();
        // `nh_family`, `ipv4_nh`, and what only an IPv6 address fills.
        for (index, word) in [AF_INET, neighbour.to_wire(), 0, 0, 0].into_iter().enumerate() {
            // SAFETY: within the structure. Volatile, or the compiler makes a call of memset.
            unsafe { to.as_mut_ptr().cast::<u32>().add(index).write_volatile(word) };
        }
        // SAFETY: the structure lives during the call and is as long as it says.
        unsafe { bpf_redirect_neigh(ifindex, to.as_mut_ptr(), REDIR_NEIGH as i32, 0) as i32 }
    }

    #[inline(always)]
    fn send_back(&self) -> i32 {
        // SAFETY: a helper that takes integers.
        unsafe { bpf_redirect(self.ifindex(), 0) as i32 }
    }

    /// Not "ok": other programs at the hook have their turn (`TCX_NEXT`; the next filter with clsact).
    #[inline(always)]
    fn pass() -> i32 {
        TC_ACT_UNSPEC
    }

    #[inline(always)]
    fn drop() -> i32 {
        TC_ACT_SHOT
    }
}
