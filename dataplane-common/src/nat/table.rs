//! The flow table's algorithm, on whatever memory holds it: BPF maps, or a test's arrays.

mod adopt;
mod claim;
mod open;
mod sweep;

use super::{
    bucket::{LANES, MAX_SLOTS, REFS, Ref, Refs, Tags},
    flow::{Flow, Life},
    settings::{Gauges, SHARES, Settings},
    state::{Direction, Rank, State},
    tuple::{Hash, Tuple},
};
use crate::{atomic::Word32, net::Ipv4Be, repeat::Repeat};

pub use open::{Outcome, Pool, Refusal};
pub use sweep::Swept;

/// Where the table lies. `None` only for numbers out of range.
pub trait Memory: Repeat {
    /// A bucket of tags.
    fn tags(&self, bucket: u32) -> Option<&Tags>;
    /// A bucket of references.
    fn refs(&self, bucket: u32) -> Option<&Refs>;
    /// A record.
    fn flow(&self, slot: u32) -> Option<&Flow>;
    /// How many flows sources with that number have, below [`SHARES`].
    fn share(&self, index: u32) -> Option<&Word32>;
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
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// The record.
    pub flow: &'a Flow,
    /// Its number.
    pub slot: u32,
    /// Its life when it was found.
    pub life: Life,
}

