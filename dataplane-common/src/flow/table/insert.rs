//! A new flow: its record, its port, and its places in the index.

use core::hint;

use super::{
    super::{
        index::{MAX_SLOTS, REFS, Ref},
        record::{Binding, Life},
        state::{Progress, State},
        tuple::Tuple,
    },
    ATTEMPTS, Memory, Order, Outcome, Refusal, Request, Table,
    place::Room,
    search::Candidate,
};

impl<M: Memory> Table<'_, M> {
    /// Inserts a flow for a packet that has none. Where it is refused no other flow has ended for it, but for one that lost a
    /// race against its own packet.
    ///
    /// A program that chooses a port does the two steps itself, each in a program of its own: [`Self::search`] and
    /// [`Self::insert_with`], again as long as the outcome [is worth it](Outcome::is_worth_another_try).
    pub fn insert(&self, request: &Request<M::Family>) -> Outcome {
        let mut outcome = Outcome::refused(Refusal::Ports);
        for attempt in 0..ATTEMPTS {
            let candidate = match request.chooses_port {
                0 => Candidate::free(request.reply.destination_port).with_probes(0),
                _ => self.search(request, attempt),
            };
            if candidate.is_none() {
                return Outcome::refused(Refusal::Ports);
            }
            outcome = self.insert_with(request, candidate);
            if !outcome.is_worth_another_try() || request.chooses_port == 0 {
                break;
            }
        }
        outcome
    }

    /// Inserts a flow with that port as the reply's destination.
    #[inline(always)]
    pub fn insert_with(&self, request: &Request<M::Family>, candidate: Candidate) -> Outcome {
        let flags = request.flags as u8;
        // Counted first, so that two CPUs cannot both take the last one.
        let Some((of_share, of_all)) = self.count(&request.original, &request.reply, flags) else {
            return Outcome::refused(Refusal::Fault);
        };
        let outcome = if of_share >= self.settings.max_flows_per_source {
            Outcome::refused(Refusal::Share)
        } else {
            self.insert_counted(request, candidate, of_all >= self.settings.max_flows)
        };
        if !outcome.is_new() {
            self.uncount(&request.original, &request.reply, flags);
        }
        outcome
    }

    /// The same, of a flow that is counted; in a full table another one must end for it.
    #[inline(always)]
    fn insert_counted(&self, request: &Request<M::Family>, candidate: Candidate, is_full: bool) -> Outcome {
        let slot = self.take_record(request.original.hash(self.settings.seed));
        if slot == MAX_SLOTS {
            return Outcome::refused(Refusal::Full);
        }
        let outcome = self.commit(request, slot, candidate, is_full).with_probes(candidate.probes());
        if !outcome.is_new() {
            self.free_record(slot);
        }
        outcome
    }

    /// Writes the flow with that port into its record and both buckets, if all is still as it was when it was chosen.
    #[inline(always)]
    fn commit(
        &self,
        request: &Request<M::Family>,
        slot: u32,
        candidate: Candidate,
        is_full: bool,
    ) -> Outcome {
        let mut reply = request.reply;
        reply.destination_port = candidate.port();
        let (hash, reply_hash) = (request.original.hash(self.settings.seed), reply.hash(self.settings.seed));
        let number = hash.below(self.settings.buckets);
        let reply_number = reply_hash.below(self.settings.buckets);
        let is_same = number == reply_number;
        let (low, high) = if number < reply_number { (number, reply_number) } else { (reply_number, number) };
        let (Some(low), Some(high)) = (self.memory.bucket(low), self.memory.bucket(high)) else {
            return Outcome::refused(Refusal::Fault);
        };
        if !low.lock.take(self.memory) {
            return Outcome::refused(Refusal::Contended);
        }
        if !is_same && !high.lock.take(self.memory) {
            low.lock.release();
            return Outcome::refused(Refusal::Contended);
        }
        let pair = Tags { tag: hash.tag8(), reply_tag: reply_hash.tag8(), number, reply_number };
        let committed = self.commit_locked(request, slot, &reply, candidate.limit(), &pair, is_full);
        if !is_same {
            high.lock.release();
        }
        low.lock.release();
        // Records whose flows were ended for this one, or had ended before.
        let [first, second, third] = committed.left;
        self.memory.repeat(3, |index| {
            let left = if index == 0 {
                first
            } else if index == 1 {
                second
            } else {
                third
            };
            if left != MAX_SLOTS {
                self.reclaim(left);
            }
            true
        });
        committed.outcome
    }

    /// The same, with both locks.
    #[inline(always)]
    fn commit_locked(
        &self,
        request: &Request<M::Family>,
        slot: u32,
        reply: &Tuple<M::Family>,
        limit: Order,
        tags: &Tags,
        is_full: bool,
    ) -> Committed {
        let (Some(bucket), Some(reply_bucket), Some(flow)) =
            (self.memory.bucket(tags.number), self.memory.bucket(tags.reply_number), self.memory.flow(slot))
        else {
            return Committed::refused(Refusal::Fault);
        };
        let mine = self.find(bucket, tags.tag, &request.original);
        if mine.order >= Order::ALIVE {
            // By another packet, a moment before; or it is the other end's packet of a flow that begins as well.
            let outcome = match self.hit(mine.slot, &request.original) {
                Some(hit) if hit.flow.original() == request.original => Outcome::existing(mine.slot),
                _ => Outcome::refused(Refusal::Clash),
            };
            return Committed { outcome, left: [MAX_SLOTS; 3] };
        }
        let theirs = self.find(reply_bucket, tags.reply_tag, reply);
        if theirs.order >= limit && theirs.order > Order::EXPIRED {
            return Committed::refused(Refusal::Clash);
        }
        // Places: that of the flow that had the tuple before, a free one, or one that is made.
        let room = if mine.place < REFS {
            self.veiled_room(Room { order: mine.order, slot: mine.slot, place: mine.place })
        } else {
            self.make_room(bucket, tags.number, REFS)
        };
        let taken = self.settings.veil32(if tags.number == tags.reply_number { room.place } else { REFS });
        let reply_room = if theirs.place < REFS && theirs.place != taken {
            self.veiled_room(Room { order: theirs.order, slot: theirs.slot, place: theirs.place })
        } else {
            self.make_room(reply_bucket, tags.reply_number, taken)
        };
        if room.order >= Order::ESTABLISHED || reply_room.order >= Order::ESTABLISHED {
            return Committed::refused(Refusal::Full);
        }
        let mut extra = Room { order: Order::FREE, slot: MAX_SLOTS, place: REFS };
        if is_full && !room.order.is_victim() && !reply_room.order.is_victim() {
            extra = self.find_victim(bucket);
            if extra.order == Order::NEVER {
                extra = self.find_victim(reply_bucket);
            }
            if extra.order == Order::NEVER {
                return Committed::refused(Refusal::Full);
            }
        }
        let extra = self.veiled_room(extra);
        // All is certain but that a packet may come in this moment for one of those that are to end.
        let left = [room.slot, reply_room.slot, extra.slot];
        if !self.end_for(&room) || !self.end_for(&reply_room) || !self.end_for(&extra) {
            return Committed { outcome: Outcome::refused(Refusal::Contended), left };
        }
        flow.write(
            &request.original,
            reply,
            request.flags as u8,
            Binding::from_bits(request.binding),
            self.now,
        );
        if let Some(counts) = self.memory.counts(slot) {
            counts.clear();
        }
        // The verifier wants to see that the index is a byte, of which the compiler knows more and proves less.
        let state = hint::black_box(request.state as u8);
        let deadline = self.now + self.settings.timeouts[usize::from(state)];
        let progress = Progress::first(State::from_number(state));
        let life = Life::from_bits(flow.life.load()).next(progress, deadline);
        flow.life.swap(life.to_bits());
        bucket.set(room.place, Ref::new(tags.tag, slot));
        reply_bucket.set(reply_room.place, Ref::new(tags.reply_tag, slot));
        let evicted = room.order.rank().max(reply_room.order.rank()).max(extra.order.rank());
        Committed { outcome: Outcome::inserted(slot, evicted), left }
    }

    /// Ends the flow that has the place; false where it is not as it was seen any more.
    #[inline(always)]
    fn end_for(&self, room: &Room) -> bool {
        if room.order <= Order::DEAD {
            return true;
        }
        let Some(flow) = self.memory.flow(room.slot) else { return false };
        let life = Life::from_bits(flow.life.load());
        // It may have ended meanwhile, or for the other place. Its reference is ours to replace, with the lock.
        life.is_dead() || Order::of(life, self.now) <= room.order && self.end(flow, life)
    }
}

/// Where a flow's tuples belong.
#[repr(C, align(8))]
struct Tags {
    number: u32,
    reply_number: u32,
    tag: u8,
    reply_tag: u8,
}

/// What became of a flow that was to be written.
#[repr(C, align(8))]
struct Committed {
    outcome: Outcome,
    /// Slots whose records are to be reclaimed, if their flows have ended; [`MAX_SLOTS`] for none.
    left: [u32; 3],
}

impl Committed {
    #[inline(always)]
    const fn refused(refusal: Refusal) -> Self {
        Self { outcome: Outcome::refused(refusal), left: [MAX_SLOTS; 3] }
    }
}
