//! New flows, in a program of their own: it begins anew with the verifier, and with the stack.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use dataplane_common::{
    names::{PROGRAM_TO_OPEN, program_of_hook},
    nat::{
        rule::Rule,
        settings::probe_row,
        state::{Rank, State},
        table::{Outcome, Pool, Refusal},
        tuple::Tuple,
    },
    reason::Reason,
    stats::Hook,
};

use super::{count, sweep, table};
use crate::packet::Packet;

/// The flow that a packet is in want of. Its program leaves it here for the one that opens it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Wish {
    tuple: Tuple,
    pool: Pool,
    /// Number of the first state.
    first: u32,
    /// Number of the hook.
    hook: u32,
}

/// This CPU's own: the programs at the hooks do not interrupt each other, and a traced one opens nothing.
#[btf_map]
static NAT_WISH: PerCpuArray<Wish, 1> = PerCpuArray::new();

/// Goes on in the program that opens the flow; comes back only where there is none.
#[inline(always)]
pub fn go_on(packet: &impl Packet, tuple: &Tuple, rule: &Rule, first: State, hook: Hook) -> Reason {
    if let Some(wish) = NAT_WISH.get_ptr_mut(0) {
        let pool = Pool { address: rule.address, first: rule.first_port, count: rule.ports };
        // SAFETY: this CPU's own value.
        unsafe { *wish = Wish { tuple: *tuple, pool, first: first as u32, hook: hook as u32 } };
        return packet.go_on_in(PROGRAM_TO_OPEN);
    }
    Reason::NatNoProgram
}

/// Opens the flow, and goes on in the program of the packet's hook, which knows it then; comes back where there is no
/// flow, with the reason.
#[inline(always)]
pub fn open(packet: &impl Packet) -> (Hook, Reason) {
    let (Some(wish), Some(table)) = (NAT_WISH.get_ptr(0), table()) else {
        return (Hook::FromContainer, Reason::NatContended); // the last rule has gone in this moment
    };
    // SAFETY: this CPU's own value, which nobody else writes before the packet has gone on.
    let wish = unsafe { &*wish };
    let hook = if wish.hook == Hook::FromUplink as u32 { Hook::FromUplink } else { Hook::FromContainer };
    let outcome = table.open(&wish.tuple, &wish.pool, State::from_number(wish.first as u8));
    sweep::if_neglected(&table);
    if outcome.is_new() {
        count_new(outcome);
    }
    let reason = match outcome.refusal() {
        None => packet.go_on_in(program_of_hook(hook)),
        Some(Refusal::Share) => Reason::NatShare,
        Some(Refusal::Full) => Reason::NatTableFull,
        Some(Refusal::Ports) => Reason::NatNoPort,
        Some(Refusal::Contended) => Reason::NatContended,
        Some(Refusal::Fault) => Reason::TableFault,
    };
    (hook, reason)
}

#[inline(always)]
fn count_new(outcome: Outcome) {
    count(|counters| {
        counters.opened += 1;
        counters.probes[probe_row(outcome.probes())] += 1;
        match outcome.displaced() {
            Rank::Ended => counters.displaced_ended += 1,
            Rank::HalfOpen => counters.displaced_half_open += 1,
            Rank::Gone | Rank::Established => {}
        }
    });
}
