//! Flows that the daemon hands over: connections that the kernel decided.

use aya_ebpf::{
    btf_maps::{Array, RingBuf},
    helpers::bpf_get_prandom_u32,
    macros::btf_map,
};
use dataplane_common::{
    family::V4,
    flow::{
        offer::{Batch, Ends, OFFERS, Offer, Outcome, RING_BYTES, SAMPLE, Verb},
        record::{Binding, flags},
        state::{Direction, State},
        table::{Candidate, Ports, Request, Table},
        tuple::{Tuple, protocol},
    },
    net::Ipv4Be,
    route::Target,
};

use super::{Maps, count, table};
use crate::{next_hop, observe, route};

/// One daemon fills it, and runs the program on one CPU at a time.
#[btf_map]
static FLOW_OFFERS: Array<Batch, 1> = Array::new();

#[btf_map]
static FLOW_SEEN: RingBuf<Ends, { RING_BYTES as usize }> = RingBuf::new();

/// Names a connection to the daemon whose packet is left to the kernel, if it falls into the sample. No state is kept of those
/// that are not carried: which ones are worth a lookup shows by how many packets they have.
#[inline(always)]
pub fn sample(tuple: &Tuple<V4>) {
    // SAFETY: a helper without arguments.
    if observe::is_trace() || unsafe { bpf_get_prandom_u32() } % SAMPLE != 0 {
        return;
    }
    // Where the daemon is behind, or not there, the ring is full.
    if let Some(mut entry) = FLOW_SEEN.reserve(0) {
        entry.write(Ends::from(*tuple));
        entry.submit(0);
    }
}

/// Takes the next offer of the batch.
#[inline(always)]
pub fn offer() {
    let Some(batch) = FLOW_OFFERS.get_ptr_mut(0) else { return };
    // SAFETY: nobody else reads or writes it while the daemon waits for this run.
    let batch = unsafe { &mut *batch };
    let index = batch.next as usize;
    if batch.next >= batch.count || index >= OFFERS {
        return;
    }
    batch.next += 1;
    let Some(table) = table() else { return };
    let offer = &mut batch.offers[index];
    offer.outcome = take(&table, offer) as u16;
}

#[inline(always)]
fn take(table: &Table<'static, Maps>, offer: &mut Offer) -> Outcome {
    let (original, reply) = (offer.original.tuple(), offer.reply.tuple());
    let exit = exit(original.source, reply.source);
    let is_carried = offer.verb != Verb::End as u16 && exit != UNREACHABLE;
    if offer.verb == Verb::Check as u16 {
        return if is_carried { Outcome::Reachable } else { Outcome::Unreachable };
    }
    // What has one of the tuples and is another connection is over: the kernel tracks this one.
    if let Some(hit) = table.lookup_rarely(&original) {
        let is_same = hit.flow.original() == original && hit.flow.reply() == reply;
        if is_same && is_carried && table.lease(hit.slot, table.now + offer.lease) {
            offer.packets = carried(hit.slot);
            return Outcome::Carried;
        }
        table.end(hit.flow, hit.life);
    }
    if offer.verb == Verb::End as u16 || (is_carried && offer.verb == Verb::Renew as u16) {
        return Outcome::Ended;
    }
    if !is_carried {
        return Outcome::Unreachable;
    }
    if let Some(hit) = table.lookup_rarely(&reply) {
        table.end(hit.flow, hit.life);
    }
    insert(table, &original, &reply, exit as u32, offer)
}

#[inline(always)]
fn insert(
    table: &Table<'static, Maps>,
    original: &Tuple<V4>,
    reply: &Tuple<V4>,
    exit: u32,
    offer: &mut Offer,
) -> Outcome {
    let is_snat = reply.destination != original.source || reply.destination_port != original.source_port;
    let is_dnat = reply.source != original.destination || reply.source_port != original.destination_port;
    let is_tcp = original.protocol == protocol::TCP;
    let request = Request {
        original: *original,
        reply: *reply,
        ports: Ports { first: 0, more: 0 },
        chooses_port: 0,
        flags: u32::from(flags::BY_KERNEL)
            + u32::from(flags::SNAT) * u32::from(is_snat)
            + u32::from(flags::DNAT) * u32::from(is_dnat),
        state: if is_tcp { State::TcpEstablished } else { State::UdpReplied } as u32,
        binding: Binding::new(exit, 0, 0).to_bits(),
    };
    let outcome = table.insert_with(&request, Candidate::free(reply.destination_port).with_probes(0));
    if outcome.refusal().is_some() || !table.lease(outcome.slot(), table.now + offer.lease) {
        return Outcome::Refused;
    }
    offer.packets = 0;
    count(|stats| stats.opened += 1);
    Outcome::Carried
}

/// There is no way, or none that BPF carries.
const UNREACHABLE: u64 = u64::MAX;

/// The uplink by which packets of the original direction leave, 0 where they do not; [`UNREACHABLE`] unless BPF reaches both ends,
/// of which one at least is a container of this node.
#[inline(always)]
fn exit(one: Ipv4Be, other: Ipv4Be) -> u64 {
    let (one, other) = (route::lookup(one).target(), route::lookup(other).target());
    match (one, other) {
        (Some(Target::Endpoint(one)), Some(Target::Endpoint(other))) if one != other => 0,
        (Some(Target::NextHop(_)), Some(Target::Endpoint(_))) => 0,
        (Some(Target::Endpoint(_)), Some(Target::NextHop(index))) => {
            next_hop::interface(index).map_or(UNREACHABLE, u64::from)
        }
        _ => UNREACHABLE,
    }
}

/// Packets that the flow has carried.
#[inline(always)]
fn carried(slot: u32) -> u64 {
    match super::FLOW_COUNTS.get(slot) {
        Some(counts) => counts.packets(Direction::Original) + counts.packets(Direction::Reply),
        None => 0,
    }
}
