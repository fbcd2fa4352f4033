//! The flow table's algorithm, on whatever memory holds it: BPF maps, or a test's arrays.

mod adopt;
mod claim;
mod open;
mod place;
mod record;
mod sweep;

use super::{
    bucket::{MAX_SLOTS, REFS, Ref, Refs},
    flow::{Flow, Life},
    settings::{Gauges, SHARES, Settings},
    state::{Direction, Rank, State},
    tuple::{Hash, Tuple},
};
use crate::{
    atomic::{Word32, Word64},
    net::Ipv4Be,
    repeat::Repeat,
};

pub use open::{Outcome, Pool, Refusal};
pub use sweep::{STRETCH, Swept};

/// Where the table lies. `None` only for numbers out of range.
pub trait Memory: Repeat {
    /// A bucket of the index for packets in that direction.
    fn refs(&self, direction: Direction, bucket: u32) -> Option<&Refs>;
    /// A record.
    fn flow(&self, slot: u32) -> Option<&Flow>;
    /// Which of 64 records are taken, the lowest bit for the first.
    fn taken(&self, word: u32) -> Option<&Word64>;
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
        let (refs, tag) = self.bucket(Direction::Out, tuple)?;
        self.follow(refs, tag, |flow| flow.is_out(tuple))
    }

    /// The flow of a reply, whose destination is a translated address.
    #[inline(always)]
    pub fn find_in(&self, tuple: &Tuple) -> Option<Hit<'a>> {
        let (refs, tag) = self.bucket(Direction::In, tuple)?;
        self.follow(refs, tag, |flow| flow.is_in(tuple))
    }

    /// The same as [`Self::find_out`], off every packet's way.
    #[inline(always)]
    pub fn search_out(&self, tuple: &Tuple) -> Option<Hit<'a>> {
        let (refs, tag) = self.bucket(Direction::Out, tuple)?;
        self.search(refs, tag, |flow| flow.is_out(tuple))
    }

    /// The same as [`Self::find_in`], off every packet's way.
    #[inline(always)]
    pub fn search_in(&self, tuple: &Tuple) -> Option<Hit<'a>> {
        let (refs, tag) = self.bucket(Direction::In, tuple)?;
        self.search(refs, tag, |flow| flow.is_in(tuple))
    }

    /// The bucket that leads to the flow of packets with that tuple, and the tag of its reference there.
    #[inline(always)]
    fn bucket(&self, direction: Direction, tuple: &Tuple) -> Option<(&'a Refs, u8)> {
        let hash = tuple.hash(self.settings.seed);
        Some((self.memory.refs(direction, hash.below(self.settings.buckets))?, hash.tag8()))
    }

    /// Follows the first reference with that tag, which is most often the only one.
    #[inline(always)]
    fn follow(&self, refs: &Refs, tag: u8, belongs: impl Fn(&Flow) -> bool) -> Option<Hit<'a>> {
        let first = refs.first(tag);
        if first == Ref::NONE {
            return None;
        }
        match self.hit(first.slot()) {
            Some(hit) if belongs(hit.flow) => Some(hit),
            _ => self.search(refs, tag, belongs),
        }
    }

    /// Follows every reference with that tag.
    #[inline(always)]
    fn search(&self, refs: &Refs, tag: u8, belongs: impl Fn(&Flow) -> bool) -> Option<Hit<'a>> {
        let mut found = MAX_SLOTS;
        self.memory.repeat(REFS, |place| {
            let reference = refs.get(place);
            let slot = reference.slot();
            if reference.has_tag(tag) && self.hit(slot).is_some_and(|hit| belongs(hit.flow)) {
                found = slot;
            }
            found == MAX_SLOTS
        });
        // Its life is looked at again: it is what `renew` compares with.
        self.hit(found).filter(|hit| belongs(hit.flow))
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

    /// Takes a dead record's reference out of the index for replies. Where the lock cannot be had it stays, and leads to a
    /// record that does not match.
    #[inline(always)]
    fn unlink(&self, flow: &Flow, slot: u32) {
        let Some((refs, _)) = self.bucket(Direction::In, &flow.reply()) else { return };
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

/// In which order the flows of a bucket give way to a new one: the lowest first.
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

    /// Whether a flow may have the place.
    #[inline(always)]
    fn gives_way(self) -> bool {
        self.0 < (Rank::Established as u64) << 32
    }

    /// Whether taking the place ends a flow that counts.
    #[inline(always)]
    fn frees_a_flow(self) -> bool {
        self > Self::DEAD
    }

    /// What gives way when the place is taken, as the number of its [`Rank`]: 0 where nothing that lives does.
    #[inline(always)]
    fn displaced(self) -> u8 {
        (self.0 >> 32) as u8
    }
}

#[cfg(test)]
mod tests;
