//! A new flow: its record, its port, and its place in both indexes.

use super::{
    super::{
        bucket::{MAX_SLOTS, REFS, Ref, Refs},
        flow::Life,
        state::{Direction, Rank, State},
        tuple::{Hash, Tuple},
    },
    Memory, Order, Table,
    claim::Request,
    place::Found,
};
use core::hint;

use crate::net::Ipv4Be;

/// Where translated ports come from.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// The address.
    pub address: Ipv4Be,
    /// The first port, or echo identifier; host byte order.
    pub first: u16,
    /// How many, at least one.
    pub count: u16,
}

/// Why there is no new flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The source has its share of the table.
    Share = 1,
    /// No place that may be taken.
    Full = 2,
    /// Every probed port is taken towards this destination.
    Ports = 3,
    /// Another CPU held a lock too long.
    Contended = 4,
    /// A table is smaller than the settings say: a fault.
    Fault = 5,
}

/// What became of the wish for a flow.
///
/// One word rather than an enum with fields: of such an enum the compiler leaves unused parts undefined, and the
/// verifier refuses a program that moves them about.
///
/// ```text
///  63       40 39      16 15     8 7      0
/// +-----------+----------+--------+--------+
/// | 0 | rank  |   slot   | probes | refusal|
/// +-----------+----------+--------+--------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome(u64);

impl Outcome {
    #[inline(always)]
    const fn opened(slot: u32, probes: u32, displaced: u8) -> Self {
        Self((displaced as u64) << 40 | (slot as u64) << 16 | (probes as u64) << 8)
    }

    /// No flow.
    #[inline(always)]
    pub const fn refused(refusal: Refusal) -> Self {
        Self(refusal as u64)
    }

    /// Takes the word.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Why there is no flow; `None` where there is one.
    #[inline(always)]
    pub const fn refusal(self) -> Option<Refusal> {
        match self.0 as u8 {
            0 => None,
            1 => Some(Refusal::Share),
            2 => Some(Refusal::Full),
            3 => Some(Refusal::Ports),
            4 => Some(Refusal::Contended),
            _ => Some(Refusal::Fault),
        }
    }

    /// The flow's slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> 16) as u32 & (MAX_SLOTS - 1)
    }

    /// Probes that the port took; 0 where another packet had opened the flow a moment before.
    #[inline(always)]
    pub const fn probes(self) -> u32 {
        (self.0 >> 8) as u8 as u32
    }

    /// What gave way to the flow: [`Rank::Gone`] where nothing that counts did.
    #[inline(always)]
    pub const fn displaced(self) -> Rank {
        match (self.0 >> 40) as u8 {
            1 => Rank::Ended,
            2 => Rank::HalfOpen,
            _ => Rank::Gone,
        }
    }

    /// Whether the flow is there by this wish, and was not there before.
    #[inline(always)]
    pub const fn is_new(self) -> bool {
        self.0 as u8 == 0 && self.probes() != 0
    }
}

impl core::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.refusal() {
            Some(refusal) => write!(f, "refused: {refusal:?}"),
            None => {
                write!(f, "slot {}, {} probes, displaced {:?}", self.slot(), self.probes(), self.displaced())
            }
        }
    }
}

