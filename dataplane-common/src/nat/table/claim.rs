//! The claim of a port: of all flows to one destination, one has it.

use super::{
    super::{
        bucket::{REFS, Ref, Refs},
        flow::{Flow, Life},
        settings::MAX_PROBES,
        state::Direction,
        tuple::{Hash, Tuple},
    },
    Memory, Order, Pool, Refusal, Table,
};

/// Probes at random, for a free port. Those that follow go on from the last one, port by port, and so miss none of a small
/// range; they take the port of a closed connection, too.
const RANDOM_PROBES: u32 = 16;

/// The first of them are the same at any time. The others are not: who is refused and tries again (a SYN that is sent
/// once more) tries other ports.
const STEADY_PROBES: u32 = 8;

/// What became of a claim.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Claimed {
    /// The last port that was tried, from the first of the pool on.
    offset: u32,
    /// Probes that it took.
    pub(super) probes: u32,
    /// A [`Refusal`], or 0.
    pub(super) refusal: u8,
    /// What gave the port up, as the number of its rank; 0 where it was free.
    pub(super) displaced: u8,
}

/// A flow in want of a port. Together, so that a loop over ports needs one reference to all of it.
pub(super) struct Request<'a> {
    /// The record, written but for port and life.
    pub(super) flow: &'a Flow,
    /// Its number.
    pub(super) slot: u32,
    /// The flow's tuple.
    pub(super) tuple: &'a Tuple,
    /// Where ports come from.
    pub(super) pool: &'a Pool,
    /// The life to come.
    pub(super) life: Life,
}

impl<M: Memory> Table<'_, M> {
    /// Finds a port for the flow and lets it live.
    ///
    /// The first port depends on the source's address and port alone, so that a container's socket has the
    /// same port towards everybody as long as that one is free (RFC 4787, REQ-1, as far as it goes).
    #[inline(always)]
    pub(super) fn claim(&self, request: &Request<'_>) -> Claimed {
        let mut claimed = Claimed { offset: 0, probes: 0, refusal: Refusal::Ports as u8, displaced: 0 };
        self.memory.repeat(MAX_PROBES, |probe| {
            let count = u32::from(request.pool.count);
            claimed.offset = if probe < RANDOM_PROBES {
                let time = if probe < STEADY_PROBES { 0 } else { self.now };
                let seed = self.settings.seed ^ u64::from(probe) << 32 ^ u64::from(time);
                let tuple = request.tuple;
                Hash::of_endpoint(tuple.protocol, tuple.source, tuple.source_port, seed).below(count)
            } else if claimed.offset + 1 < count {
                claimed.offset + 1
            } else {
                0
            };
            claimed.probes = probe + 1;
            let limit = if probe < RANDOM_PROBES { Order::ALIVE } else { Order::IN_USE };
            let limit = Order(self.settings.veil(limit.0));
            let port = (u32::from(request.pool.first) + claimed.offset) as u16;
            let claim = self.settings.veil(self.claim_port(request, port, limit).into());
            (claimed.refusal, claimed.displaced) = (claim as u8, (claim >> 8) as u8);
            claimed.refusal == Refusal::Ports as u8
        });
        claimed
    }

    /// The low byte is 0 where the port is the flow's now, else a [`Refusal`]; [`Refusal::Ports`] where it is another's
    /// that does not come before `limit`. The high byte is the rank of who had it.
    #[inline(always)]
    fn claim_port(&self, request: &Request<'_>, port: u16, limit: Order) -> u16 {
        let mut reply = request.tuple.reversed();
        (reply.destination, reply.destination_port) = (request.pool.address, port);
        let hash = reply.hash(self.settings.seed);
        let bucket = hash.below(self.settings.buckets);
        let Some(refs) = self.memory.refs(Direction::In, bucket) else { return Refusal::Fault as u16 };
        if !refs.lock.take(self.memory) {
            return Refusal::Contended as u16;
        }
        let found = self.look(refs, hash.tag8(), limit, |flow| flow.is_in(&reply));
        let place = if found.place < REFS { found.place } else { self.look_for_stale(refs, bucket) };
        let mut claim = Refusal::Ports as u16;
        if !found.is_taken && place < REFS {
            request.flow.write_port(request.tuple, port);
            request.flow.life.swap(request.life.to_bits());
            refs.set(place, Ref::new(hash.tag8(), request.slot));
            claim = u16::from(found.ended.displaced()) << 8;
        }
        refs.lock.release();
        claim
    }

    /// A place whose reference leads to no flow of this bucket any more.
    #[inline(always)]
    fn look_for_stale(&self, refs: &Refs, bucket: u32) -> u32 {
        let mut stale = REFS;
        self.memory.repeat(REFS, |place| {
            if let Some(flow) = self.memory.flow(refs.get(place).slot()) {
                let life = Life::from_bits(flow.life.load());
                let hash = flow.reply().hash(self.settings.seed);
                if life.to_bits() == life.ended().to_bits() || hash.below(self.settings.buckets) != bucket {
                    stale = place;
                    return false;
                }
            }
            true
        });
        stale
    }
}
