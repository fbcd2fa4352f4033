//! A packet at an XDP hook: a frame as the driver received it.

use core::cell::Cell;

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, xdp_action, xdp_md},
    btf_maps::{Array, DevMap, ProgramArray},
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use dataplane_common::{
    checksum,
    flow::tuple::protocol,
    names::PROGRAM_SLOTS,
    net::{Ipv4Be, MacPair},
    reason::Reason,
    uplink::{self, UPLINK_SLOTS, Uplink},
};
use network_types::eth::EthHdr;

use super::Packet;
use crate::{
    ethernet,
    ipv4::{self, Ipv4},
    neighbour,
    verdict::Walk,
};

/// The uplinks, by [`uplink::slot`].
#[btf_map]
static UPLINKS: Array<Uplink, { UPLINK_SLOTS as usize }> = Array::new();

/// The same as devices that frames can be redirected to.
#[btf_map]
static UPLINK_DEVICES: DevMap<{ UPLINK_SLOTS as usize }> = DevMap::new();

/// The programs that packets go on in.
#[btf_map]
static XDP_PROGRAMS: ProgramArray<{ PROGRAM_SLOTS as usize }> = ProgramArray::new();

/// The packet.
pub struct Frame {
    xdp: *mut xdp_md,
    /// All of it, with what lies outside of the linear bytes.
    len: u32,
    exit: Cell<Exit>,
}

/// Where a packet leaves by.
#[derive(Clone, Copy)]
struct Exit {
    slot: u32,
    macs: MacPair,
}

impl Frame {
    /// The packet of this run of the program.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        // SAFETY: a helper that reads the context, which is valid while the program runs.
        let len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
        Self { xdp: ctx.ctx, len, exit: Cell::new(Exit { slot: 0, macs: MacPair::NONE }) }
    }

    /// Whether some of the frame lies outside of the linear bytes.
    #[inline(always)]
    fn is_scattered(&self) -> bool {
        let (data, data_end) = self.linear();
        data + (self.len as usize) > data_end
    }
}

/// The uplink with that index, where frames to it or from it are carried.
#[inline(always)]
fn find_uplink(ifindex: u32) -> Option<&'static Uplink> {
    UPLINKS.get(uplink::slot(ifindex)).filter(|uplink| uplink.ifindex == ifindex)
}

/// Whether a port, as loaded, is one of tunnels for whose packets Linux leaves the inner checksum to a device: VXLAN and
/// its generic extension, Linux's own port for it, Geneve, GUE (IANA's registry; drivers/net/vxlan).
#[inline(always)]
fn is_tunnel(port: u16) -> bool {
    matches!(u16::from_be(port), 4789 | 4790 | 8472 | 6080 | 6081)
}

