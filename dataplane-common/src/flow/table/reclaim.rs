//! The end of a flow, and of its record.

use super::{
    super::{
        index::{REFS, Ref},
        record::{Flow, Life, flags},
        settings::{PORT_USES, SHARES},
        tuple::{Hash, Tuple},
    },
    Memory, Table,
};
use crate::{atomic::Word32, family::Family};

/// What hashes of an end are for.
mod purpose {
    /// The share of who begins flows.
    pub const OUTBOUND: u8 = 0;
    /// The share of who has flows begun towards it.
    pub const INBOUND: u8 = 1;
    /// Ports towards a remote end.
    pub const REMOTE: u8 = 2;
}

impl<M: Memory> Table<'_, M> {
    /// Ends the flow if it is still as it was seen; says whether it ended by this. Its record waits to be reclaimed.
    #[inline(always)]
    pub fn end(&self, flow: &Flow<M::Family>, seen: Life) -> bool {
        let (original, reply, flags) = (flow.original(), flow.reply(), flow.flags());
        // One that is dead may be about to be written by another CPU.
        let ended = !seen.is_dead() && flow.life.replace(seen.to_bits(), seen.ended().to_bits());
        if ended {
            self.uncount(&original, &reply, flags);
        }
        ended
    }

    /// Counts a flow to come: for its share, its ports, and all. Gives how many the share and the table had.
    #[inline(always)]
    pub(super) fn count(
        &self,
        original: &Tuple<M::Family>,
        reply: &Tuple<M::Family>,
        flags: u8,
    ) -> Option<(u32, u32)> {
        let (share, gauges) = (self.share(original, flags)?, self.memory.gauges()?);
        if flags & flags::SNAT != 0 {
            self.port_use(reply)?.add(1);
        }
        Some((share.add(1), gauges.flows.add(1)))
    }

    /// Takes back what [`Self::count`] did.
    #[inline(always)]
    pub(super) fn uncount(&self, original: &Tuple<M::Family>, reply: &Tuple<M::Family>, flags: u8) {
        const MINUS_ONE: u32 = u32::MAX;
        if let (Some(share), Some(gauges)) = (self.share(original, flags), self.memory.gauges()) {
            share.add(MINUS_ONE);
            gauges.flows.add(MINUS_ONE);
        }
        if flags & flags::SNAT != 0
            && let Some(ports) = self.port_use(reply)
        {
            ports.add(MINUS_ONE);
        }
    }

    /// The count of flows that the flow's share has: that of the container that began it, or, where others began it, another
    /// one of the container that it goes to. So strangers take nothing of what a container needs itself.
    #[inline(always)]
    pub(super) fn share(&self, original: &Tuple<M::Family>, flags: u8) -> Option<&Word32> {
        let (purpose, address) = if flags & flags::INBOUND != 0 {
            (purpose::INBOUND, original.destination)
        } else {
            (purpose::OUTBOUND, original.source)
        };
        let hash = Hash::of_endpoint::<M::Family>(purpose, 0, address, 0, self.settings.seed);
        self.memory.share(hash.below(SHARES))
    }

    /// The count of flows that have a port towards the remote end of such a reply. Remote ends may have one in common: it says
    /// when ports may be scarce, and no more.
    #[inline(always)]
    pub(super) fn port_use(&self, reply: &Tuple<M::Family>) -> Option<&Word32> {
        let seed = self.settings.seed ^ M::Family::fold_address(reply.destination);
        let hash = Hash::of_endpoint::<M::Family>(
            purpose::REMOTE,
            reply.protocol,
            reply.source,
            reply.source_port,
            seed,
        );
        self.memory.port_use(hash.below(PORT_USES))
    }

    /// Removes the references to a flow that has ended, and frees its record, unless another CPU does. The caller holds no
    /// lock.
    #[inline(always)]
    pub(super) fn reclaim(&self, slot: u32) {
        let Some(flow) = self.memory.flow(slot) else { return };
        let life = Life::from_bits(flow.life.load());
        if !life.is_to_reclaim() || !flow.life.replace(life.to_bits(), life.reclaimed().to_bits()) {
            return;
        }
        // Nobody writes the record now before it is free.
        self.remove_references(&flow.original(), slot);
        self.remove_references(&flow.reply(), slot);
        self.free_record(slot);
    }

    /// Removes the references to a record from a tuple's bucket. Where the lock cannot be had they stay, and lead to a record
    /// that does not match.
    #[inline(always)]
    fn remove_references(&self, tuple: &Tuple<M::Family>, slot: u32) {
        let Some((bucket, _)) = self.bucket_of(tuple) else { return };
        if !bucket.lock.take(self.memory) {
            return;
        }
        self.memory.repeat(REFS, |place| {
            let reference = bucket.get(place);
            if reference != Ref::NONE && reference.slot() == slot {
                bucket.set(place, Ref::NONE);
            }
            true
        });
        bucket.lock.release();
    }
}
