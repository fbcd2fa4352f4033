//! New flows, in a program of their own: it begins anew with the verifier, and with the stack.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use dataplane_common::{
    names::{PROGRAM_FOR_FIRST, PROGRAM_TO_OPEN},
    nat::{
        rule::Rule,
        settings::probe_row,
        state::{Direction, Rank, State},
        table::{Outcome, Pool, Refusal},
        tuple::Tuple,
    },
    net::Ipv4Be,
    next_hop::NextHop,
    reason::Reason,
    stats::Hook,
};

use super::{
    count, fragment,
    outward::Known,
    sweep, table,
    transport::{self, Transport},
};
use crate::{ipv4, next_hop, packet::Packet, verdict::Walk};

/// The flow that a packet is in want of, and where the packet leaves by. Its program leaves it here for the one that
/// opens it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Wish {
    tuple: Tuple,
    /// Without ports where nobody left a wish.
    pool: Pool,
    /// Number of the first state.
    first: u32,
    /// Number of the hook.
    hook: u32,
    ifindex: u32,
    neighbour: Ipv4Be,
    /// Number of the flow, once it is open.
    slot: u32,
    reserved: u32,
}

/// This CPU's own: the programs at the hooks do not interrupt each other, and a traced one opens nothing.
///
/// Old and new programs share it during an upgrade: its name changes with its layout.
#[btf_map]
static NAT_WISH: PerCpuArray<Wish, 1> = PerCpuArray::new();

impl Wish {
    /// A flow by the rule, for a packet that was checked and leaves by the next hop.
    #[inline(always)]
    pub fn new(tuple: Tuple, rule: &Rule, first: State, next_hop: &NextHop, hook: Hook) -> Self {
        Self {
            tuple,
            pool: Pool { address: rule.address, first: rule.first_port, count: rule.ports },
            first: first as u32,
            hook: hook as u32,
            ifindex: next_hop.ifindex,
            neighbour: next_hop::neighbour(next_hop, tuple.destination),
            slot: 0,
            reserved: 0,
        }
    }

    /// Where the packet came in.
    #[inline(always)]
    fn hook(&self) -> Hook {
        if self.hook == Hook::FromUplink as u32 { Hook::FromUplink } else { Hook::FromContainer }
    }
}

/// Goes on in the program that opens the flow; comes back only where there is none.
#[inline(always)]
pub fn go_on(packet: &impl Packet, wish: &Wish) -> Reason {
    if let Some(place) = NAT_WISH.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe { *place = *wish };
        return packet.go_on_in(PROGRAM_TO_OPEN);
    }
    Reason::NatNoProgram
}

/// The wish that the packet's program left; `None` where that was another version's.
#[inline(always)]
fn wish() -> Option<&'static mut Wish> {
    // SAFETY: this CPU's own value, which nobody else writes before the packet's walk has ended.
    let wish = unsafe { &mut *NAT_WISH.get_ptr_mut(0)? };
    if wish.pool.count == 0 { None } else { Some(wish) }
}

/// Opens the flow, and goes on in the program that ends the walk; comes back where there is no flow, with the packet's
/// hook and the reason.
#[inline(always)]
pub fn open(packet: &impl Packet) -> (Hook, Reason) {
    let (Some(wish), Some(table)) = (wish(), table()) else {
        return (Hook::FromContainer, Reason::NatContended); // the last rule has gone in this moment
    };
    let outcome = table.open(&wish.tuple, &wish.pool, State::from_number(wish.first as u8));
    sweep::if_neglected(&table);
    if outcome.is_new() {
        count_new(outcome);
    }
    wish.slot = outcome.slot();
    let reason = match outcome.refusal() {
        None => packet.go_on_in(PROGRAM_FOR_FIRST),
        Some(Refusal::Share) => Reason::NatShare,
        Some(Refusal::Full) => Reason::NatTableFull,
        Some(Refusal::Ports) => Reason::NatNoPort,
        Some(Refusal::Contended) => Reason::NatContended,
        Some(Refusal::Fault) => Reason::TableFault,
    };
    (wish.hook(), reason)
}

/// Takes note of the exit of a packet whose flow was opened, and translates it; gives the hook that it came in by.
#[inline(always)]
pub fn translate_first(packet: &impl Packet) -> (Hook, Walk<()>) {
    let Some(wish) = wish() else { return (Hook::FromContainer, Err(Reason::NatContended)) };
    wish.pool.count = 0; // it is granted
    (wish.hook(), grant(packet, wish))
}

#[inline(always)]
fn grant(packet: &impl Packet, wish: &Wish) -> Walk<()> {
    packet.exit_to_neighbour(wish.ifindex, wish.neighbour)?;
    let ipv4 = ipv4::read(packet)?;
    let Transport::Flow(_, tcp_flags) = transport::read(packet, &ipv4, Direction::Out)? else {
        return Err(Reason::NatContended);
    };
    let table = table().ok_or(Reason::NatContended)?;
    // It ends at once only where another CPU takes its place.
    let hit = table.hit(wish.slot).filter(|hit| hit.flow.is_out(&wish.tuple));
    let hit = hit.ok_or(Reason::NatContended)?;
    if ipv4.is_first_fragment() {
        fragment::remember(&table, &ipv4, &hit);
    }
    Known { table, hit, tcp_flags }.apply(packet, &ipv4)
}

#[inline(always)]
fn count_new(outcome: Outcome) {
    count(|counters| {
        counters.opened += 1;
        if let Some(row) = counters.probes.get_mut(probe_row(outcome.probes())) {
            *row += 1;
        }
        match outcome.displaced() {
            Rank::Ended => counters.displaced_ended += 1,
            Rank::HalfOpen => counters.displaced_half_open += 1,
            Rank::Gone | Rank::Established => {}
        }
    });
}