impl<'a, M: Memory> Table<'a, M> {
    /// The flow of a packet out.
    #[inline(always)]
    pub fn find_out(&self, tuple: &Tuple) -> Option<Hit<'a>> {
        let hash = tuple.hash(self.settings.seed);
        let (bucket, tag) = (hash.below(self.settings.buckets), hash.tag16());
        // Most flows are at home, and then the record is the only cold cache line.
        if let Some(hit) = self.hit(bucket * LANES + hash.home())
            && hit.flow.is_out(tuple)
        {
            return Some(hit);
        }
        let tags = self.memory.tags(bucket)?;
        let mut lane = 0;
        while lane < LANES {
            if lane % 4 == 0 && !tags.may_have(lane, tag) {
                lane += 4;
                continue;
            }
            if tags.get(lane) == tag
                && let Some(hit) = self.hit(bucket * LANES + lane)
                && hit.flow.is_out(tuple)
            {
                return Some(hit);
            }
            lane += 1;
        }
        None
    }

    /// The same as [`Self::find_out`], off every packet's way.
    #[inline(always)]
    pub fn search_out(&self, tuple: &Tuple) -> Option<Hit<'a>> {
        let hash = tuple.hash(self.settings.seed);
        let (bucket, tag) = (hash.below(self.settings.buckets), hash.tag16());
        let tags = self.memory.tags(bucket)?;
        let mut found = MAX_SLOTS;
        self.memory.repeat(LANES, |lane| {
            let slot = bucket * LANES + lane;
            if tags.get(lane) == tag && self.hit(slot).is_some_and(|hit| hit.flow.is_out(tuple)) {
                found = slot;
            }
            found == MAX_SLOTS
        });
        // Its life is looked at again: it is what `renew` compares with.
        self.hit(found).filter(|hit| hit.flow.is_out(tuple))
    }

    /// The flow of a reply, whose destination is a translated address.
    #[inline(always)]
    pub fn find_in(&self, tuple: &Tuple) -> Option<Hit<'a>> {
        let hash = tuple.hash(self.settings.seed);
        let refs = self.memory.refs(hash.below(self.settings.buckets))?;
        let tag = hash.tag8();
        let mut place = 0;
        while place < REFS {
            let reference = refs.get(place);
            if reference.has_tag(tag)
                && let Some(hit) = self.hit(reference.slot())
                && hit.flow.is_in(tuple)
            {
                return Some(hit);
            }
            place += 1;
        }
        None
    }

    /// The same as [`Self::find_in`], off every packet's way.
    #[inline(always)]
    pub fn search_in(&self, tuple: &Tuple) -> Option<Hit<'a>> {
        let hash = tuple.hash(self.settings.seed);
        let refs = self.memory.refs(hash.below(self.settings.buckets))?;
        let mut found = MAX_SLOTS;
        self.memory.repeat(REFS, |place| {
            let reference = refs.get(place);
            let slot = reference.slot();
            if reference.has_tag(hash.tag8()) && self.hit(slot).is_some_and(|hit| hit.flow.is_in(tuple)) {
                found = slot;
            }
            found == MAX_SLOTS
        });
        self.hit(found).filter(|hit| hit.flow.is_in(tuple))
    }

    /// The flow in a slot, if it lives.
    #[inline(always)]
    pub fn hit(&self, slot: u32) -> Option<Hit<'a>> {
        let flow = self.memory.flow(slot)?;
        let life = Life::from_bits(flow.life.load());
        life.is_alive(self.now).then_some(Hit { flow, slot, life })
    }

    /// Lets a packet count for its flow; false where the flow has ended since it was found.
    #[inline(always)]
    pub fn renew(&self, hit: &Hit<'_>, direction: Direction, tcp_flags: u8) -> bool {
        let new = self.after(hit.life, direction, tcp_flags);
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
            let new = table.after(life, direction, tcp_flags);
            alive && !hit.flow.life.replace(life.to_bits(), new.to_bits())
        });
        alive
    }

    #[inline(always)]
    fn after(&self, life: Life, direction: Direction, tcp_flags: u8) -> Life {
        let progress = life.progress().after(direction, tcp_flags);
        life.at(progress, self.now + self.settings.timeout(progress.state))
    }

    /// Ends the flow if it is still as it was seen; says whether it ended by this.
    #[inline(always)]
    fn end(&self, flow: &Flow, seen: Life) -> bool {
        let source = flow.original().source;
        let ended = flow.life.replace(seen.to_bits(), seen.ended().to_bits());
        if ended {
            self.leave_share(source);
        }
        ended
    }

    #[inline(always)]
    fn share(&self, source: Ipv4Be) -> Option<&'a Word32> {
        self.memory.share(Hash::of_endpoint(0, source, 0, self.settings.seed).below(SHARES))
    }

    #[inline(always)]
    fn leave_share(&self, source: Ipv4Be) {
        if let (Some(share), Some(gauges)) = (self.share(source), self.memory.gauges()) {
            share.add(u32::MAX); // minus one
            gauges.flows.add(u32::MAX);
        }
    }

    /// Takes a dead record's reference out of its bucket. Where the lock cannot be had it stays, and leads to a
    /// record that does not match.
    #[inline(always)]
    fn unlink(&self, flow: &Flow, slot: u32) {
        let hash = flow.reply().hash(self.settings.seed);
        let Some(refs) = self.memory.refs(hash.below(self.settings.buckets)) else { return };
        if !refs.lock.take(self.memory) {
            return;
        }
        self.memory.repeat(REFS, |place| {
            let reference = refs.get(place);
            if reference != Ref::NONE && reference.slot() == slot {
                refs.set(place, Ref::NONE);
            }
            true
        });
        refs.lock.release();
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

/// In which order the lanes of a bucket are taken for a new flow: the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order(u64);

impl Order {
    const FREE: Self = Self(0);
    const DEAD: Self = Self(1);
    const EXPIRED: Self = Self(2);
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

    /// Whether a flow may have the lane.
    #[inline(always)]
    fn gives_way(self) -> bool {
        self.0 < (Rank::Established as u64) << 32
    }

    /// Whether taking the lane ends a flow that counts.
    #[inline(always)]
    fn frees_a_flow(self) -> bool {
        self > Self::DEAD
    }

    /// What gives way when the lane is taken, as the number of its [`Rank`]: 0 where nothing that lives does.
    #[inline(always)]
    fn displaced(self) -> u8 {
        (self.0 >> 32) as u8
    }
}

#[cfg(test)]
mod tests;
