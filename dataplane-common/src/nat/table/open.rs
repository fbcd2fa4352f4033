//! A new flow: its record, its port, and its place in both indexes.

use super::{
    super::{
        bucket::{LANES, MAX_SLOTS, Tags},
        flow::Life,
        state::{Rank, State},
        tuple::Tuple,
    },
    Memory, Order, Table,
    claim::Request,
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
            self.open_counted(tuple, pool, state, of_all >= self.settings.max_flows)
        };
        if !outcome.is_new() {
            share.add(u32::MAX); // minus one
            gauges.flows.add(u32::MAX);
        }
        outcome
    }

    #[inline(always)]
    fn open_counted(&self, tuple: &Tuple, pool: &Pool, state: State, full: bool) -> Outcome {
        let hash = tuple.hash(self.settings.seed);
        let bucket = hash.below(self.settings.buckets);
        let Some(tags) = self.memory.tags(bucket) else { return Outcome::refused(Refusal::Fault) };
        if !tags.lock.take(self.memory) {
            return Outcome::refused(Refusal::Contended);
        }
        let tag = hash.tag16();
        let mut choice = Choice { order: Order::NEVER, lane: 0 };
        if tags.any_may_have(tag) {
            choice = self.find_same(tuple, tags, bucket, tag);
        }
        let outcome = if choice.order > Order::EXPIRED && choice.order != Order::NEVER {
            Outcome::opened(bucket * LANES + choice.lane, 0, 0)
        } else {
            // One that has expired must end: a packet that found it in time could let it live on, beside the new one.
            if choice.order != Order::EXPIRED {
                let home = hash.home();
                let free = if tags.get(home) == 0 { home } else { tags.first_free() };
                choice = if free < LANES && !full {
                    Choice { order: Order::FREE, lane: self.settings.veil(free.into()) as u32 % LANES }
                } else {
                    self.choose(tags, bucket, full)
                };
            }
            self.place(tuple, pool, state, tags, bucket, tag, choice)
        };
        tags.lock.release();
        outcome
    }

    /// The lane of a flow with that tuple, which another packet has opened a moment before or which has expired;
    /// [`Order::NEVER`] where there is none. The caller holds the lock.
    #[inline(always)]
    fn find_same(&self, tuple: &Tuple, tags: &Tags, bucket: u32, tag: u16) -> Choice {
        let mut same = Choice { order: Order::NEVER, lane: 0 };
        self.memory.repeat(LANES, |lane| {
            if tags.get(lane) == tag
                && let Some(flow) = self.memory.flow(bucket * LANES + lane)
            {
                let order = Order::of(Life::from_bits(flow.life.load()), self.now);
                if order.frees_a_flow() && flow.is_out(tuple) {
                    same = Choice { order: Order(self.settings.veil(order.0)), lane };
                    return false;
                }
            }
            true
        });
        same
    }

    /// The lane for a new flow, of a bucket or a table that has no room. The caller holds the lock.
    #[inline(always)]
    fn choose(&self, tags: &Tags, bucket: u32, full: bool) -> Choice {
        let mut best = Choice { order: Order::NEVER, lane: 0 };
        self.memory.repeat(LANES, |lane| {
            let mut order = Order::FREE;
            if tags.get(lane) != 0
                && let Some(flow) = self.memory.flow(bucket * LANES + lane)
            {
                order = Order::of(Life::from_bits(flow.life.load()), self.now);
            }
            order = Order(self.settings.veil(order.0));
            if order < best.order && (!full || order.frees_a_flow()) {
                best = Choice { order, lane };
            }
            true
        });
        best
    }

    /// Puts the flow into the chosen lane. The caller holds the lock.
    #[expect(
        clippy::too_many_arguments,
        reason = "the second half of `open_counted`, apart for the lock's sake"
    )]
    #[inline(always)]
    fn place(
        &self,
        tuple: &Tuple,
        pool: &Pool,
        state: State,
        tags: &Tags,
        bucket: u32,
        tag: u16,
        Choice { order, lane }: Choice,
    ) -> Outcome {
        if !order.gives_way() {
            return Outcome::refused(Refusal::Full);
        }
        let slot = bucket * LANES + lane;
        let Some(flow) = self.memory.flow(slot) else { return Outcome::refused(Refusal::Fault) };
        if order != Order::FREE {
            let life = Life::from_bits(flow.life.load());
            // A packet may have come for it in this moment.
            if order.frees_a_flow() && (Order::of(life, self.now) != order || !self.end(flow, life)) {
                return Outcome::refused(Refusal::Contended);
            }
            self.unlink(flow, slot);
        }
        flow.write(tuple, pool.address, self.now);
        // The verifier wants to see that the index is a byte, of which the compiler knows more and proves less.
        let index = hint::black_box(state as u8);
        let deadline = self.now + self.settings.timeouts[usize::from(index)];
        let life = Life::from_bits(flow.life.load()).next(state, deadline);
        let claimed = self.claim(&Request { flow, slot, tuple, pool, life });
        if claimed.refusal == 0 {
            tags.set(lane, tag);
            Outcome::opened(slot, claimed.probes, Order(self.settings.veil(order.0)).displaced())
        } else {
            tags.set(lane, 0);
            Outcome(u64::from(claimed.refusal))
        }
    }
}

/// Where a flow goes.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Choice {
    order: Order,
    lane: u32,
}
