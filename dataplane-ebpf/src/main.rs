//! The BPF programs: entry points only. A packet's walk is in `hook`, its end in `verdict`.

#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the classifier macro wraps the functions in undocumented ones")]

mod arp;
mod endpoint;
mod ethernet;
mod flow;
mod hook;
mod ipv4;
mod monitor;
mod neighbour;
mod next_hop;
mod observe;
mod options;
mod packet;
mod reject;
mod repeat;
mod route;
mod source;
mod verdict;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use dataplane_common::stats::Hook;

use crate::packet::{Packet as _, frame::Frame, skb::Skb};

/// tc ingress of a workload veth.
#[classifier]
#[inline(always)]
pub fn from_container(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    verdict::finish(Hook::FromContainer, &packet, hook::from_container::walk(&packet))
}

/// tc ingress of an uplink.
#[classifier]
#[inline(always)]
pub fn from_uplink(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    verdict::finish(Hook::FromUplink, &packet, hook::from_uplink::walk(&packet))
}

/// XDP of an uplink: the same walk, before there is a socket buffer. What it passes goes on to `from_uplink`.
#[xdp(frags)]
#[inline(always)]
pub fn xdp_from_uplink(ctx: XdpContext) -> u32 {
    let packet = Frame::new(&ctx);
    verdict::finish(Hook::XdpFromUplink, &packet, hook::from_uplink::walk(&packet)) as u32
}

/// tc ingress of a workload veth that is no endpoint yet, or any more: what a container needs for its set-up passes.
///
/// Making a TCX link waits for an RCU grace period, some ten milliseconds; updating one does not. With this
/// program in place, a new container is served from the moment when its route appears.
#[classifier]
pub fn waiting(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    verdict::finish(Hook::FromContainer, &packet, hook::waiting::walk(&packet))
}

/// Decides about a packet that a container sent and that belongs to no known flow.
#[classifier]
pub fn decide_from_container(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    verdict::finish(Hook::FromContainer, &packet, hook::decide::walk(&packet, Hook::FromContainer))
}

/// Decides about a packet that came in by an uplink and belongs to no known flow.
#[classifier]
pub fn decide_from_uplink(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    verdict::finish(Hook::FromUplink, &packet, hook::decide::walk(&packet, Hook::FromUplink))
}

/// Goes on with a packet that came in by an uplink as it is to go on, and whose answers must be known as answers.
#[classifier]
pub fn tracked_from_uplink(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    verdict::finish(Hook::FromUplink, &packet, hook::tracked::walk(&packet))
}

/// Searches a port for the flow that one of the two above asked for.
#[classifier]
pub fn flow_search(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    let (hook, reason) = flow::search(&packet);
    verdict::finish(hook, &packet, Err(reason))
}

/// Inserts the flow.
#[classifier]
pub fn flow_insert(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    let (hook, reason) = flow::insert(&packet);
    verdict::finish(hook, &packet, Err(reason))
}

/// Ends the walk of a packet whose flow was inserted.
#[classifier]
pub fn flow_first(ctx: TcContext) -> i32 {
    let packet = Skb::new(&ctx);
    let (hook, walk) = hook::first::walk(&packet);
    verdict::finish(hook, &packet, walk)
}

/// Drops a packet, and tells who sent it by an ICMP error.
#[classifier]
pub fn reject(ctx: TcContext) -> i32 {
    reject::answer(&Skb::new(&ctx))
}

/// Shows a packet that is dropped or left to the kernel to those who listen, and ends it.
#[classifier]
pub fn show(ctx: TcContext) -> i32 {
    monitor::show(&Skb::new(&ctx))
}

/// The same at XDP.
#[xdp(frags)]
pub fn xdp_show(ctx: XdpContext) -> u32 {
    monitor::show(&Frame::new(&ctx)) as u32
}

/// Sweeps some records of the flow table. The daemon runs it by `BPF_PROG_TEST_RUN`, on no packet.
#[classifier]
pub fn flow_sweep(_ctx: TcContext) -> i32 {
    flow::sweep();
    Skb::pass()
}

/// Takes over a flow that the kernel's connection tracking decided. The daemon runs it by `BPF_PROG_TEST_RUN`, on no
/// packet, once for each that it offers.
#[classifier]
pub fn flow_offer(_ctx: TcContext) -> i32 {
    flow::offer();
    Skb::pass()
}

// bpf_redirect_peer and other helpers are open to any licence but this one is asked for by several more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

unsafe extern "C" {
    /// Nowhere defined: a program in which a panic can be reached does not load.
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never called, since nothing that calls it loads.
    unsafe { a_panic_can_be_reached() }
}