impl Packet for Frame {
    const IS_FRAME: bool = true;

    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid while the program runs. Volatile, here and below: the verifier
        // accepts only whole loads of a field, which the compiler could otherwise narrow or merge.
        unsafe { (&raw const (*self.xdp).ingress_ifindex).read_volatile() }
    }

    /// It is among the bytes: the daemon does not attach where a device takes tags off.
    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        false
    }

    /// With one, a frame is the kernel's: it puts the tag beside the packet, where tc takes it off.
    #[inline(always)]
    fn remove_priority_tags(&self) -> Walk<()> {
        Err(Reason::Vlan)
    }

    #[inline(always)]
    fn is_for_this_host(&self) -> bool {
        let (Some(uplink), Ok(header)) = (find_uplink(self.ifindex()), self.header::<EthHdr>(0)) else {
            return false;
        };
        header.dst_addr == uplink.mac.octets()
    }

    /// Aggregates are made later.
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        // SAFETY: as in `ifindex`.
        unsafe {
            (
                (&raw const (*self.xdp).data).read_volatile() as usize,
                (&raw const (*self.xdp).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn missing(&self, end: usize) -> Reason {
        if end > self.len as usize { Reason::Malformed } else { Reason::NeedsSkb }
    }

    #[inline(always)]
    fn pull(&self, _bytes: u32) {}

    /// It is rare, and tc can do it.
    #[inline(always)]
    fn trim(&self, _bytes: u32) -> Walk<()> {
        Err(Reason::NeedsSkb)
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut u8, count: u32) -> bool {
        // SAFETY: the context is valid, and the caller has room for so many bytes.
        unsafe { bpf_xdp_load_bytes(self.xdp, offset, to.cast(), count) == 0 }
    }

    #[inline(always)]
    fn tail_call(&self, program: u32) {
        // SAFETY: the context is valid.
        unsafe { XDP_PROGRAMS.tail_call(&XdpContext::new(self.xdp), program) };
    }

    #[inline(always)]
    fn go_on_in(&self, _program: u32) -> Reason {
        Reason::TcTranslates
    }

    /// A veth or a virtual machine's device hands over packets whose checksum is to be computed by the hardware that
    /// they leave by, and says so beside the bytes; a frame that is redirected loses that. The field holds the sum of
    /// the pseudo header then (`CHECKSUM_PARTIAL` in `linux/skbuff.h`). So does one finished packet in 65,536, which
    /// tc carries just as well.
    ///
    /// Of a packet in a tunnel over UDP it is the inner one that is unfinished: the outer checksum is then right, or none.
    #[inline(always)]
    fn check_finished(&self, ipv4: &Ipv4) -> Walk<()> {
        if ipv4.protocol == protocol::UDP {
            let [source, destination] = *self.header::<[u16; 2]>(ipv4::TRANSPORT)?;
            if is_tunnel(source) || is_tunnel(destination) {
                return Err(Reason::NeedsSkb);
            }
        }
        let Some((field, pseudo_header)) = ipv4::checksum_of_transport(self, ipv4)? else { return Ok(()) };
        if field == pseudo_header { Err(Reason::NeedsSkb) } else { Ok(()) }
    }

    #[inline(always)]
    fn replace_checksum(&self, offset: usize, from: u32, to: u32, flags: u32) -> Walk<()> {
        let field = self.header::<[u8; 2]>(offset)?;
        let old = u16::from_ne_bytes(*field);
        let zero_is_none = flags & BPF_F_MARK_MANGLED_0 != 0;
        if zero_is_none && old == 0 {
            return Ok(());
        }
        let new = checksum::after_change(old, from, to);
        *field = if zero_is_none && new == 0 { 0xffff } else { new }.to_ne_bytes();
        Ok(())
    }

    /// A container has a socket buffer made of each frame anyhow, and tc hands it over without passing a queue.
    #[inline(always)]
    fn exit_to_container(&self, _ifindex: u32) -> Walk<()> {
        Err(Reason::TcDelivers)
    }

    #[inline(always)]
    fn exit_to_neighbour(&self, ifindex: u32, neighbour: Ipv4Be) -> Walk<()> {
        let uplink = find_uplink(ifindex).ok_or(Reason::NoXdpExit)?;
        let needed = if self.is_scattered() { Uplink::TAKES_SCATTERED } else { Uplink::TAKES_FRAMES };
        if uplink.flags & needed == 0 {
            return Err(Reason::NoXdpExit);
        }
        let macs = neighbour::find(self.xdp.cast(), ifindex, neighbour)?;
        self.exit.set(Exit { slot: uplink::slot(ifindex), macs });
        Ok(())
    }

    /// Never asked for: see `exit_to_container`.
    #[inline(always)]
    fn deliver(&self) -> i32 {
        Self::pass()
    }

    #[inline(always)]
    fn forward(&self) -> i32 {
        let Exit { slot, macs } = self.exit.get();
        if ethernet::set_addresses(self, &macs).is_err() {
            return Self::drop();
        }
        // An uplink that went a moment ago: the packet is rewritten already.
        UPLINK_DEVICES.redirect(slot, u64::from(xdp_action::XDP_DROP)).unwrap_or(xdp_action::XDP_DROP) as i32
    }

    #[inline(always)]
    fn send_back(&self) -> i32 {
        xdp_action::XDP_TX as i32
    }

    #[inline(always)]
    fn pass() -> i32 {
        xdp_action::XDP_PASS as i32
    }

    #[inline(always)]
    fn drop() -> i32 {
        xdp_action::XDP_DROP as i32
    }
}
