//! What is asked of the table for a new flow, and what became of it.

use bytemuck::{Pod, Zeroable};

use super::super::{index::MAX_SLOTS, state::Rank, tuple::Tuple};
use crate::family::Family;

/// How often a port is searched, where another CPU was quicker with one before.
pub const ATTEMPTS: u32 = 4;

/// Ports, or echo identifiers, to choose from; host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// How many, less one.
    pub more: u16,
}

impl Ports {
    /// From the first to the last.
    #[inline(always)]
    pub const fn new(first: u16, last: u16) -> Self {
        Self { first, more: last - first }
    }

    /// How many.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.more as u32 + 1
    }

    /// Whether the port is one of them.
    #[inline(always)]
    pub const fn contains(self, port: u16) -> bool {
        port.wrapping_sub(self.first) <= self.more
    }
}

/// A flow to be.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Request<F: Family> {
    /// The tuple of its packets.
    pub original: Tuple<F>,
    /// The tuple of the replies. Where the source is translated the destination's port is chosen.
    pub reply: Tuple<F>,
    /// Where that port comes from.
    pub ports: Ports,
    /// 1 where it is to be chosen, else 0.
    pub chooses_port: u32,
    /// [`Flags`](super::super::record::flags) of the flow.
    pub flags: u32,
    /// Number of its first [`State`](super::super::state::State).
    pub state: u32,
    /// A [`Binding`](super::super::record::Binding).
    pub binding: u64,
}

/// Why there is no new flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The container has its share of the table.
    Share = 1,
    /// No place that may be taken.
    Full = 2,
    /// Every port is taken towards this remote end, or the container has its share of them.
    Ports = 3,
    /// Another CPU held a lock too long, or was quicker.
    Contended = 4,
    /// A table is smaller than the settings say: a fault.
    Fault = 5,
    /// Another flow has one of the tuples.
    Clash = 6,
}

/// What became of a request.
///
/// One word rather than an enum with fields: of such an enum the compiler leaves unused parts undefined, and the
/// verifier refuses a program that moves them about.
///
/// ```text
///  63    48 47    40 39      16 15     8 7      0
/// +--------+--------+----------+--------+--------+
/// | probes |  rank  |   slot   |   new  | refusal|
/// +--------+--------+----------+--------+--------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome(u64);

impl Outcome {
    #[inline(always)]
    pub(super) const fn inserted(slot: u32, evicted: u8) -> Self {
        Self((evicted as u64) << 40 | (slot as u64) << 16 | 1 << 8)
    }

    #[inline(always)]
    pub(super) const fn existing(slot: u32) -> Self {
        Self((slot as u64) << 16)
    }

    /// No flow.
    #[inline(always)]
    pub const fn refused(refusal: Refusal) -> Self {
        Self(refusal as u64)
    }

    #[inline(always)]
    pub(super) const fn with_probes(self, probes: u32) -> Self {
        let probes = if probes > 0xffff { 0xffff } else { probes };
        Self(self.0 | (probes as u64) << 48)
    }

    /// Why there is no flow; `None` where there is one.
    #[inline(always)]
    pub const fn refusal(self) -> Option<Refusal> {
        match self.0 as u8 {
            0 => None,
            1 => Some(Refusal::Share),
            2 => Some(Refusal::Full),
            3 => Some(Refusal::Ports),
            4 => Some(Refusal::Contended),
            6 => Some(Refusal::Clash),
            _ => Some(Refusal::Fault),
        }
    }

    /// The flow's slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> 16) as u32 & (MAX_SLOTS - 1)
    }

    /// Probes that the port took; 0 where none was chosen.
    #[inline(always)]
    pub const fn probes(self) -> u32 {
        (self.0 >> 48) as u32
    }

    /// What was evicted by the flow: [`Rank::Gone`] where nothing that counts was.
    #[inline(always)]
    pub const fn evicted(self) -> Rank {
        match (self.0 >> 40) as u8 {
            1 => Rank::Ended,
            2 => Rank::HalfOpen,
            _ => Rank::Gone,
        }
    }

    /// Whether the flow is there by this request, and was not inserted by another packet a moment before.
    #[inline(always)]
    pub const fn is_new(self) -> bool {
        self.0 as u8 == 0 && (self.0 >> 8) as u8 != 0
    }

    /// Whether another port, or another moment, may have a better outcome.
    #[inline(always)]
    pub const fn is_worth_another_try(self) -> bool {
        matches!(self.refusal(), Some(Refusal::Contended | Refusal::Clash))
    }
}

impl core::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.refusal() {
            Some(refusal) => write!(f, "refused: {refusal:?}"),
            None => write!(f, "slot {}, {} probes, evicted {:?}", self.slot(), self.probes(), self.evicted()),
        }
    }
}
