//! Where the table's words live, and how they are read.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use dataplane_common::trie::Words;

/// The words of a table: BPF maps that are mapped into this process ([`Mapped`](super::Mapped)), or arrays.
pub trait Memory {
    /// The [`ROOT_WORDS`](dataplane_common::trie::ROOT_WORDS) words of the root.
    fn root(&self) -> &[AtomicU32];

    /// The [`SLAB_WORDS`](dataplane_common::trie::SLAB_WORDS) words of a slab, if there is one of that number.
    fn slab(&self, slab: u32) -> Option<&[AtomicU32]>;

    /// Slabs there are: their numbers are 0 up to this.
    fn slabs(&self) -> u32;

    /// Adds at least one slab of zeros.
    ///
    /// # Errors
    ///
    /// Where there are [`MAX_SLABS`](dataplane_common::trie::MAX_SLABS) already, or no memory.
    fn grow(&mut self) -> Result<()>;

    /// Returns when no program can still be using what it read before the call: an RCU grace period.
    ///
    /// # Errors
    ///
    /// Where that cannot be waited for. The caller must then keep what it wanted to use again.
    fn synchronize(&mut self) -> Result<()>;
}

/// Lets [`trie::lookup`](dataplane_common::trie::lookup), which the programs run too, read a [`Memory`].
pub(super) struct Reader<'a, M>(pub(super) &'a M);

impl<M: Memory> Words for Reader<'_, M> {
    fn root(&self, index: u32) -> Option<u32> {
        self.0.root().get(index as usize).map(read)
    }

    fn slab(&self, slab: u32, index: u32) -> Option<u32> {
        self.0.slab(slab)?.get(index as usize).map(read)
    }
}

/// Acquire: what was written into a chunk before the word that points to it was stored is then seen.
fn read(word: &AtomicU32) -> u32 {
    word.load(Ordering::Acquire)
}
