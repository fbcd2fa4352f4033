//! The record of one flow.

use super::{
    state::{self, Direction, Progress, State},
    tuple::Tuple,
};
use crate::{atomic::Word64, family::Family};

/// Nanoseconds of a tick, the unit of deadlines, as a shift: 2^28 ns are 0.27 s.
pub const TICK_SHIFT: u32 = 28;

/// Ticks in so many seconds, rounded up.
pub const fn ticks(seconds: u32) -> u32 {
    let ticks = (seconds as u64 * 1_000_000_000).div_ceil(1 << TICK_SHIFT);
    if ticks > u32::MAX as u64 { u32::MAX } else { ticks as u32 }
}

/// Seconds in so many ticks, rounded down.
pub const fn seconds(ticks: u32) -> u64 {
    ((ticks as u64) << TICK_SHIFT) / 1_000_000_000
}

/// A flow's life: the one word that says whether it is there.
///
/// ```text
///  63            32 31         16 15     8 7      0
/// +----------------+-------------+--------+--------+
/// |    deadline    | generation  | marks  | state  |
/// +----------------+-------------+--------+--------+
/// ```
///
/// The deadline is in ticks of the monotonic clock. The generation tells the flows apart that had this record
/// one after another. A dead record with the highest mark set is still referred to ([`Self::is_to_reclaim`]); one without is nobody's, or
/// belongs to who has taken it and is about to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(u64);

impl Life {
    const GENERATION: u64 = 0xffff_0000;

    /// Marks of a dead flow whose record is not reclaimed.
    const TO_RECLAIM: u64 = 0x80 << 8;

    /// Takes the word as it stands in the record.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word as it stands in the record.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The state.
    #[inline(always)]
    pub const fn state(self) -> State {
        State::from_number(self.0 as u8)
    }

