//! The shape of the route table: a multibit trie with strides of 16, 8, 2 and 6 bits.
//!
//! The strides are those of container networks: a root of 65,536 words (/16), then chunks of 256 words
//! (/24, a host's block in by-hand set-ups), of 4 words (/26, Calico's block) and of 64 words (/32, the
//! containers). A lookup is one to four dependent loads. A /26 costs 16 bytes where its neighbours have
//! routes too, which is what keeps a million of them small.
//!
//! The root is one BPF array value. Chunks live in *slabs* of 256 KiB, BPF arrays behind an array of maps
//! that grows with the routes. The daemon maps all of them into its memory and writes plain words; the
//! programs read them. A chunk is filled before the word that points to it is stored, and is used again
//! only when no program can be reading it any more.

use crate::{opaque::opaque, route::Entry};

/// Words in the root.
pub const ROOT_WORDS: usize = 1 << 16;

/// Words in a slab.
pub const SLAB_WORDS: usize = 1 << 16;

/// Words that a chunk's number counts in: chunk `n` starts at word `n * CHUNK_UNIT` of all slabs in a row.
pub const CHUNK_UNIT: usize = 4;

const CHUNKS_PER_SLAB_SHIFT: u32 = (SLAB_WORDS / CHUNK_UNIT).trailing_zeros();

/// Most slabs that a table can have: 512 MiB.
pub const MAX_SLABS: u32 = 2048;

/// The value of a slab's map.
pub type Slab = [u32; SLAB_WORDS];

/// The value of the root's map.
pub type Root = [u32; ROOT_WORDS];

/// A level of the trie below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Prefix length at which a chunk of this level starts.
    pub start: u8,
    /// Address bits that select a word in the chunk.
    pub stride: u8,
}

impl Level {
    /// Words of a chunk.
    pub const fn words(self) -> usize {
        1 << self.stride
    }

    /// Prefix length at which the level ends.
    pub const fn end(self) -> u8 {
        self.start + self.stride
    }

    /// The word of the chunk that `address` (host byte order) selects.
    #[inline(always)]
    pub const fn select(self, address: u32) -> u32 {
        (address >> (32 - self.end())) & ((1 << self.stride) - 1)
    }
}

/// The levels below the root, from the top.
pub const LEVELS: [Level; 3] =
    [Level { start: 16, stride: 8 }, Level { start: 24, stride: 2 }, Level { start: 26, stride: 6 }];

const _: () = assert!(LEVELS[0].end() == LEVELS[1].start);
const _: () = assert!(LEVELS[1].end() == LEVELS[2].start);
const _: () = assert!(LEVELS[2].end() == 32);

/// The word of the root that `address` (host byte order) selects.
#[inline(always)]
pub const fn select_root(address: u32) -> u32 {
    address >> 16
}

/// The slab in which a chunk lies, and its first word there.
#[inline(always)]
pub const fn chunk_position(chunk: u32) -> (u32, u32) {
    let in_slab = chunk & ((1 << CHUNKS_PER_SLAB_SHIFT) - 1);
    (chunk >> CHUNKS_PER_SLAB_SHIFT, in_slab * CHUNK_UNIT as u32)
}

/// The inverse of [`chunk_position`]; the word must be a multiple of [`CHUNK_UNIT`].
pub const fn chunk_number(slab: u32, word: u32) -> u32 {
    (slab << CHUNKS_PER_SLAB_SHIFT) + word / CHUNK_UNIT as u32
}

/// Where the words of a table are read from: BPF maps, the daemon's mapping of them, or a test's arrays.
pub trait Words {
    /// A word of the root.
    fn root(&self, index: u32) -> Option<u32>;
    /// A word of a slab.
    fn slab(&self, slab: u32, index: u32) -> Option<u32>;
}

/// The longest-prefix match for `address` (host byte order).
///
/// `None` only where an entry points to a slab that is not there.
#[inline(always)]
pub fn lookup(words: &impl Words, address: u32) -> Option<Entry> {
    let mut entry = Entry::from_bits(words.root(select_root(address))?);
    // Written out rather than looped: the verifier then sees three straight steps, each with its own bound.
    let Some(chunk) = entry.as_chunk() else { return Some(entry) };
    entry = step(words, LEVELS[0], chunk, address)?;
    let Some(chunk) = entry.as_chunk() else { return Some(entry) };
    entry = step(words, LEVELS[1], chunk, address)?;
    let Some(chunk) = entry.as_chunk() else { return Some(entry) };
    step(words, LEVELS[2], chunk, address)
}

#[inline(always)]
fn step(words: &impl Words, level: Level, chunk: u32, address: u32) -> Option<Entry> {
    let (slab, start) = chunk_position(chunk);
    // Chunks are aligned to their size, so that "or" is "plus" and the index stays below SLAB_WORDS.
    words.slab(slab, opaque(start | level.select(address))).map(Entry::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_numbers_are_inverse() {
        for (slab, word) in [(0, 0), (0, 4), (3, 65_532), (2047, 256)] {
            assert_eq!(chunk_position(chunk_number(slab, word)), (slab, word));
        }
    }

    #[test]
    fn levels_select_the_bits_of_an_address() {
        let address = 0xac13_2382; // 172.19.35.130
        assert_eq!(select_root(address), 0xac13);
        assert_eq!(LEVELS[0].select(address), 35);
        assert_eq!(LEVELS[1].select(address), 2);
        assert_eq!(LEVELS[2].select(address), 2);
    }
}
