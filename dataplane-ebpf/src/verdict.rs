//! The end of a walk: counted first, then turned into what the hook returns.

use core::mem;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh},
    helpers::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
};
use dataplane_common::{
    monitor::{bit, bits},
    net::Ipv4Be,
    reason::{Class, Reason},
    stats::Hook,
};

use crate::{monitor, observe, packet::Packet};

/// A step's outcome: something to go on with, or the reason why the walk ends here.
pub type Walk<T> = Result<T, Reason>;

/// What BPF does with a packet that it carries itself; where to is in [`Packet::exit`].
///
/// Without fields: of an enum that has some, the compiler leaves the unused ones undefined, and the verifier
/// refuses a program that moves undefined values about.
pub enum Action {
    /// Into the container behind this veth, without passing the veth's queue.
    Deliver,
    /// To a neighbour by an uplink; the kernel knows or finds the MAC.
    Forward,
    /// Back to the container that asked.
    AnswerArp,
}

/// Where a packet leaves by.
#[derive(Clone, Copy)]
pub struct Exit {
    /// The uplink, or the host side of a veth.
    pub ifindex: u32,
    /// By an uplink: whom to send it to.
    pub neighbour: Ipv4Be,
}

/// Ends a walk at a tc hook.
#[inline(always)]
pub fn finish(hook: Hook, packet: &Packet, walk: Walk<Action>) -> i32 {
    let reason = match &walk {
        Ok(Action::Deliver) => Reason::Delivered,
        Ok(Action::Forward) => Reason::Forwarded,
        Ok(Action::AnswerArp) => Reason::ArpAnswered,
        Err(reason) => *reason,
    };
    observe::count(hook, reason, packet.len());
    let Exit { ifindex, neighbour } = packet.exit.get();
    match walk {
        Ok(Action::Deliver) => {
            // SAFETY: a helper that takes integers.
            unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
        }
        Ok(Action::AnswerArp) => {
            // SAFETY: a helper that takes integers.
            unsafe { bpf_redirect(ifindex, 0) as i32 }
        }
        Ok(Action::Forward) => {
            // SAFETY: integers, for which zero is valid.
            let mut to: bpf_redir_neigh = unsafe { mem::zeroed() };
            to.nh_family = AF_INET;
            to.__bindgen_anon_1.ipv4_nh = neighbour.to_wire();
            // SAFETY: the structure lives during the call and is as long as it says.
            unsafe { bpf_redirect_neigh(ifindex, &mut to, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
        }
        Err(reason) => {
            let reason = packet.veil(reason as u32);
            monitor::show(hook, packet, reason);
            if bits(Class::Drop) & bit(reason) != 0 { TC_ACT_SHOT } else { pass() }
        }
    }
}

/// Not "ok": other programs at the hook have their turn (`TCX_NEXT`; the next filter with clsact).
#[inline(always)]
pub fn pass() -> i32 {
    TC_ACT_UNSPEC
}

const AF_INET: u32 = 2;
