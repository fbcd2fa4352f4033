//! Packets of a node where the kernel decides (`netfilter = "respect"`): BPF carries what belongs to a connection that the
//! kernel has established, with the addresses that the kernel gave it, and leaves everything else to the kernel as it came.

use aya_ebpf::Global;
use dataplane_common::{reason::Reason, route::Target, trace::StepCode};

use crate::{
    endpoint,
    flow::{self, Known},
    hook::{deliver_checked, exit, forward_checked},
    ipv4::{self, Ipv4},
    next_hop, observe,
    packet::Packet,
    route, source,
    verdict::{Action, Walk},
};

/// 1 where the kernel decides. The verifier knows the value and removes the code of the other case.
#[unsafe(no_mangle)]
static RESPECT: Global<u8> = Global::new(0);

/// Whether the kernel decides.
#[inline(always)]
pub fn is_on() -> bool {
    RESPECT.load() != 0
}

/// The rest of the walk of a packet that a container sent: its source was checked.
#[inline(always)]
pub fn carry(packet: &impl Packet, ipv4: &Ipv4) -> Walk<Action> {
    match flow::carried(packet, ipv4) {
        Some(known) => carry_known(packet, ipv4, &known),
        None => Err(leave(ipv4)),
    }
}

/// The rest of the walk of a packet that came in by an uplink, for this host or by way of it.
#[inline(always)]
pub fn carry_from_uplink<P: Packet>(packet: &P, ipv4: &Ipv4) -> Walk<Action> {
    if P::IS_FRAME {
        return Err(Reason::TcTranslates);
    }
    let Some(known) = flow::carried(packet, ipv4) else { return Err(leave(ipv4)) };
    // With an address of this node's as its source it may belong to a flow all the same: the kernel's `rp_filter` decides.
    if source::lookup(ipv4.source).is_err() {
        return Err(Reason::KernelDecides);
    }
    carry_known(packet, ipv4, &known)
}

#[inline(always)]
fn carry_known(packet: &impl Packet, ipv4: &Ipv4, known: &Known) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    packet.check_finished(ipv4)?;
    let translated = known.translated();
    match route::lookup(translated.destination).target() {
        Some(Target::Endpoint(index)) => {
            let endpoint = endpoint::get(index)?;
            ipv4::check_size(packet, ipv4, endpoint.mtu)?;
            packet.exit_to_container(endpoint.ifindex)?;
            known.carry(packet, ipv4, &translated)?;
            deliver_checked(packet, endpoint)
        }
        Some(Target::NextHop(index)) => {
            let next_hop = next_hop::get(index)?;
            // The kernel tells the sender of a shorter way, if it is to.
            if next_hop.ifindex == packet.ifindex() {
                return Err(Reason::KernelDecides);
            }
            if known.has_moved_to(next_hop.ifindex) {
                known.end();
                return Err(Reason::KernelDecides);
            }
            ipv4::check_size(packet, ipv4, next_hop.mtu)?;
            exit(packet, translated.destination, next_hop)?;
            known.carry(packet, ipv4, &translated)?;
            forward_checked(packet)
        }
        _ => Err(Reason::KernelDecides),
    }
}

/// Leaves the packet to the kernel, whoever it is for: nothing more is looked up for it than its flow, but for a trace.
#[inline(always)]
fn leave(ipv4: &Ipv4) -> Reason {
    if observe::is_trace() {
        let entry = route::lookup(ipv4.destination);
        observe::step(StepCode::RouteLookup, [ipv4.destination.to_host(), entry.to_bits(), 0]);
    }
    Reason::KernelDecides
}