    /// When the flow ends unless a packet comes.
    #[inline(always)]
    pub const fn deadline(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether the flow is there at that time.
    #[inline(always)]
    pub const fn is_alive(self, now: u32) -> bool {
        self.0 as u8 != State::Dead as u8 && self.deadline() > now
    }

    /// Whether the flow has ended, by whatever but time.
    #[inline(always)]
    pub const fn is_dead(self) -> bool {
        self.0 as u8 == State::Dead as u8
    }

    /// State and marks.
    #[inline(always)]
    pub const fn progress(self) -> Progress {
        Progress { state: self.state(), marks: (self.0 >> 8) as u8 }
    }

    /// The same flow after a packet; `deadline` gives when it ends then, by the number of its state. `zero` is that of
    /// [`Settings`](super::settings::Settings::zero).
    #[inline(always)]
    pub fn after(
        self,
        direction: Direction,
        tcp_flags: u8,
        zero: u32,
        deadline: impl FnOnce(u8) -> u32,
    ) -> Self {
        let (state, marks) = state::after(self.0 as u8, (self.0 >> 8) as u8, direction, tcp_flags, zero);
        let generation = self.0 & Self::GENERATION;
        Self((deadline(state) as u64) << 32 | generation | (marks as u64) << 8 | state as u64)
    }

    /// The same flow at another point.
    #[inline(always)]
    pub const fn at(self, progress: Progress, deadline: u32) -> Self {
        let generation = self.0 & Self::GENERATION;
        Self((deadline as u64) << 32 | generation | (progress.marks as u64) << 8 | progress.state as u64)
    }

    /// What is left when the flow has ended.
    #[inline(always)]
    pub const fn ended(self) -> Self {
        Self(self.0 & Self::GENERATION | Self::TO_RECLAIM)
    }

    /// Whether the record of a flow that ended is to be reclaimed.
    #[inline(always)]
    pub const fn is_to_reclaim(self) -> bool {
        self.is_dead() && self.0 & Self::TO_RECLAIM != 0
    }

    /// What is left when the record is reclaimed.
    #[inline(always)]
    pub const fn reclaimed(self) -> Self {
        Self(self.0 & Self::GENERATION)
    }

    /// The next flow in this record.
    #[inline(always)]
    pub const fn next(self, progress: Progress, deadline: u32) -> Self {
        let next = Self((self.0 & Self::GENERATION).wrapping_add(0x1_0000) & Self::GENERATION);
        next.at(progress, deadline)
    }

    /// Whether both are of one flow, and not of two that had the record one after another.
    #[inline(always)]
    pub const fn is_same_flow(self, other: Self) -> bool {
        (self.0 ^ other.0) & Self::GENERATION == 0 && other.0 as u8 != State::Dead as u8
    }
}

/// Properties of a flow, as bits.
pub mod flags {
    /// The original's source is translated: the reply's destination is another address or port.
    pub const SNAT: u8 = 0x01;
    /// The original's destination is translated: the reply's source is another address or port.
    pub const DNAT: u8 = 0x02;
    /// It was begun towards a container, from outside of this table's containers: it counts for the container's inbound share.
    pub const INBOUND: u8 = 0x04;
    /// Decided by a rule of translation (`[[masquerade]]`), or exempt from it as an answer.
    pub const BY_MASQUERADE: u8 = 0x10;
    /// Decided by a service.
    pub const BY_SERVICE: u8 = 0x20;
    /// Decided by policy.
    pub const BY_POLICY: u8 = 0x40;
    /// Decided by the kernel's own connection tracking.
    pub const BY_KERNEL: u8 = 0x80;
}

/// What a flow is bound to: where packets of the original direction leave, and the rule that decided it.
///
/// ```text
///  63         48 47    32 31              0
/// +-------------+--------+-----------------+
/// | rules' epoch|  rule  |  interface      |
/// +-------------+--------+-----------------+
/// ```
///
/// A flow whose binding is another one than its packet would get now is judged anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding(u64);

impl Binding {
    /// To that interface (0 for any) by that rule of the set with that epoch.
    #[inline(always)]
    pub const fn new(ifindex: u32, rule: u16, epoch: u16) -> Self {
        Self(ifindex as u64 | (rule as u64) << 32 | (epoch as u64) << 48)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Takes the word.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The interface that packets of the original direction leave by; 0 where that does not matter.
    #[inline(always)]
    pub const fn ifindex(self) -> u32 {
        self.0 as u32
    }

    /// The number of the rule in its set.
    #[inline(always)]
    pub const fn rule(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The epoch of the set of rules.
    #[inline(always)]
    pub const fn epoch(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Whether interface and epoch are the same.
    #[inline(always)]
    pub const fn agrees(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(0xffff << 32) == 0
    }
}

/// All that a table knows of a flow, whatever the layout of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<F: Family> {
    /// The tuple of packets of the original direction.
    pub original: Tuple<F>,
    /// The tuple of packets of the reply direction.
    pub reply: Tuple<F>,
    /// [`flags`].
    pub flags: u8,
    /// State and marks.
    pub progress: Progress,
    /// The tick at which the flow ends unless a packet comes.
    pub deadline: u32,
    /// The tick at which the flow began.
    pub opened: u32,
    /// Bytes of frames, by [`Direction`].
    pub bytes: [u64; 2],
    /// Packets, by [`Direction`].
    pub packets: [u64; 2],
}

/// One flow: a cache line for IPv4, two for IPv6, of which packets of untranslated flows need the first alone.
///
/// Everything but the life word and the binding is written while the flow is dead, by who has taken the record, and does not
/// change while it lives.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Flow<F: Family> {
    /// Moves all the rest: see `LAYOUT_VERSION`.
    #[cfg(feature = "next-layout")]
    next_layout: [Word64; 8],
    /// A [`Life`].
    pub life: Word64,
    /// Source and destination of the original direction.
    original: F::PairCell,
    /// From the lowest: source port 16, destination port 16, protocol 8, [`flags`] 8, service 16 bits; the original's.
    key: Word64,
    /// A [`Binding`].
    pub binding: Word64,
    /// Policy of source and destination: slot 16 and epoch 16 bits of each. Zero: not judged.
    pub policy: Word64,
    /// Source and destination of the reply direction.
    reply: F::PairCell,
    /// The reply's source port 16, destination port 16 bits, and the tick at which the flow began, 32 bits.
    reply_ports: Word64,
    /// For what is to come: zero.
    reserved: Word64,
}

const EXTRA: usize = if cfg!(feature = "next-layout") { 64 } else { 0 };
const _: () = assert!(size_of::<Flow<crate::family::V4>>() == 64 + EXTRA);
const _: () = assert!(size_of::<Flow<crate::family::V6>>() == 128 + EXTRA);

/// The bits of a key that are a tuple's [`ports`](Tuple::ports).
const PORTS: u64 = 0xff_ffff_ffff;

impl<F: Family> Flow<F> {
    /// Which direction of this flow packets with that tuple are; `None` if they are none of its.
    #[inline(always)]
    pub fn direction_of(&self, tuple: &Tuple<F>) -> Option<Direction> {
        let (pair, ports) = (tuple.pair(), tuple.ports());
        let key = self.key.load();
        if F::difference(&self.original, &pair) | (key ^ ports) & PORTS == 0 {
            return Some(Direction::Original);
        }
        if !F::IS_ONE_LINE && (key >> 40) as u8 & (flags::SNAT | flags::DNAT) == 0 {
            let reversed = tuple.reversed();
            let is_reply =
                F::difference(&self.original, &reversed.pair()) | (key ^ reversed.ports()) & PORTS == 0;
            return if is_reply { Some(Direction::Reply) } else { None };
        }
        let is_protocol = (key ^ ports) & (0xff << 32) == 0;
        let ports_differ = self.reply_ports.load() as u32 ^ ports as u32;
        if is_protocol && F::difference(&self.reply, &pair) | ports_differ as u64 == 0 {
            return Some(Direction::Reply);
        }
        None
    }

