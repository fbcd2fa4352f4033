//! The collection of flows that have ended.

use super::{
    super::{
        record::{Flow, Life},
        settings::RECORDS_PER_WORD,
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
    /// Flows that are not to go on.
    pub revoked: u64,
}

impl<M: Memory> Table<'_, M> {
    /// Stretches of the table.
    #[inline(always)]
    pub const fn stretches(&self) -> u32 {
        self.settings.words() * (RECORDS_PER_WORD / STRETCH)
    }

    /// Ends the expired flows of a stretch of records, and those that are not to `go_on`, and reclaims their records.
    #[inline(always)]
    pub fn sweep(&self, stretch: u32, go_on: impl Fn(&Flow<M::Family>) -> bool) -> Swept {
        let mut swept = Swept::default();
        let first = stretch * STRETCH;
        let Some(taken) = self.memory.taken(first / RECORDS_PER_WORD) else { return swept };
        let taken = taken.load() >> (first % RECORDS_PER_WORD);
        if taken as u16 == 0 {
            return swept;
        }
        self.memory.repeat(STRETCH, |index| {
            let slot = first + index;
            if taken >> index & 1 != 0
                && let Some(flow) = self.memory.flow(slot)
            {
                let life = Life::from_bits(flow.life.load());
                let order = Order::of(life, self.now);
                if order > Order::EXPIRED {
                    // A packet that comes for the flow in this moment keeps it until the next sweep.
                    if !go_on(flow) && self.end(flow, life) {
                        swept.revoked += 1;
                        self.reclaim(slot);
                    }
                } else if order == Order::DEAD {
                    self.reclaim(slot);
                } else if self.end(flow, life) {
                    swept.expired += 1;
                    self.reclaim(slot);
                }
            }
            true
        });
        swept
    }
}