impl<M: Memory> Table<'_, M> {
    /// Opens a flow for a packet out that has none. Where it is refused nothing has changed, but that expired
    /// flows may have ended.
    #[inline(always)]
    pub fn open(&self, tuple: &Tuple, pool: &Pool, state: State) -> Outcome {
        let (Some(share), Some(gauges)) = (self.share(tuple.source), self.memory.gauges()) else {
            return Outcome::refused(Refusal::Fault);
        };
        // Counted first, so that two CPUs cannot both take the last one.
        let of_source = share.add(1);
        let of_all = gauges.flows.add(1);
        let outcome = if of_source >= self.settings.max_flows_per_source {
            Outcome::refused(Refusal::Share)
        } else {
            self.open_counted(tuple, pool, state, of_all)
        };
        if !outcome.is_new() {
            share.add(u32::MAX); // minus one
            gauges.flows.add(u32::MAX);
        }
        outcome
    }

    /// The same, of a flow that is counted already; `others` are all but it.
    #[inline(always)]
    fn open_counted(&self, tuple: &Tuple, pool: &Pool, state: State, others: u32) -> Outcome {
        let hash = tuple.hash(self.settings.seed);
        let Some(refs) = self.memory.refs(Direction::Out, hash.below(self.settings.buckets)) else {
            return Outcome::refused(Refusal::Fault);
        };
        if !refs.lock.take(self.memory) {
            return Outcome::refused(Refusal::Contended);
        }
        let found = self.look(refs, hash.tag8(), Order::ALIVE, |flow| flow.is_out(tuple));
        let outcome = if found.is_taken {
            // By another packet, a moment before.
            Outcome::opened(refs.get(found.place).slot(), 0, 0)
        } else {
            let choice = self.choose(refs, found, hash, others);
            self.place(&Wanted { tuple, pool, state, hash }, refs, choice)
        };
        refs.lock.release();
        outcome
    }

    /// The place and the record for a new flow. The caller holds the lock.
    #[inline(always)]
    fn choose(&self, refs: &Refs, Found { place, ended, .. }: Found, hash: Hash, others: u32) -> Choice {
        let full = others >= self.settings.max_flows && ended == Order::FREE;
        if place < REFS && !full {
            let reference = refs.get(place);
            if reference != Ref::NONE {
                return Choice { order: Order::DEAD, place, slot: reference.slot() };
            }
            let slot = self.take_record(hash);
            if slot != MAX_SLOTS {
                return Choice { order: Order::FREE, place, slot };
            }
        }
        self.choose_victim(refs, full)
    }

    /// The flow of a bucket that gives way, in a bucket or a table that has no room. The caller holds the lock.
    #[inline(always)]
    fn choose_victim(&self, refs: &Refs, full: bool) -> Choice {
        let mut best = Choice { order: Order::NEVER, place: 0, slot: 0 };
        self.memory.repeat(REFS, |place| {
            let reference = refs.get(place);
            if reference != Ref::NONE
                && let Some(flow) = self.memory.flow(reference.slot())
            {
                let order = Order::of(Life::from_bits(flow.life.load()), self.now);
                let order = Order(self.settings.veil(order.0));
                if order < best.order && (!full || order.frees_a_flow()) {
                    best = Choice { order, place, slot: reference.slot() };
                }
            }
            true
        });
        best
    }

    /// Puts the flow into the chosen record. The caller holds the lock.
    #[inline(always)]
    fn place(&self, wanted: &Wanted<'_>, refs: &Refs, choice: Choice) -> Outcome {
        let Choice { order, place, slot } = choice;
        if !order.gives_way() {
            return Outcome::refused(Refusal::Full);
        }
        let Some(flow) = self.memory.flow(slot) else { return Outcome::refused(Refusal::Fault) };
        if order != Order::FREE {
            let life = Life::from_bits(flow.life.load());
            // A packet may have come for it in this moment.
            if order.frees_a_flow() && (Order::of(life, self.now) != order || !self.end(flow, life)) {
                return Outcome::refused(Refusal::Contended);
            }
            self.unlink(flow, slot);
        }
        let &Wanted { tuple, pool, state, hash } = wanted;
        flow.write(tuple, pool.address, self.now);
        // The verifier wants to see that the index is a byte, of which the compiler knows more and proves less.
        let index = hint::black_box(state as u8);
        let deadline = self.now + self.settings.timeouts[usize::from(index)];
        let life = Life::from_bits(flow.life.load()).next(state, deadline);
        let claimed = self.claim(&Request { flow, slot, tuple, pool, life });
        if claimed.refusal == 0 {
            refs.set(place, Ref::new(hash.tag8(), slot));
            let displaced = Order(self.settings.veil(order.0)).displaced().max(claimed.displaced);
            Outcome::opened(slot, claimed.probes, displaced)
        } else {
            refs.set(place, Ref::NONE);
            self.free_record(slot);
            Outcome(u64::from(claimed.refusal))
        }
    }
}

/// A flow to be.
struct Wanted<'a> {
    tuple: &'a Tuple,
    pool: &'a Pool,
    state: State,
    hash: Hash,
}

/// Where a flow goes.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Choice {
    order: Order,
    place: u32,
    slot: u32,
}
