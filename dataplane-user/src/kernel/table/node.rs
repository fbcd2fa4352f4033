//! A node of the trie: the root or a chunk, and what a writer does to its words.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use dataplane_common::route::Entry;
use dataplane_common::trie::{self, LEVELS, Level};

use super::memory::Memory;

/// The levels by depth: the root is depth 0.
pub(super) const DEPTHS: [Level; 4] = [Level { start: 0, stride: 16 }, LEVELS[0], LEVELS[1], LEVELS[2]];

const _: () = assert!(DEPTHS[0].end() == DEPTHS[1].start && DEPTHS[0].words() == trie::ROOT_WORDS);

/// The root, or the chunk of that number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) depth: usize,
    /// Without meaning for the root.
    pub(super) chunk: u32,
}

impl Node {
    pub(super) const ROOT: Self = Self { depth: 0, chunk: 0 };

    pub(super) fn level(self) -> Level {
        DEPTHS[self.depth]
    }

    /// Whether the routes of that prefix length stand in words of nodes at this depth.
    pub(super) fn owns(self, length: u8) -> bool {
        length <= self.level().end()
    }

    pub(super) fn child(self, chunk: u32) -> Self {
        Self { depth: self.depth + 1, chunk }
    }

    /// The word that the address selects.
    pub(super) fn index(self, address: u32) -> usize {
        self.level().select(address) as usize
    }

    /// The words of a prefix that is not longer than the level's end; those of a prefix that is shorter
    /// than the level's start are all.
    pub(super) fn range(self, address: u32, length: u8) -> Range<usize> {
        let level = self.level();
        let count = 1 << (level.end() - length.max(level.start));
        let first = self.index(address) & !(count - 1);
        first..first + count
    }

    /// The node's words.
    ///
    /// # Panics
    ///
    /// Where the chunk lies in no slab. `Table::open` refuses such words and nothing else writes them, so
    /// that somebody else has written into the maps meanwhile.
    pub(super) fn words<M: Memory>(self, memory: &M) -> &[AtomicU32] {
        if self.depth == 0 {
            return memory.root();
        }
        let (slab, first) = trie::chunk_position(self.chunk);
        let slab = memory.slab(slab).expect("a chunk of the route table lies in a slab");
        &slab[first as usize..][..self.level().words()]
    }

    /// Whether the node has no longer prefixes of its own: every word is then the entry it was made of.
    pub(super) fn is_idle<M: Memory>(self, memory: &M) -> bool {
        let start = self.level().start;
        self.words(memory)
            .iter()
            .map(load)
            .all(|entry| entry.as_chunk().is_none() && entry.prefix_length() <= start)
    }

    /// Stores what `change` makes of the entries in the words of `range` and below them.
    ///
    /// Every address sees one change, from the old entry to the new. Gives the words that were stored.
    pub(super) fn rewrite<M: Memory>(
        self,
        memory: &M,
        range: Range<usize>,
        change: &impl Fn(Entry) -> Option<Entry>,
    ) -> usize {
        let mut stored = 0;
        for word in &self.words(memory)[range] {
            let present = load(word);
            if let Some(chunk) = present.as_chunk() {
                let below = self.child(chunk);
                stored += below.rewrite(memory, 0..below.level().words(), change);
            } else if let Some(entry) = change(present)
                && entry != present
            {
                publish(word, entry);
                stored += 1;
            }
        }
        stored
    }
}

/// Reads a word as the writer: it is the only one, so that no order is needed.
pub(super) fn load(word: &AtomicU32) -> Entry {
    Entry::from_bits(word.load(Ordering::Relaxed))
}

/// Stores a word of a chunk that nothing points to yet.
pub(super) fn prepare(word: &AtomicU32, entry: Entry) {
    word.store(entry.to_bits(), Ordering::Relaxed);
}

/// Stores a word that programs may be reading. Whoever sees it sees all that was stored before.
pub(super) fn publish(word: &AtomicU32, entry: Entry) {
    word.store(entry.to_bits(), Ordering::Release);
}
