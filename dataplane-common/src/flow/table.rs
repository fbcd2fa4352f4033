//! The flow table's algorithm, on whatever memory holds it: BPF maps, or a test's arrays.

mod adopt;
mod insert;
mod lease;
mod place;
mod reclaim;
mod record;
mod request;
mod search;
mod sweep;

use super::{
    counts::Counts,
    index::{Bucket, MAX_SLOTS, REFS, Ref},
    record::{Flow, Life},
    settings::{Gauges, Settings},
    state::{Direction, Rank, State},
    tuple::Tuple,
};
use crate::{
    atomic::{Word32, Word64},
    family::Family,
    repeat::Repeat,
};

pub use request::{ATTEMPTS, Outcome, Ports, Refusal, Request};
pub use search::Candidate;
pub use sweep::{STRETCH, Swept};

/// Where the table of one family lies. `None` only for numbers out of range.
pub trait Memory: Repeat {
    /// The family of its flows.
    type Family: Family;
    /// A bucket of the index.
    fn bucket(&self, number: u32) -> Option<&Bucket>;
    /// A record.
    fn flow(&self, slot: u32) -> Option<&Flow<Self::Family>>;
    /// The counters of a record's flow.
    fn counts(&self, slot: u32) -> Option<&Counts>;
    /// Which of 64 records are taken, the lowest bit for the first.
    fn taken(&self, word: u32) -> Option<&Word64>;
    /// How many flows count for that share, below [`SHARES`](super::settings::SHARES).
    fn share(&self, index: u32) -> Option<&Word32>;
    /// How many flows have a port towards a remote end, below [`PORT_USES`](super::settings::PORT_USES).
    fn port_use(&self, index: u32) -> Option<&Word32>;
    /// Whether translation may use a port of that protocol.
    fn is_usable(&self, protocol: u8, port: u16) -> bool;
    /// The gauges.
    fn gauges(&self) -> Option<&Gauges>;
}

/// The table at one moment.
pub struct Table<'a, M> {
    /// Where it lies.
    pub memory: &'a M,
    /// What the daemon has set.
    pub settings: &'a Settings,
    /// The time, in ticks.
    pub now: u32,
}

impl<M> Clone for Table<'_, M> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Table<'_, M> {}

/// A living flow that a packet belongs to.
#[derive(Debug)]
pub struct Hit<'a, F: Family> {
    /// The record.
    pub flow: &'a Flow<F>,
    /// Its number.
    pub slot: u32,
    /// Its life when it was found.
    pub life: Life,
    /// The packet's direction.
    pub direction: Direction,
}

impl<F: Family> Clone for Hit<'_, F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Family> Copy for Hit<'_, F> {}

