//! Which words of the slabs belong to a chunk, which are free, and which wait.
//!
//! A slab is a row of *blocks* of 256 words. A block is one chunk of 256 words, or four *quarters*; a
//! quarter is one chunk of 64 words, or sixteen *units* of 4 words. One bit for each unit, 64 for a block,
//! says all of that: a chunk is free where its bits are set, and memory that one size gave back serves the
//! others without any merging. The bits cost 8 bytes for each KiB of slabs.
//!
//! A whole quarter is broken into units only when every broken one is full, and a whole block into quarters
//! only when no broken one has a quarter left. Hence the bound on fragmentation: whatever the order of
//! events, the slabs never exceed the sum of what each size took at its own peak, plus one slab.

use std::collections::BTreeSet;

use dataplane_common::trie::{CHUNK_UNIT, LEVELS, Level, SLAB_WORDS};

const UNITS_PER_BLOCK: u32 = u64::BITS;
const UNITS_PER_QUARTER: u32 = UNITS_PER_BLOCK / 4;
const QUARTER: u64 = (1 << UNITS_PER_QUARTER) - 1;
const BLOCKS_PER_SLAB: u32 = SLAB_WORDS as u32 / (UNITS_PER_BLOCK * CHUNK_UNIT as u32);

const _: () = assert!(units(LEVELS[0]) == UNITS_PER_BLOCK);
const _: () = assert!(units(LEVELS[1]) == 1);
const _: () = assert!(units(LEVELS[2]) == UNITS_PER_QUARTER);

const fn units(level: Level) -> u32 {
    (level.words() / CHUNK_UNIT) as u32
}

/// A chunk's bits, the first of them at bit 0.
const fn bits(units: u32) -> u64 {
    u64::MAX >> (u64::BITS - units)
}

/// The chunks of all slabs.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// For each block, the units that are free.
    blocks: Vec<u64>,
    /// The blocks that are free from end to end.
    whole: BTreeSet<u32>,
    /// The other blocks in which a quarter is free from end to end.
    with_quarter: BTreeSet<u32>,
    /// The blocks in which a broken quarter has a free unit.
    with_unit: BTreeSet<u32>,
    /// Chunks that nothing points to any more, but that a program may still be reading.
    waiting: Vec<(u32, Level)>,
    waiting_units: usize,
    used: usize,
    used_units: usize,
}

impl Chunks {
    /// Slabs that were taken in.
    pub(super) fn slabs(&self) -> u32 {
        self.blocks.len() as u32 / BLOCKS_PER_SLAB
    }

    /// Takes in the next slab; all of it is free.
    pub(super) fn add_slab(&mut self) {
        let first = self.blocks.len() as u32;
        self.blocks.resize((first + BLOCKS_PER_SLAB) as usize, u64::MAX);
        self.whole.extend(first..first + BLOCKS_PER_SLAB);
    }

    /// Chunks in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Words of the chunks in use.
    pub(super) fn used_words(&self) -> usize {
        self.used_units * CHUNK_UNIT
    }

    /// Words that wait until no program can be reading them.
    pub(super) fn waiting_words(&self) -> usize {
        self.waiting_units * CHUNK_UNIT
    }

    /// Takes a free chunk for a node of that level, if there is one.
    pub(super) fn take(&mut self, level: Level) -> Option<u32> {
        let units = units(level);
        let block = self.choose(units)?;
        let free = self.blocks[block as usize];
        let unit = match units {
            UNITS_PER_BLOCK => 0,
            UNITS_PER_QUARTER => free_quarter(free)?,
            _ => match broken_quarters(free) {
                0 => free_quarter(free)?,
                broken => broken.trailing_zeros(),
            },
        };
        self.mark(block, free & !(bits(units) << unit));
        self.used += 1;
        self.used_units += units as usize;
        Some(block * UNITS_PER_BLOCK + unit)
    }

