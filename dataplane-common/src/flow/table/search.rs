//! The search for a port: of all flows to one remote end, one has it.

use super::{
    super::{
        index::REFS,
        record::Life,
        state::Rank,
        tuple::{Hash, Tuple},
    },
    Memory, Order, Table,
    request::Request,
};

/// Probes at random, after that of the source's own port.
const RANDOM_PROBES: u32 = 15;

/// Ports that are looked at to see how many of them a container has: enough for its part to be seen within some percent.
const SAMPLE: u32 = 4096;

/// How many ports a container may have towards a remote end for each one that is free: where ports are scarce, one that wants
/// all of them leaves 1 in 129 to the others, two leave 1 in 257. Others' first flows so always find one.
const PORTS_PER_FREE_PORT: u32 = 128;

/// A port that can be had, in one word as programs hand it on.
///
/// ```text
///  63      48 47      32 31          16 15      0
/// +----------+----------+--------------+---------+
/// |     0    |   limit  |    probes    |  port   |
/// +----------+----------+--------------+---------+
/// ```
///
/// A flow that has the port is evicted if its [`Rank`] is below the limit; a limit of 0 is no port at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate(u64);

impl Candidate {
    const NONE: Self = Self(0);

    #[inline(always)]
    const fn new(port: u16, limit: Rank, probes: u32) -> Self {
        Self(port as u64 | (limit as u64) << 32).with_probes(probes)
    }

    /// A port that nobody has.
    #[inline(always)]
    pub const fn free(port: u16) -> Self {
        Self::new(port, Rank::Ended, 1)
    }

    /// The same, found after so many probes.
    #[inline(always)]
    pub const fn with_probes(self, probes: u32) -> Self {
        let probes = if probes > 0xffff { 0xffff } else { probes };
        Self(self.0 & !0xffff_0000 | (probes as u64) << 16)
    }

    /// Takes the word.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The port.
    #[inline(always)]
    pub(super) const fn port(self) -> u16 {
        self.0 as u16
    }

    /// Probes that it took.
    #[inline(always)]
    pub(super) const fn probes(self) -> u32 {
        (self.0 >> 16) as u16 as u32
    }

    /// The first flow that is not evicted.
    #[inline(always)]
    pub(super) const fn limit(self) -> Order {
        Order(self.0 & 0xffff_0000_0000)
    }
}

/// What a walk through the ports has seen.
#[repr(C, align(8))]
struct Seen {
    /// The first flow to be evicted, of those that have ended.
    closed: Order,
    /// The same of half-open flows, of other containers.
    half_open: Order,
    /// Ports looked at.
    ports: u32,
    /// Free ones.
    free: u32,
    /// Those that the container has itself.
    own: u32,
    /// The first port that was looked at, as the distance from the first of all.
    offset: u32,
    free_port: u16,
    closed_port: u16,
    half_open_port: u16,
}

