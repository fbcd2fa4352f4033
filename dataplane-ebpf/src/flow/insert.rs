//! New flows, in a program of their own: it begins anew with the verifier, and with the stack.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use dataplane_common::{
    family::V4,
    flow::{
        record::{Binding, flags},
        rule::Rule,
        settings::probe_row,
        state::{self, Rank},
        table::{ATTEMPTS, Candidate, Outcome, Ports, Refusal, Request},
        tuple::Tuple,
    },
    names::{PROGRAM_FOR_FIRST, PROGRAM_TO_INSERT, PROGRAM_TO_SEARCH},
    net::Ipv4Be,
    reason::Reason,
    stats::Hook,
};

use super::{
    Known, count, fragment, sweep, table,
    transport::{self, Transport},
};
use crate::{ipv4, observe, packet::Packet, verdict::Walk};

/// Where a packet goes once its flow is there. Numbers, as they lie in a map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Exit {
    /// One of the following.
    pub kind: u32,
    /// To a neighbour: the uplink. To a container: its index. To the kernel: the number of the reason.
    pub number: u32,
    /// The neighbour.
    pub neighbour: Ipv4Be,
    /// Number of the hook that it came in by.
    pub hook: u32,
}

impl Exit {
    /// To a neighbour.
    pub const FORWARD: u32 = 0;
    /// To a container.
    pub const DELIVER: u32 = 1;
    /// To the kernel.
    pub const PASS: u32 = 2;
}

/// A flow that a packet asks for, and where the packet goes. Its program leaves it here for the one that inserts it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Pending {
    request: Request<V4>,
    exit: Exit,
    /// Number of the flow, once it is there.
    slot: u32,
    /// A [`Candidate`].
    candidate: u64,
    /// How often a port was searched.
    attempts: u32,
    /// Not 0 while nobody has taken it up.
    is_pending: u32,
}

/// This CPU's own: the programs at the hooks do not interrupt each other, and a traced one inserts nothing.
///
/// Old and new programs share it during an upgrade: its name changes with its layout.
#[btf_map]
static FLOW_PENDING: PerCpuArray<Pending, 1> = PerCpuArray::new();

impl Pending {
    /// Where the packet came in.
    #[inline(always)]
    fn hook(&self) -> Hook {
        if self.exit.hook == Hook::FromUplink as u32 { Hook::FromUplink } else { Hook::FromContainer }
    }
}

/// Asks for a flow of the packet's that the rule translates; comes back only where there can be none, or in a trace, which
/// goes on as if it were there.
#[inline(always)]
pub fn begin_translated(
    packet: &impl Packet,
    tuple: &Tuple<V4>,
    tcp_flags: u8,
    rule: &Rule,
    address: Ipv4Be,
    binding: Binding,
    exit: Exit,
) -> Walk<()> {
    let state = state::first(tuple.protocol, tcp_flags).ok_or(Reason::NatNoFlow)? as u32;
    if address == Ipv4Be::UNSPECIFIED {
        return Err(Reason::NatNoAddress);
    }
    let mut reply = tuple.reversed();
    reply.destination = address;
    begin(
        packet,
        Request {
            original: *tuple,
            reply,
            ports: rule.ports,
            chooses_port: 1,
            flags: (flags::SNAT | flags::BY_MASQUERADE).into(),
            state,
            binding: binding.to_bits(),
        },
        exit,
    )
}

/// The same for a flow that was begun from outside, and whose answers are not translated.
#[inline(always)]
pub fn begin_untranslated(packet: &impl Packet, tuple: &Tuple<V4>, tcp_flags: u8, exit: Exit) -> Walk<()> {
    let state = state::first(tuple.protocol, tcp_flags).ok_or(Reason::NatNoFlow)? as u32;
    begin(
        packet,
        Request {
            original: *tuple,
            reply: tuple.reversed(),
            ports: Ports { first: 0, more: 0 },
            chooses_port: 0,
            flags: (flags::INBOUND | flags::BY_MASQUERADE).into(),
            state,
            binding: Binding::new(0, 0, 0).to_bits(),
        },
        exit,
    )
}

#[inline(always)]
fn begin(packet: &impl Packet, request: Request<V4>, exit: Exit) -> Walk<()> {
    if observe::is_trace() {
        return Ok(());
    }
    let Some(place) = FLOW_PENDING.get_ptr_mut(0) else { return Err(Reason::NatNoProgram) };
    // SAFETY: this CPU's own value.
    unsafe {
        *place = Pending {
            request,
            exit,
            slot: 0,
            candidate: Candidate::free(request.reply.destination_port).with_probes(0).to_bits(),
            attempts: 0,
            is_pending: 1,
        }
    };
    Err(packet.go_on_in(if request.chooses_port != 0 { PROGRAM_TO_SEARCH } else { PROGRAM_TO_INSERT }))
}