    /// The lowest block with room, of those that breaking costs least.
    fn choose(&self, units: u32) -> Option<u32> {
        let tiers: &[&BTreeSet<u32>] = match units {
            UNITS_PER_BLOCK => &[&self.whole],
            UNITS_PER_QUARTER => &[&self.with_quarter, &self.whole],
            _ => &[&self.with_unit, &self.with_quarter, &self.whole],
        };
        tiers.iter().find_map(|tier| tier.first().copied())
    }

    /// Marks a chunk that was found in use. Says whether it can be one: it starts where chunks of its level
    /// may, lies in a slab, and is no part of another.
    pub(super) fn claim(&mut self, chunk: u32, level: Level) -> bool {
        let units = units(level);
        let (block, unit) = (chunk / UNITS_PER_BLOCK, chunk % UNITS_PER_BLOCK);
        let wanted = bits(units).checked_shl(unit).unwrap_or(0);
        let Some(&free) = self.blocks.get(block as usize) else { return false };
        if !unit.is_multiple_of(units) || free & wanted != wanted {
            return false;
        }
        self.mark(block, free & !wanted);
        self.used += 1;
        self.used_units += units as usize;
        true
    }

    /// Gives back a chunk that no program has seen.
    pub(super) fn give_back(&mut self, chunk: u32, level: Level) {
        self.used -= 1;
        self.used_units -= units(level) as usize;
        self.free(chunk, level);
    }

    /// Puts away a chunk that nothing points to any more, until [`Self::release_waiting`].
    pub(super) fn retire(&mut self, chunk: u32, level: Level) {
        self.used -= 1;
        self.used_units -= units(level) as usize;
        self.waiting_units += units(level) as usize;
        self.waiting.push((chunk, level));
    }

    /// Frees what waited; call it only after a grace period.
    pub(super) fn release_waiting(&mut self) {
        for (chunk, level) in std::mem::take(&mut self.waiting) {
            self.free(chunk, level);
        }
        self.waiting_units = 0;
    }

    fn free(&mut self, chunk: u32, level: Level) {
        let (block, unit) = (chunk / UNITS_PER_BLOCK, chunk % UNITS_PER_BLOCK);
        let free = self.blocks[block as usize];
        debug_assert_eq!(free & bits(units(level)) << unit, 0, "chunk {chunk} is freed twice");
        self.mark(block, free | bits(units(level)) << unit);
    }

    /// Stores a block's bits and keeps the sets true to them.
    fn mark(&mut self, block: u32, free: u64) {
        let before = std::mem::replace(&mut self.blocks[block as usize], free);
        let has_quarter = |free| free != u64::MAX && free_quarter(free).is_some();
        let has_unit = |free| broken_quarters(free) != 0;
        keep(&mut self.whole, block, before == u64::MAX, free == u64::MAX);
        keep(&mut self.with_quarter, block, has_quarter(before), has_quarter(free));
        keep(&mut self.with_unit, block, has_unit(before), has_unit(free));
    }
}

fn keep(set: &mut BTreeSet<u32>, block: u32, was: bool, is: bool) {
    match (was, is) {
        (false, true) => _ = set.insert(block),
        (true, false) => _ = set.remove(&block),
        _ => {}
    }
}

fn quarters() -> impl Iterator<Item = u32> {
    (0..UNITS_PER_BLOCK).step_by(UNITS_PER_QUARTER as usize)
}

/// The first unit of the first quarter that is free from end to end.
fn free_quarter(free: u64) -> Option<u32> {
    quarters().find(|unit| free >> unit & QUARTER == QUARTER)
}

