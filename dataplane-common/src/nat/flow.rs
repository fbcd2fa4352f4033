//! The record of one flow.

use super::{
    state::{Direction, Progress, State},
    tuple::Tuple,
};
use crate::{atomic::Word64, net::Ipv4Be};

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
/// one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(u64);

impl Life {
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

    /// State and marks.
    #[inline(always)]
    pub const fn progress(self) -> Progress {
        Progress { state: self.state(), marks: (self.0 >> 8) as u8 }
    }

    /// The same flow at another point.
    #[inline(always)]
    pub const fn at(self, progress: Progress, deadline: u32) -> Self {
        let generation = self.0 & 0xffff_0000;
        Self((deadline as u64) << 32 | generation | (progress.marks as u64) << 8 | progress.state as u64)
    }

    /// What is left when the flow has ended.
    #[inline(always)]
    pub const fn ended(self) -> Self {
        Self(self.0 & 0xffff_0000)
    }

    /// The next flow in this record.
    #[inline(always)]
    pub const fn next(self, state: State, deadline: u32) -> Self {
        let next = Self((self.0 & 0xffff_0000).wrapping_add(0x1_0000) & 0xffff_0000);
        next.at(Progress { state, marks: 0 }, deadline)
    }

    /// Whether both are of one flow, and not of two that had the record one after another.
    #[inline(always)]
    pub const fn is_same_flow(self, other: Self) -> bool {
        (self.0 ^ other.0) & 0xffff_0000 == 0 && other.0 as u8 != State::Dead as u8
    }
}

/// All that a table knows of a flow, whatever the layout of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The tuple of packets out, before translation.
    pub original: Tuple,
    /// The address that the outside sees.
    pub address: Ipv4Be,
    /// The port, or echo identifier, that the outside sees; host byte order.
    pub port: u16,
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

/// One flow: a cache line.
///
/// Everything but the life word and the counters is written while the flow is dead, by the one who holds the
/// lock of its bucket, and does not change while it lives.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Flow {
    /// Moves all the rest: see `LAYOUT_VERSION`.
    #[cfg(feature = "next-layout")]
    reserved: [Word64; 8],
    /// A [`Life`].
    pub life: Word64,
    /// Source address in the low half and destination address in the high one, as in the packet.
    addresses: Word64,
    /// From the lowest: source port, destination port, translated port, protocol; 16 bits each.
    ports: Word64,
    /// Translated address in the low half, tick at which the flow began in the high one.
    translated: Word64,
    /// Bytes of frames, by [`Direction`]. Packets that two CPUs handle at one time may count once.
    bytes: [Word64; 2],
    /// Packets, by [`Direction`]; an aggregate counts once.
    packets: [Word64; 2],
}

const _: () = assert!(size_of::<Flow>() == if cfg!(feature = "next-layout") { 128 } else { 64 });

const PORT_MASK: u64 = 0xffff;

#[inline(always)]
const fn ports_of(source: u16, destination: u16, translated: u16, protocol: u8) -> u64 {
    source as u64 | (destination as u64) << 16 | (translated as u64) << 32 | (protocol as u64) << 48
}

impl Flow {
    /// Whether this is the flow of packets out with that tuple.
    #[inline(always)]
    pub fn is_out(&self, tuple: &Tuple) -> bool {
        let addresses = tuple.source.to_wire() as u64 | (tuple.destination.to_wire() as u64) << 32;
        let ports = ports_of(tuple.source_port, tuple.destination_port, 0, tuple.protocol);
        (self.addresses.load() ^ addresses) | (self.ports.load() & !(PORT_MASK << 32) ^ ports) == 0
    }

    /// Whether this is the flow of replies with that tuple.
    #[inline(always)]
    pub fn is_in(&self, tuple: &Tuple) -> bool {
        let ports = ports_of(0, tuple.source_port, tuple.destination_port, tuple.protocol);
        (self.addresses.load() >> 32) as u32 == tuple.source.to_wire()
            && self.ports.load() & !PORT_MASK == ports
            && self.translated.load() as u32 == tuple.destination.to_wire()
    }

    /// The tuple of packets out, before translation.
    #[inline(always)]
    pub fn original(&self) -> Tuple {
        let (addresses, ports) = (self.addresses.load(), self.ports.load());
        Tuple {
            protocol: (ports >> 48) as u8,
            source: Ipv4Be::from_wire(addresses as u32),
            source_port: ports as u16,
            destination: Ipv4Be::from_wire((addresses >> 32) as u32),
            destination_port: (ports >> 16) as u16,
        }
    }

    /// The tuple of replies, before translation.
    #[inline(always)]
    pub fn reply(&self) -> Tuple {
        let original = self.original();
        Tuple {
            protocol: original.protocol,
            source: original.destination,
            source_port: original.destination_port,
            destination: self.translated_address(),
            destination_port: self.translated_port(),
        }
    }

    /// The address that the outside sees.
    #[inline(always)]
    pub fn translated_address(&self) -> Ipv4Be {
        Ipv4Be::from_wire(self.translated.load() as u32)
    }

    /// The port, or echo identifier, that the outside sees.
    #[inline(always)]
    pub fn translated_port(&self) -> u16 {
        (self.ports.load() >> 32) as u16
    }

    /// The tick at which the flow began.
    pub fn opened(&self) -> u32 {
        (self.translated.load() >> 32) as u32
    }

    /// Bytes of frames in that direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].load()
    }

    /// Packets in that direction.
    pub fn packets(&self, direction: Direction) -> u64 {
        self.packets[direction as usize].load()
    }

    /// Counts a packet.
    #[inline(always)]
    pub fn count(&self, direction: Direction, bytes: u32) {
        let (bytes_word, packets_word) = match direction {
            Direction::Out => (&self.bytes[0], &self.packets[0]),
            Direction::In => (&self.bytes[1], &self.packets[1]),
        };
        bytes_word.store(bytes_word.load() + u64::from(bytes));
        packets_word.store(packets_word.load() + 1);
    }

    /// Writes a flow into a dead record; its port and its life come when they are certain.
    #[inline(always)]
    pub(super) fn write(&self, original: &Tuple, address: Ipv4Be, now: u32) {
        self.addresses
            .store(u64::from(original.source.to_wire()) | u64::from(original.destination.to_wire()) << 32);
        self.translated.store(u64::from(address.to_wire()) | u64::from(now) << 32);
        for word in [&self.bytes[0], &self.bytes[1], &self.packets[0], &self.packets[1]] {
            word.store(0);
        }
        self.write_port(original, 0);
    }

    /// Sets what another table knew of the flow.
    pub(super) fn restore(&self, known: &Known) {
        self.translated.store(self.translated.load() & 0xffff_ffff | u64::from(known.opened) << 32);
        for direction in [Direction::Out, Direction::In] {
            self.bytes[direction as usize].store(known.bytes[direction as usize]);
            self.packets[direction as usize].store(known.packets[direction as usize]);
        }
        let life = Life::from_bits(self.life.load());
        self.life.store(life.at(known.progress, known.deadline).to_bits());
    }

    /// Writes the translated port.
    #[inline(always)]
    pub(super) fn write_port(&self, original: &Tuple, port: u16) {
        self.ports.store(ports_of(original.source_port, original.destination_port, port, original.protocol));
    }
}
