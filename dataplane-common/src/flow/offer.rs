//! Connections that the kernel decides (`netfilter = "respect"`), as programs and daemon tell each other of them.
//!
//! Programs name some of the connections whose packets they leave to the kernel: [`Ends`], by a ring buffer. The daemon looks them
//! up in the kernel's connection tracking, and hands back those that are established: an [`Offer`] each, to be carried on lease
//! or to end. Only programs write flows: the daemon fills a [`Batch`] and runs `flow_offer` once for each offer in it.

use bytemuck::{Pod, Zeroable};

use super::tuple::Tuple;
use crate::family::V4;

/// Most offers of a batch.
pub const OFFERS: usize = 1024;

/// Of so many packets that are left to the kernel, one is named on average: short connections are hardly ever.
pub const SAMPLE: u32 = 16;

/// Bytes of the ring buffer by which programs name connections. What finds no room is named by a later packet.
pub const RING_BYTES: u32 = 1 << 16;

/// A tuple in whole words, which a program may copy to its stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Ends {
    /// Both addresses: [`Tuple::pair`].
    addresses: u64,
    /// [`Tuple::ports`].
    ports: u64,
}

impl From<Tuple<V4>> for Ends {
    fn from(tuple: Tuple<V4>) -> Self {
        Self { addresses: tuple.pair(), ports: tuple.ports() }
    }
}

impl Ends {
    /// The tuple.
    #[inline(always)]
    pub fn tuple(&self) -> Tuple<V4> {
        Tuple::from_words(&self.addresses, self.ports)
    }
}

/// A connection, and what is to become of its flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Offer {
    /// The tuple of packets of the original direction, as the kernel tracks it.
    pub original: Ends,
    /// The tuple of packets of the reply direction.
    pub reply: Ends,
    /// How long BPF may carry it from now on without another offer, in ticks.
    pub lease: u32,
    /// What is to be done: the number of a [`Verb`].
    pub verb: u16,
    /// What became of it: the number of an [`Outcome`].
    pub outcome: u16,
    /// Packets that the flow has carried so far, of both directions.
    pub packets: u64,
}

/// What is to become of a flow.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// BPF carries the connection from now on.
    Carry = 1,
    /// It goes on to, if its flow has not ended: by FIN or RST, for one.
    Renew = 2,
    /// It does not any more.
    End = 3,
    /// Nothing: whether it could is to be said.
    Check = 4,
}

macro_rules! outcomes {
    ($($number:literal $variant:ident $text:literal,)+) => {
        /// What became of an offer.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Outcome {
            $(#[doc = $text] $variant = $number,)+
        }

        impl Outcome {
            /// The outcome with that number, if there is one.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

outcomes! {
    1 Carried "BPF carries the connection, or goes on to.",
    2 Ended "It does not, as asked, or since the flow has ended.",
    3 Unreachable "BPF does not reach both ends, or neither is a container of this node.",
    4 Refused "The table has no room, or another flow has one of the tuples.",
    5 Reachable "BPF reaches both ends, of which one at least is a container of this node.",
}

impl Offer {
    /// Whether that became of it.
    pub const fn is(&self, outcome: Outcome) -> bool {
        self.outcome == outcome as u16
    }
}

/// What the daemon hands over at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Batch {
    /// Offers.
    pub count: u32,
    /// The one that the program takes next.
    pub next: u32,
    /// The offers.
    pub offers: [Offer; OFFERS],
}