    /// The tuple of packets of the original direction.
    #[inline(always)]
    pub fn original(&self) -> Tuple<F> {
        Tuple::from_words(&F::load(&self.original), self.key.load())
    }

    /// The tuple of packets of the reply direction.
    #[inline(always)]
    pub fn reply(&self) -> Tuple<F> {
        let ports = self.reply_ports.load() & 0xffff_ffff | self.key.load() & (0xff << 32);
        Tuple::from_words(&F::load(&self.reply), ports)
    }

    /// The tuple of packets of that direction.
    #[inline(always)]
    pub fn tuple(&self, direction: Direction) -> Tuple<F> {
        match direction {
            Direction::Original => self.original(),
            Direction::Reply => self.reply(),
        }
    }

    /// [`flags`].
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        (self.key.load() >> 40) as u8
    }

    /// The tick at which the flow began.
    pub fn opened(&self) -> u32 {
        (self.reply_ports.load() >> 32) as u32
    }

    /// Writes a flow into a record that the caller has taken; its life comes when it is certain.
    #[inline(always)]
    pub(super) fn write(&self, original: &Tuple<F>, reply: &Tuple<F>, flags: u8, binding: Binding, now: u32) {
        F::store(&self.original, &original.pair());
        self.key.store(original.ports() | (flags as u64) << 40);
        self.binding.store(binding.to_bits());
        self.policy.store(0);
        F::store(&self.reply, &reply.pair());
        self.reply_ports.store(reply.ports() & 0xffff_ffff | (now as u64) << 32);
        self.reserved.store(0);
    }

    /// Sets what another table knew of the flow.
    pub(super) fn restore(&self, known: &Known<F>) {
        self.reply_ports.store(self.reply_ports.load() & 0xffff_ffff | (known.opened as u64) << 32);
        let life = Life::from_bits(self.life.load());
        self.life.store(life.at(known.progress, known.deadline).to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_record_is_reclaimed_once() {
        let alive = Life::from_bits(0).next(Progress { state: State::TcpOpening, marks: 3 }, 9);
        assert!(alive.is_alive(8) && !alive.is_alive(9) && !alive.is_to_reclaim());
        let ended = alive.ended();
        assert!(ended.is_dead() && ended.is_to_reclaim() && !alive.is_same_flow(ended));
        assert!(ended.reclaimed().is_dead() && !ended.reclaimed().is_to_reclaim());
        assert!(!Life::from_bits(0).is_to_reclaim(), "a record that was never used is nobody's");
        let next = ended.reclaimed().next(Progress { state: State::TcpOpening, marks: 0 }, 9);
        assert!(!alive.is_same_flow(next));
    }

    #[test]
    fn a_binding_agrees_by_interface_and_epoch() {
        let binding = Binding::new(7, 3, 0xfffe);
        assert_eq!((binding.ifindex(), binding.rule(), binding.epoch()), (7, 3, 0xfffe));
        assert!(binding.agrees(Binding::new(7, 4, 0xfffe)));
        assert!(!binding.agrees(Binding::new(8, 3, 0xfffe)) && !binding.agrees(Binding::new(7, 3, 1)));
    }
}
