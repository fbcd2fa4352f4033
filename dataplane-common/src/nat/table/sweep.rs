//! The collection of flows that have ended.

use super::{
    super::{
        bucket::{LANES, Tags},
        flow::{Flow, Life},
    },
    Memory, Order, Table,
};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that had expired.
    pub expired: u64,
    /// Flows that nobody wants any more.
    pub revoked: u64,
}

impl<'a, M: Memory> Table<'a, M> {
    /// Ends the expired flows of a bucket, and those that are not `wanted`, and frees their places.
    #[inline(always)]
    pub fn sweep(&self, bucket: u32, wanted: impl Fn(&Flow) -> bool) -> Swept {
        let mut swept = Swept::default();
        let Some(tags) = self.memory.tags(bucket) else { return swept };
        // Most buckets have nothing to sweep: they are looked through without the lock.
        if !self.has_rubbish(tags, bucket, &wanted) || !tags.lock.take(self.memory) {
            return swept;
        }
        self.memory.repeat(LANES, |lane| {
            let slot = bucket * LANES + lane;
            if tags.get(lane) != 0
                && let Some(flow) = self.memory.flow(slot)
            {
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
                    tags.set(lane, 0);
                }
            }
            true
        });
        tags.lock.release();
        swept
    }

    #[inline(always)]
    fn has_rubbish(&self, tags: &Tags, bucket: u32, wanted: &impl Fn(&Flow) -> bool) -> bool {
        let mut found = false;
        self.memory.repeat(LANES, |lane| {
            if tags.get(lane) != 0
                && let Some(flow) = self.memory.flow(bucket * LANES + lane)
            {
                found = !Life::from_bits(flow.life.load()).is_alive(self.now) || !wanted(flow);
            }
            !found
        });
        found
    }
}
