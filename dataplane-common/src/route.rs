//! A route as one 32-bit word: what to do with packets for a prefix.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use crate::reason::Reason;

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A container of this node: index into the endpoint table.
    Endpoint(u32),
    /// A router, or a link: index into the next-hop table.
    NextHop(u32),
    /// A block of this node: an address in it that no endpoint has is dropped.
    Block,
    /// The kernel goes on, for this reason.
    Kernel(Reason),
}

const KIND_SHIFT: u32 = 28;
const LENGTH_SHIFT: u32 = 22;
const INDEX_MASK: u32 = (1 << LENGTH_SHIFT) - 1;
const CHUNK_MASK: u32 = (1 << KIND_SHIFT) - 1;

const KIND_CHUNK: u32 = 1;
const KIND_ENDPOINT: u32 = 2;
const KIND_NEXT_HOP: u32 = 3;
const KIND_BLOCK: u32 = 4;
const KIND_KERNEL: u32 = 5;

/// Largest index that an [`Entry`] can carry.
pub const MAX_INDEX: u32 = INDEX_MASK;

/// One word of the route table.
///
/// ```text
///  31    28 27     22 21                    0
/// +--------+---------+-----------------------+
/// |  kind  | length  |         index         |   a route: its prefix length, and what it leads to
/// +--------+---------+-----------------------+
/// | 1      |          chunk                  |   longer prefixes below: the number of a chunk
/// +--------+---------------------------------+
/// | 0                                        |   no route
/// ```
///
/// The prefix length makes the table readable by itself: an entry and the address that found it name the
/// route, and whether a new route may overwrite an entry is decided by looking at the entry.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Entry(u32);

impl Entry {
    /// No route.
    pub const NONE: Self = Self(0);

    /// The entry of a route with that prefix length (0 to 32).
    ///
    /// # Panics
    ///
    /// Where the index exceeds [`MAX_INDEX`] or the length 32: a fault of the caller.
    pub const fn route(length: u8, target: Target) -> Self {
        let (kind, index) = match target {
            Target::Endpoint(index) => (KIND_ENDPOINT, index),
            Target::NextHop(index) => (KIND_NEXT_HOP, index),
            Target::Block => (KIND_BLOCK, 0),
            Target::Kernel(reason) => (KIND_KERNEL, reason as u32),
        };
        assert!(index <= MAX_INDEX && length <= 32);
        Self(kind << KIND_SHIFT | (length as u32) << LENGTH_SHIFT | index)
    }

    /// The entry that leads on to a chunk of the table.
    ///
    /// # Panics
    ///
    /// Where the number does not fit into 28 bits: a fault of the caller.
    pub const fn chunk(number: u32) -> Self {
        assert!(number <= CHUNK_MASK);
        Self(KIND_CHUNK << KIND_SHIFT | number)
    }

    /// Takes the word as it stands in the table.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The word as it stands in the table.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// Whether there is no route.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The number of the chunk that this entry leads to, if it does.
    #[inline(always)]
    pub const fn as_chunk(self) -> Option<u32> {
        if self.0 >> KIND_SHIFT == KIND_CHUNK { Some(self.0 & CHUNK_MASK) } else { None }
    }

    /// The prefix length of the route; 0 where there is none.
    #[inline(always)]
    pub const fn prefix_length(self) -> u8 {
        if self.as_chunk().is_some() { 0 } else { (self.0 >> LENGTH_SHIFT) as u8 & 0x3f }
    }

    /// The index of the endpoint that this entry leads to, if it does.
    #[inline(always)]
    pub const fn as_endpoint(self) -> Option<u32> {
        if self.0 >> KIND_SHIFT == KIND_ENDPOINT { Some(self.0 & INDEX_MASK) } else { None }
    }

    /// What the route leads to: `None` for no route, a chunk, or a word that this version does not know.
    #[inline(always)]
    pub const fn target(self) -> Option<Target> {
        let index = self.0 & INDEX_MASK;
        match self.0 >> KIND_SHIFT {
            KIND_ENDPOINT => Some(Target::Endpoint(index)),
            KIND_NEXT_HOP => Some(Target::NextHop(index)),
            KIND_BLOCK => Some(Target::Block),
            KIND_KERNEL => match Reason::from_number(index) {
                Some(reason) => Some(Target::Kernel(reason)),
                None => None,
            },
            _ => None,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_chunk(), self.target()) {
            (Some(chunk), _) => write!(f, "chunk {chunk}"),
            (None, Some(target)) => write!(f, "/{} {target:?}", self.prefix_length()),
            (None, None) => write!(f, "none ({:#x})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_what_was_put_into_it() {
        for target in [
            Target::Endpoint(0),
            Target::Endpoint(MAX_INDEX),
            Target::NextHop(7),
            Target::Block,
            Target::Kernel(Reason::ToHost),
        ] {
            for length in [0, 1, 16, 32] {
                let entry = Entry::route(length, target);
                assert_eq!(entry.target(), Some(target));
                assert_eq!(entry.prefix_length(), length);
                assert_eq!(entry.as_chunk(), None);
                assert!(!entry.is_none());
            }
        }
        assert_eq!(Entry::chunk(CHUNK_MASK).as_chunk(), Some(CHUNK_MASK));
        assert_eq!(Entry::chunk(5).target(), None);
        assert_eq!(Entry::NONE.target(), None);
    }
}