impl<'a, M: Memory> Table<'a, M> {
    /// The flow of a packet with that tuple.
    #[inline(always)]
    pub fn lookup(&self, tuple: &Tuple<M::Family>) -> Option<Hit<'a, M::Family>> {
        let (bucket, tag) = self.bucket_of(tuple)?;
        // The first reference with that tag is most often the only one.
        let first = bucket.first(tag);
        if first == Ref::NONE {
            return None;
        }
        match self.hit(first.slot(), tuple) {
            None => self.lookup_further(bucket, tag, tuple),
            Some(hit) => Some(self.veiled(hit)),
        }
    }

    /// The same, but that the verifier does not know its direction: it would look at all that follows once for each.
    #[inline(always)]
    fn veiled(&self, hit: Hit<'a, M::Family>) -> Hit<'a, M::Family> {
        Hit { direction: Direction::from_bit(self.settings.veil(hit.direction as u64)), ..hit }
    }

    /// The same as [`Self::lookup`] in a loop that the verifier looks at once: where not every packet goes.
    #[inline(always)]
    pub fn lookup_rarely(&self, tuple: &Tuple<M::Family>) -> Option<Hit<'a, M::Family>> {
        let (bucket, tag) = self.bucket_of(tuple)?;
        // Most often there is no flow yet: seen without a call for each reference.
        if bucket.may_have(tag, self.settings.zero) { self.lookup_further(bucket, tag, tuple) } else { None }
    }

    /// Follows every reference with that tag.
    #[inline(always)]
    fn lookup_further(
        &self,
        bucket: &Bucket,
        tag: u8,
        tuple: &Tuple<M::Family>,
    ) -> Option<Hit<'a, M::Family>> {
        let mut found = MAX_SLOTS;
        self.memory.repeat(REFS, |place| {
            let reference = bucket.get(place);
            let slot = reference.slot();
            if reference.has_tag(tag) && self.hit(slot, tuple).is_some() {
                found = slot;
            }
            found == MAX_SLOTS
        });
        // Its life is looked at again: it is what `renew` compares with.
        Some(self.veiled(self.hit(found, tuple)?))
    }

    /// The bucket of a tuple, and the tag of its references there.
    #[inline(always)]
    fn bucket_of(&self, tuple: &Tuple<M::Family>) -> Option<(&'a Bucket, u8)> {
        let hash = tuple.hash(self.settings.seed);
        Some((self.memory.bucket(hash.below(self.settings.buckets))?, hash.tag8()))
    }

    /// The flow in a slot, if it lives and has that tuple.
    #[inline(always)]
    pub fn hit(&self, slot: u32, tuple: &Tuple<M::Family>) -> Option<Hit<'a, M::Family>> {
        let flow = self.memory.flow(slot)?;
        // Before the tuples: a record is written while it is dead, so what is read after a life that is the same later (see
        // `renew`) is that flow's.
        let life = Life::from_bits(flow.life.load_acquire());
        if !life.is_alive(self.now) {
            return None;
        }
        let direction = flow.direction_of(tuple)?;
        Some(Hit { flow, slot, life, direction })
    }

    /// The flow in a slot, if it is still the one that had that life.
    #[inline(always)]
    pub fn same_flow(&self, slot: u32, seen: Life, direction: Direction) -> Option<Hit<'a, M::Family>> {
        let flow = self.memory.flow(slot)?;
        let life = Life::from_bits(flow.life.load_acquire());
        if life.is_alive(self.now) && seen.is_same_flow(life) {
            Some(Hit { flow, slot, life, direction })
        } else {
            None
        }
    }

    /// Lets a packet count for its flow; false where the flow has ended since it was found.
    #[inline(always)]
    pub fn renew(&self, hit: &Hit<'_, M::Family>, tcp_flags: u8) -> bool {
        let new = self.after(hit.life, hit.direction, tcp_flags);
        if new == hit.life {
            return hit.life.is_same_flow(Life::from_bits(hit.flow.life.load()));
        }
        if hit.flow.life.replace(hit.life.to_bits(), new.to_bits()) {
            return true;
        }
        // Copies: what a loop's body refers to must lie on the stack, and this is not on every packet's way.
        let (table, hit) = (*self, *hit);
        // Another packet of the flow came first, or the flow has ended. Each round that fails, another succeeds.
        let mut alive = true;
        table.memory.repeat(4, |_| {
            let life = Life::from_bits(hit.flow.life.load());
            alive = hit.life.is_same_flow(life) && life.is_alive(table.now);
            let new = table.after(life, hit.direction, tcp_flags);
            alive && !hit.flow.life.replace(life.to_bits(), new.to_bits())
        });
        alive
    }

    #[inline(always)]
    fn after(&self, life: Life, direction: Direction, tcp_flags: u8) -> Life {
        life.after(direction, tcp_flags, self.settings.zero, |state| {
            self.now + self.settings.timeouts[usize::from(state)]
        })
    }
}

/// The rank of each state, in four bits.
const RANKS: u64 = {
    assert!(State::ALL.len() <= 16);
    let (mut ranks, mut number) = (0, 0);
    while number < State::ALL.len() {
        ranks |= (State::ALL[number].rank() as u64) << (number * 4);
        number += 1;
    }
    ranks
};

/// In which order flows are evicted by a new one: the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order(u64);

impl Order {
    const FREE: Self = Self(0);
    const DEAD: Self = Self(1);
    const EXPIRED: Self = Self(2);
    /// The least of all that live.
    const ALIVE: Self = Self((Rank::Ended as u64) << 32);
    /// The least of those that somebody may still use.
    const IN_USE: Self = Self((Rank::HalfOpen as u64) << 32);
    /// The least of those that are never evicted.
    const ESTABLISHED: Self = Self((Rank::Established as u64) << 32);
    const NEVER: Self = Self(u64::MAX);

    #[inline(always)]
    fn of(life: Life, now: u32) -> Self {
        // Looked up in a word rather than matched: the verifier goes on once for each arm of a match.
        let rank = RANKS >> (life.to_bits() % 16 * 4) & 0xf;
        if rank == Rank::Gone as u64 {
            Self::DEAD
        } else if life.deadline() <= now {
            Self::EXPIRED
        } else {
            Self(rank << 32 | u64::from(life.deadline()))
        }
    }

    /// Whether ending such a flow makes room for another one: it counts, and may be evicted.
    #[inline(always)]
    fn is_victim(self) -> bool {
        self > Self::DEAD && self < Self::ESTABLISHED
    }

    /// What is evicted, as the number of its [`Rank`]: 0 where nothing that lives is.
    #[inline(always)]
    fn rank(self) -> u8 {
        (self.0 >> 32) as u8
    }
}

#[cfg(test)]
pub(in crate::flow) mod tests;
