//! The collection of flows that have ended.

use super::{
    super::{
        bucket::{REFS, Ref, Refs},
        flow::{Flow, Life},
        settings::RECORDS_PER_WORD,
        state::Direction,
    },
    Memory, Order, Table,
};

/// Records of a stretch, which are swept together.
pub const STRETCH: u32 = 16;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that had expired.
    pub expired: u64,
    /// Flows that nobody wants any more.
    pub revoked: u64,
}

impl<M: Memory> Table<'_, M> {
    /// Stretches of the table.
    #[inline(always)]
    pub const fn stretches(&self) -> u32 {
        self.settings.words() * (RECORDS_PER_WORD / STRETCH)
    }

    /// Ends the expired flows of a stretch of records, and those that are not `wanted`, and frees their records.
    #[inline(always)]
    pub fn sweep(&self, stretch: u32, wanted: impl Fn(&Flow) -> bool) -> Swept {
        let mut swept = Swept::default();
        let first = stretch * STRETCH;
        let Some(taken) = self.memory.taken(first / RECORDS_PER_WORD) else { return swept };
        let taken = taken.load() >> (first % RECORDS_PER_WORD);
        if taken as u16 == 0 {
            return swept;
        }
        self.memory.repeat(STRETCH, |index| {
            let slot = first + index;
            // Most have nothing to sweep: they are looked through without a lock.
            if taken >> index & 1 != 0
                && let Some(flow) = self.memory.flow(slot)
                && (!Life::from_bits(flow.life.load()).is_alive(self.now) || !wanted(flow))
            {
                self.sweep_record(flow, slot, &wanted, &mut swept);
            }
            true
        });
        swept
    }

    #[inline(always)]
    fn sweep_record(&self, flow: &Flow, slot: u32, wanted: &impl Fn(&Flow) -> bool, swept: &mut Swept) {
        let Some((refs, _)) = self.bucket(Direction::Out, &flow.original()) else { return };
        if !refs.lock.take(self.memory) {
            return;
        }
        let place = self.place_of(refs, slot);
        // It may have become another's in this moment: only a record that this bucket leads to stays what it is.
        if place < REFS {
            let life = Life::from_bits(flow.life.load());
            let order = Order::of(life, self.now);
            let is_rubbish = order <= Order::EXPIRED || !wanted(flow);
            // A packet that comes for the flow in this moment keeps it.
            if is_rubbish && (order == Order::DEAD || self.end(flow, life)) {
                if order == Order::EXPIRED {
                    swept.expired += 1;
                } else if order != Order::DEAD {
                    swept.revoked += 1;
                }
                self.unlink(flow, slot);
                refs.set(place, Ref::NONE);
                self.free_record(slot);
            }
        }
        refs.lock.release();
    }

    /// The place of the reference to that record; [`REFS`] where there is none. The caller holds the lock.
    #[inline(always)]
    fn place_of(&self, refs: &Refs, slot: u32) -> u32 {
        let mut found = REFS;
        self.memory.repeat(REFS, |place| {
            let reference = refs.get(place);
            if reference != Ref::NONE && reference.slot() == slot {
                found = place;
            }
            found == REFS
        });
        found
    }
}
