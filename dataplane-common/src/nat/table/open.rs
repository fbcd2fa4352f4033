//! A new flow: its record, its port, and its place in both indexes.

use super::{
    super::{
        bucket::{LANES, Tags},
        flow::Life,
        state::{Rank, State},
        tuple::Tuple,
    },
    Hit, Memory, Order, Table,
};
use crate::net::Ipv4Be;

/// Where translated ports come from.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The source has its share of the table.
    Share,
    /// No place that may be taken.
    Full,
    /// Every probed port is taken towards this destination.
    Ports,
    /// Another CPU held a lock too long.
    Contended,
    /// A table is smaller than the settings say: a fault.
    Fault,
}

/// A flow that is there now.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// The flow.
    pub hit: Hit<'a>,
    /// Probes that its port took; 0 where another packet had opened it a moment before.
    pub probes: u32,
    /// What was in its place: [`Rank::Gone`] for nothing that counts.
    pub displaced: Rank,
}

impl<'a, M: Memory> Table<'a, M> {
    /// Opens a flow for a packet out that has none.
    ///
    /// # Errors
    ///
    /// Why there is none; nothing has changed then, but that expired flows may have ended.
    #[inline(always)]
    pub fn open(&self, tuple: &Tuple, pool: &Pool, state: State) -> Result<Opened<'a>, Refusal> {
        let share = self.share(tuple.source).ok_or(Refusal::Fault)?;
        let gauges = self.memory.gauges().ok_or(Refusal::Fault)?;
        // Counted first, so that two CPUs cannot both take the last one.
        let of_source = share.add(1);
        let of_all = gauges.flows.add(1);
        let result = if of_source >= self.settings.max_flows_per_source {
            Err(Refusal::Share)
        } else {
            self.open_counted(tuple, pool, state, of_all >= self.settings.max_flows)
        };
        // Refused, or already there.
        if !matches!(result, Ok(Opened { probes: 1.., .. })) {
            self.leave_share(tuple.source);
        }
        result
    }

    #[inline(always)]
    fn open_counted(
        &self,
        tuple: &Tuple,
        pool: &Pool,
        state: State,
        full: bool,
    ) -> Result<Opened<'a>, Refusal> {
        let hash = tuple.hash(self.settings.seed);
        let bucket = hash.below(self.settings.buckets);
        let tags = self.memory.tags(bucket).ok_or(Refusal::Fault)?;
        if !tags.lock.take() {
            return Err(Refusal::Contended);
        }
        let result = self.open_locked(tuple, pool, state, tags, bucket, hash.tag16(), full);
        tags.lock.release();
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the body of open_counted, apart for the lock's sake")]
    #[inline(always)]
    fn open_locked(
        &self,
        tuple: &Tuple,
        pool: &Pool,
        state: State,
        tags: &Tags,
        bucket: u32,
        tag: u16,
        full: bool,
    ) -> Result<Opened<'a>, Refusal> {
        let mut lane = 0;
        let mut best = Order::NEVER;
        let mut chosen = 0;
        while lane < LANES {
            let lanes_tag = tags.get(lane);
            let order = if lanes_tag == 0 {
                Order::FREE
            } else {
                let slot = bucket * LANES + lane;
                let flow = self.memory.flow(slot).ok_or(Refusal::Fault)?;
                let life = Life::from_bits(flow.life.load());
                let order = Order::of(life, self.now);
                if lanes_tag == tag && order.frees_a_flow() && flow.is_out(tuple) {
                    if order != Order::EXPIRED {
                        return Ok(Opened {
                            hit: Hit { flow, slot, life },
                            probes: 0,
                            displaced: Rank::Gone,
                        });
                    }
                    // It must end: a packet that found it in time could let it live on, beside the new one.
                    (best, chosen) = (order, lane);
                    break;
                }
                order
            };
            if order < best && !(full && !order.frees_a_flow()) {
                (best, chosen) = (order, lane);
            }
            lane += 1;
        }
        if best == Order::NEVER {
            return Err(Refusal::Full);
        }

        let slot = bucket * LANES + chosen;
        let flow = self.memory.flow(slot).ok_or(Refusal::Fault)?;
        let mut displaced = Rank::Gone;
        if best != Order::FREE {
            let life = Life::from_bits(flow.life.load());
            if best.frees_a_flow() {
                if Order::of(life, self.now) != best || !self.end(flow, life) {
                    return Err(Refusal::Contended); // a packet came for it in this moment
                }
                if best != Order::EXPIRED {
                    displaced = life.state().rank();
                }
            }
            self.unlink(flow, slot);
        }
        flow.write(tuple, pool.address, self.now);
        let deadline = self.now + self.settings.timeout(state);
        let life = Life::from_bits(flow.life.load()).next(state, deadline);
        match self.claim(flow, slot, tuple, pool, life) {
            Ok(probes) => {
                tags.set(chosen, tag);
                Ok(Opened { hit: Hit { flow, slot, life }, probes, displaced })
            }
            Err(refusal) => {
                tags.set(chosen, 0);
                Err(refusal)
            }
        }
    }
}