/// What the packet's program left; `None` where that was another version's.
#[inline(always)]
fn pending() -> Option<&'static mut Pending> {
    // SAFETY: this CPU's own value, which nobody else writes before the packet's walk has ended.
    let pending = unsafe { &mut *FLOW_PENDING.get_ptr_mut(0)? };
    if pending.is_pending == 0 { None } else { Some(pending) }
}

/// Searches a port for the flow, and goes on in the program that inserts it; comes back where there is none, with the packet's
/// hook and the reason.
#[inline(always)]
pub fn search(packet: &impl Packet) -> (Hook, Reason) {
    let (Some(pending), Some(table)) = (pending(), table()) else {
        return (Hook::FromContainer, Reason::NatContended); // the last rule has gone in this moment
    };
    sweep::if_neglected(&table);
    let candidate = table.search(&pending.request, pending.attempts);
    pending.attempts += 1;
    pending.candidate = candidate.to_bits();
    let reason = if candidate.is_none() { Reason::NatNoPort } else { packet.go_on_in(PROGRAM_TO_INSERT) };
    (pending.hook(), reason)
}

/// Inserts the flow, and goes on in the program that ends the walk; comes back where there is no flow, with the packet's
/// hook and the reason.
#[inline(always)]
pub fn insert(packet: &impl Packet) -> (Hook, Reason) {
    let (Some(pending), Some(table)) = (pending(), table()) else {
        return (Hook::FromContainer, Reason::NatContended); // the last rule has gone in this moment
    };
    let outcome = table.insert_with(&pending.request, Candidate::from_bits(pending.candidate));
    if outcome.is_new() {
        count_new(outcome);
    }
    pending.slot = outcome.slot();
    let reason = match outcome.refusal() {
        None => packet.go_on_in(PROGRAM_FOR_FIRST),
        Some(Refusal::Share) => Reason::NatShare,
        Some(Refusal::Full) => Reason::NatTableFull,
        Some(Refusal::Ports) => Reason::NatNoPort,
        Some(Refusal::Contended | Refusal::Clash) if is_searched_again(pending) => {
            packet.go_on_in(PROGRAM_TO_SEARCH)
        }
        Some(Refusal::Contended | Refusal::Clash) => Reason::NatContended,
        Some(Refusal::Fault) => Reason::TableFault,
    };
    (pending.hook(), reason)
}

/// Whether another port is searched, where another CPU was quicker with one.
#[inline(always)]
fn is_searched_again(pending: &Pending) -> bool {
    pending.request.chooses_port != 0 && pending.attempts < ATTEMPTS
}

/// Translates a packet whose flow was inserted; gives the hook that it came in by, and where it goes.
#[inline(always)]
pub fn finish_first(packet: &impl Packet) -> (Hook, Walk<Exit>) {
    let Some(pending) = pending() else { return (Hook::FromContainer, Err(Reason::NatContended)) };
    pending.is_pending = 0;
    (pending.hook(), translate(packet, pending).map(|()| pending.exit))
}

#[inline(always)]
fn translate(packet: &impl Packet, pending: &Pending) -> Walk<()> {
    let ipv4 = ipv4::read(packet)?;
    let Transport::Flow(tuple, tcp_flags) = transport::read(packet, &ipv4)? else {
        return Err(Reason::NatContended);
    };
    let table = table().ok_or(Reason::NatContended)?;
    // It ends at once only where another CPU takes its place.
    let hit = table.hit(pending.slot, &tuple).ok_or(Reason::NatContended)?;
    if ipv4.is_first_fragment() {
        fragment::remember(&table, &ipv4, &hit);
    }
    Known { table, hit, tcp_flags }.apply_outbound(packet, &ipv4)
}

#[inline(always)]
fn count_new(outcome: Outcome) {
    count(|stats| {
        stats.opened += 1;
        if outcome.probes() != 0 {
            stats.probes[probe_row(outcome.probes())] += 1;
        }
        match outcome.evicted() {
            Rank::Ended => stats.displaced_ended += 1,
            Rank::HalfOpen => stats.displaced_half_open += 1,
            Rank::Gone | Rank::Established => {}
        }
    });
}
