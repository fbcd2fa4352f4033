//! A table's words in this process, shared by clones, with a grace period of its own.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, ensure};
use dataplane_common::trie::{MAX_SLABS, ROOT_WORDS, SLAB_WORDS};

use crate::kernel::table::Memory;

/// Clones share the words: a second table over a clone is the next run of the daemon.
#[derive(Clone, Debug)]
pub(super) struct Heap(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: Vec<AtomicU32>,
    slabs: Vec<OnceLock<Vec<AtomicU32>>>,
    count: AtomicU32,
    /// Steps of the one reader: odd within a lookup.
    reader: AtomicU64,
    synchronized: AtomicUsize,
}

impl Default for Heap {
    fn default() -> Self {
        Self::limited(MAX_SLABS)
    }
}

impl Heap {
    /// Memory that cannot grow beyond so many slabs.
    pub(super) fn limited(slabs: u32) -> Self {
        Self(Arc::new(Shared {
            root: zeros(ROOT_WORDS),
            slabs: (0..slabs).map(|_| OnceLock::new()).collect(),
            count: AtomicU32::new(0),
            reader: AtomicU64::new(0),
            synchronized: AtomicUsize::new(0),
        }))
    }

    /// Grace periods that were waited for.
    pub(super) fn synchronized(&self) -> usize {
        self.0.synchronized.load(Ordering::Relaxed)
    }

    /// Runs what a program would run: the writer's grace periods wait for it. For one thread at a time.
    pub(super) fn read<T>(&self, program: impl FnOnce(&Self) -> T) -> T {
        self.0.reader.fetch_add(1, Ordering::SeqCst);
        let result = program(self);
        self.0.reader.fetch_add(1, Ordering::SeqCst);
        result
    }
}

impl Memory for Heap {
    fn root(&self) -> &[AtomicU32] {
        &self.0.root
    }

    fn slab(&self, slab: u32) -> Option<&[AtomicU32]> {
        self.0.slabs.get(slab as usize)?.get().map(Vec::as_slice)
    }

    fn slabs(&self) -> u32 {
        self.0.count.load(Ordering::Acquire)
    }

    fn grow(&mut self) -> Result<()> {
        let number = self.slabs();
        ensure!((number as usize) < self.0.slabs.len(), "no room for slab {number}");
        self.0.slabs[number as usize].set(zeros(SLAB_WORDS)).expect("one writer");
        self.0.count.store(number + 1, Ordering::Release);
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        self.0.synchronized.fetch_add(1, Ordering::Relaxed);
        let step = self.0.reader.load(Ordering::SeqCst);
        while step % 2 == 1 && self.0.reader.load(Ordering::SeqCst) == step {
            std::thread::yield_now();
        }
        Ok(())
    }
}

fn zeros(words: usize) -> Vec<AtomicU32> {
    (0..words).map(|_| AtomicU32::new(0)).collect()
}
