//! The claim of a port: of all flows to one destination, one has it.

use super::{
    super::{
        bucket::{REFS, Ref, Refs},
        flow::{Flow, Life},
        settings::MAX_PROBES,
        tuple::{Hash, Tuple},
    },
    Memory, Pool, Refusal, Table,
};

/// Probes at random; those that follow go on from the last one, port by port, and so miss none of a small range.
const RANDOM_PROBES: u32 = 16;

/// What a bucket of references says about a tuple.
enum Place {
    /// A flow has it.
    Taken,
    /// None has it, and there is a place for a reference.
    Free(u32),
    /// None has it, and the bucket has no place.
    Full,
}

impl<'a, M: Memory> Table<'a, M> {
    /// Finds a port for the flow and lets it live; gives the probes that it took.
    ///
    /// The first port depends on the source's address and port alone, so that a container's socket has the
    /// same port towards everybody as long as that one is free (RFC 4787, REQ-1, as far as it goes).
    #[inline(always)]
    pub(super) fn claim(
        &self,
        flow: &Flow,
        slot: u32,
        tuple: &Tuple,
        pool: &Pool,
        life: Life,
    ) -> Result<u32, Refusal> {
        let seed = self.settings.seed;
        let count = u32::from(pool.count);
        let mut offset =
            Hash::of_endpoint(tuple.protocol, tuple.source, tuple.source_port, seed).below(count);
        let mut probe = 1;
        while probe <= MAX_PROBES {
            let port = (u32::from(pool.first) + offset) as u16;
            if self.claim_port(flow, slot, tuple, pool, port, life)? {
                return Ok(probe);
            }
            offset = if probe < RANDOM_PROBES {
                let salt = u64::from(probe) << 32;
                Hash::of_endpoint(tuple.protocol, tuple.source, tuple.source_port, seed ^ salt).below(count)
            } else if offset + 1 < count {
                offset + 1
            } else {
                0
            };
            probe += 1;
        }
        Err(Refusal::Ports)
    }

    #[inline(always)]
    fn claim_port(
        &self,
        flow: &Flow,
        slot: u32,
        tuple: &Tuple,
        pool: &Pool,
        port: u16,
        life: Life,
    ) -> Result<bool, Refusal> {
        let mut reply = tuple.reversed();
        (reply.destination, reply.destination_port) = (pool.address, port);
        let hash = reply.hash(self.settings.seed);
        let bucket = hash.below(self.settings.buckets);
        let refs = self.memory.refs(bucket).ok_or(Refusal::Fault)?;
        if !refs.lock.take() {
            return Err(Refusal::Contended);
        }
        let place = match self.look(refs, &reply, hash.tag8()) {
            Place::Full => self.look_for_stale(refs, bucket),
            place => place,
        };
        let claimed = if let Place::Free(place) = place {
            flow.write_port(tuple, port);
            flow.life.swap(life.to_bits());
            refs.set(place, Ref::new(hash.tag8(), slot));
            true
        } else {
            false
        };
        refs.lock.release();
        Ok(claimed)
    }

    #[inline(always)]
    fn look(&self, refs: &Refs, reply: &Tuple, tag: u8) -> Place {
        let mut free = REFS;
        let mut place = 0;
        while place < REFS {
            let reference = refs.get(place);
            if reference == Ref::NONE {
                free = place;
            } else if reference.has_tag(tag)
                && let Some(flow) = self.memory.flow(reference.slot())
                && flow.is_in(reply)
            {
                let life = Life::from_bits(flow.life.load());
                let is_there = life.to_bits() != life.ended().to_bits();
                // Expired: it must not come back by a packet that found it in time.
                if is_there && (life.is_alive(self.now) || !self.end(flow, life)) {
                    return Place::Taken;
                }
                free = place;
            }
            place += 1;
        }
        if free < REFS { Place::Free(free) } else { Place::Full }
    }

    /// A place whose reference leads to no flow of this bucket any more.
    #[inline(always)]
    fn look_for_stale(&self, refs: &Refs, bucket: u32) -> Place {
        let mut place = 0;
        while place < REFS {
            if let Some(flow) = self.memory.flow(refs.get(place).slot()) {
                let life = Life::from_bits(flow.life.load());
                let hash = flow.reply().hash(self.settings.seed);
                if life.to_bits() == life.ended().to_bits() || hash.below(self.settings.buckets) != bucket {
                    return Place::Free(place);
                }
            }
            place += 1;
        }
        Place::Full
    }
}