/// The free units of the quarters that are not free from end to end.
fn broken_quarters(free: u64) -> u64 {
    quarters()
        .filter(|unit| free >> unit & QUARTER == QUARTER)
        .fold(free, |free, unit| free & !(QUARTER << unit))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Takes a chunk, with a new slab where there is no room.
    fn take(chunks: &mut Chunks, level: Level) -> u32 {
        chunks.take(level).unwrap_or_else(|| {
            chunks.add_slab();
            chunks.take(level).expect("a new slab has room for every size")
        })
    }

    #[test]
    fn memory_of_one_size_serves_the_others() {
        let mut chunks = Chunks::default();
        chunks.add_slab();
        for from in LEVELS {
            for to in LEVELS {
                let taken: Vec<_> = std::iter::from_fn(|| chunks.take(from)).collect();
                assert_eq!(taken.len(), SLAB_WORDS / from.words());
                assert!(chunks.take(to).is_none());
                taken.into_iter().for_each(|chunk| chunks.give_back(chunk, from));
                assert_eq!((chunks.used(), chunks.used_words()), (0, 0));
            }
        }
    }

    #[test]
    fn retired_chunks_are_not_taken_before_they_are_released() {
        let mut chunks = Chunks::default();
        chunks.add_slab();
        let taken: Vec<_> = std::iter::from_fn(|| chunks.take(LEVELS[0])).collect();
        chunks.retire(taken[7], LEVELS[0]);
        assert_eq!(chunks.waiting_words(), 256);
        assert_eq!(chunks.take(LEVELS[1]), None);
        chunks.release_waiting();
        assert_eq!(chunks.take(LEVELS[0]), Some(taken[7]));
        assert_eq!(chunks.waiting_words(), 0);
    }

    #[test]
    fn a_claim_is_refused_where_no_chunk_can_be() {
        let mut chunks = Chunks::default();
        chunks.add_slab();
        assert!(!chunks.claim(16, LEVELS[0]), "not aligned to 256 words");
        assert!(!chunks.claim(17, LEVELS[2]), "not aligned to 64 words");
        assert!(!chunks.claim(BLOCKS_PER_SLAB * UNITS_PER_BLOCK, LEVELS[1]), "beyond the slab");
        assert!(chunks.claim(17, LEVELS[1]));
        assert!(!chunks.claim(16, LEVELS[2]), "overlaps");
        assert!(chunks.claim(32, LEVELS[2]));
        assert!(!chunks.claim(0, LEVELS[0]), "overlaps");
    }

    proptest! {
        #[test]
        fn chunks_never_overlap_and_the_slabs_stay_within_the_bound(
            // Phases of one size each, taking and giving back in turns: what makes holes.
            phases in prop::collection::vec((0_usize..3, 0_usize..1500, any::<u64>()), 1..16),
        ) {
            let mut chunks = Chunks::default();
            let mut held: BTreeMap<u32, Level> = BTreeMap::new();
            let mut peak = [0; 3];
            for (size, count, seed) in phases {
                let level = LEVELS[size];
                for _ in 0..count {
                    let chunk = take(&mut chunks, level);
                    let end = chunk + units(level);
                    prop_assert!(chunk.is_multiple_of(units(level)));
                    if let Some((&below, &other)) = held.range(..end).next_back() {
                        prop_assert!(below + units(other) <= chunk);
                    }
                    held.insert(chunk, level);
                }
                for (peak, level) in peak.iter_mut().zip(LEVELS) {
                    let words: usize = held.values().filter(|held| **held == level).map(|level| level.words()).sum();
                    *peak = words.max(*peak);
                }
                prop_assert_eq!(chunks.used(), held.len());
                let bound = peak.iter().sum::<usize>().div_ceil(SLAB_WORDS) as u32 + 1;
                prop_assert!(chunks.slabs() <= bound, "{} slabs, bound {bound}", chunks.slabs());
                // A hash of the number decides what goes, so that holes lie everywhere.
                held.retain(|&chunk, &mut level| {
                    let stays = (u64::from(chunk) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0;
                    if !stays {
                        chunks.give_back(chunk, level);
                    }
                    stays
                });
            }
        }
    }
}