impl<M: Memory> Table<'_, M> {
    /// A port for the flow, which nobody had when it was looked at: the source's own where that is free, so that sequence
    /// numbers of the same tuple go on rising (RFC 6191), and so that a socket has one port towards everybody (RFC 4787,
    /// REQ-1); else one at random; else the first one of all that can be had.
    #[inline(always)]
    pub fn search(&self, request: &Request<M::Family>, attempt: u32) -> Candidate {
        let count = request.ports.count();
        let uses = self.port_use(&request.reply).map_or(0, |uses| uses.load());
        let is_scarce = uses > count - count / 8;
        let mut offset = u32::from(request.original.source_port.wrapping_sub(request.ports.first));
        if !is_scarce {
            if attempt == 0
                && request.ports.contains(request.original.source_port)
                && self.probe(request, request.original.source_port) == Order::FREE
            {
                return Candidate::free(request.original.source_port);
            }
            let mut candidate = Candidate::NONE;
            self.memory.repeat(RANDOM_PROBES, |probe| {
                let seed = self.settings.seed ^ u64::from(probe) << 32 ^ u64::from(attempt) << 48;
                let tuple = &request.original;
                let hash =
                    Hash::of_endpoint::<M::Family>(3, tuple.protocol, tuple.source, tuple.source_port, seed);
                offset = hash.below(count);
                let port = request.ports.first.wrapping_add(offset as u16);
                if self.probe(request, port) == Order::FREE {
                    candidate = Candidate::free(port).with_probes(probe + 2);
                }
                candidate.is_none()
            });
            if !candidate.is_none() {
                return candidate;
            }
        }
        // Another place to begin at in each moment: who tries again tries other ports first.
        let seed = self.settings.seed ^ u64::from(self.now) ^ u64::from(attempt) << 48;
        let begin = Hash::of_endpoint::<M::Family>(
            4,
            request.original.protocol,
            request.original.source,
            request.original.source_port,
            seed,
        );
        self.walk(request, begin.below(count), is_scarce)
    }

    /// Looks at every port from `offset` on, until one can be had.
    ///
    /// Closed connections' ports are taken only where no other is free, the oldest first. Half-open flows of a container that
    /// has more of the ports than the one that wants one are evicted where there is nothing else.
    #[inline(always)]
    fn walk(&self, request: &Request<M::Family>, offset: u32, is_scarce: bool) -> Candidate {
        let count = request.ports.count();
        let mut seen = Seen {
            closed: Order::NEVER,
            half_open: Order::NEVER,
            ports: 0,
            free: 0,
            own: 0,
            offset,
            free_port: 0,
            closed_port: 0,
            half_open_port: 0,
        };
        // Numbers that count up from one that is known would have the verifier follow each round.
        let veiled = |number: u32| self.settings.veil(number.into()) as u32;
        self.memory.repeat(count, |round| {
            let offset = seen.offset + round;
            let offset = if offset < count { offset } else { offset - count };
            seen.ports = round + 1;
            self.look_at(request, request.ports.first.wrapping_add(offset as u16), &mut seen);
            (seen.free, seen.own) = (veiled(seen.free), veiled(seen.own));
            let is_seen = seen.ports >= SAMPLE || !is_scarce || seen.own <= PORTS_PER_FREE_PORT;
            seen.free == 0 || !is_seen
        });
        // Probes of a walk that began after those at random, or instead of them.
        let probes = seen.ports + RANDOM_PROBES + 1;
        if seen.free > 0 {
            if is_scarce && seen.own > seen.free.saturating_mul(PORTS_PER_FREE_PORT) {
                return Candidate::NONE;
            }
            return Candidate::new(seen.free_port, Rank::Ended, probes);
        }
        if seen.closed < Order::NEVER {
            return Candidate::new(seen.closed_port, Rank::HalfOpen, probes);
        }
        if seen.half_open < Order::NEVER && seen.own < seen.ports / 4 {
            return Candidate::new(seen.half_open_port, Rank::Established, probes);
        }
        Candidate::NONE
    }

    #[inline(always)]
    fn look_at(&self, request: &Request<M::Family>, port: u16, seen: &mut Seen) {
        if !self.memory.is_usable(request.original.protocol, port) {
            return;
        }
        let mut reply = request.reply;
        reply.destination_port = port;
        let holder = self.holder(&reply);
        let order = Order(self.settings.veil(holder.order.0));
        if order <= Order::EXPIRED {
            seen.free += 1;
            seen.free_port = port;
            return;
        }
        let is_own = match self.memory.flow(holder.slot) {
            Some(flow) => flow.original().source == request.original.source,
            None => false,
        };
        if is_own {
            seen.own += 1;
        }
        if order < Order::IN_USE {
            if order < seen.closed {
                (seen.closed, seen.closed_port) = (order, port);
            }
        } else if order < Order::ESTABLISHED && !is_own && order < seen.half_open {
            (seen.half_open, seen.half_open_port) = (order, port);
        }
    }

    /// What has that port: [`Order::FREE`] for nothing that lives, [`Order::NEVER`] where it may not be used.
    #[inline(always)]
    fn probe(&self, request: &Request<M::Family>, port: u16) -> Order {
        if !self.memory.is_usable(request.original.protocol, port) {
            return Order::NEVER;
        }
        let mut reply = request.reply;
        reply.destination_port = port;
        let order = self.holder(&reply).order;
        if order <= Order::EXPIRED { Order::FREE } else { order }
    }

    /// Who has the tuple, without a lock: it may have changed a moment later.
    #[inline(always)]
    fn holder(&self, tuple: &Tuple<M::Family>) -> Holder {
        let mut holder = Holder { order: Order::FREE, slot: 0, reserved: 0 };
        let Some((bucket, tag)) = self.bucket_of(tuple) else { return holder };
        if !bucket.may_have(tag, self.settings.zero) {
            return holder;
        }
        self.memory.repeat(REFS, |place| {
            let reference = bucket.get(place);
            if reference.has_tag(tag)
                && let Some(flow) = self.memory.flow(reference.slot())
            {
                let order = Order::of(Life::from_bits(flow.life.load_acquire()), self.now);
                let order = Order(self.settings.veil(order.0));
                if order > Order::EXPIRED && flow.direction_of(tuple).is_some() {
                    holder = Holder { order, slot: reference.slot(), reserved: 0 };
                }
            }
            holder.order == Order::FREE
        });
        holder
    }
}

/// A flow that has a tuple.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Holder {
    order: Order,
    slot: u32,
    reserved: u32,
}
