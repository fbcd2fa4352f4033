//! The writer of the route table.
//!
//! The shape of the table is that of [`dataplane_common::trie`]. There is one writer; programs on any CPU
//! look addresses up meanwhile, without locks. At every instant they find for every address the route
//! before a change or the one after it, never anything else:
//!
//! - A word is stored in one piece, and the words of a prefix each go from the old entry to the new one.
//! - Where a longer prefix needs chunks that are not there, they are filled completely, the covering entry
//!   everywhere else, and only then is the one word stored that leads to them.
//! - A chunk is unlinked only when all its words are one entry, and that is what replaces it.
//! - An unlinked chunk keeps its words until a grace period has passed, since a program may just have read
//!   the word that led to it.
//!
//! Indexes in targets are the caller's: when an endpoint or next hop goes, its index may be given to another
//! only when no program can still hold an entry with it.

mod chunks;
mod mapped;
mod memory;
mod node;
mod read;
mod routes;

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use dataplane_common::reason::Reason;
use dataplane_common::route::{Entry, MAX_INDEX, Target};
use dataplane_common::trie::{self, Level, ROOT_WORDS, SLAB_WORDS};
use ipnet::Ipv4Net;
use serde::Serialize;
use tracing::info;

pub use self::mapped::Mapped;
pub use self::memory::Memory;
pub use self::read::Unreadable;

use self::chunks::Chunks;
use self::memory::Reader;
use self::node::{Node, load, prepare, publish};
use self::read::Contents;
use self::routes::{Routes, target};

/// Words that may wait for a grace period before one is waited for rather than a slab added.
///
/// A grace period takes milliseconds; with a quarter of a slab (64 KiB) in a batch, it is shared by 64 to
/// 4,096 chunks, and a table whose routes come and go needs one slab more than it would at rest.
const BATCH_WORDS: usize = SLAB_WORDS / 4;

/// The table. All prefixes are taken without their host bits: 10.1.2.3/8 is 10.0.0.0/8.
///
/// Beyond the words themselves a route takes 10 to 20 bytes of the daemon's memory.
#[derive(Debug)]
pub struct Table<M> {
    memory: M,
    routes: Routes,
    chunks: Chunks,
}

/// What a table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Routes in the table.
    pub routes: usize,
    /// Slabs of 256 KiB.
    pub slabs: u32,
    /// Bytes of the root and all slabs, used or not.
    pub bytes: usize,
    /// Chunks in use.
    pub chunks_used: usize,
    /// Bytes of the chunks in use.
    pub chunk_bytes_used: usize,
    /// Bytes of the slabs that are free, or will be after a grace period.
    pub chunk_bytes_free_or_waiting: usize,
}

impl<M: Memory> Table<M> {
    /// Takes over what the memory holds: zeros, or the table of an earlier run.
    ///
    /// The routes are read back from the words, with their prefixes. Two things can differ from what the
    /// earlier run knew, and neither harms a caller that then inserts all that it wants before it removes
    /// what it does not want:
    ///
    /// - A route that longer ones hide entirely stands in no word, and is missing. No packet takes it as
    ///   long as those are there, and inserting it is what makes it come back when they go.
    /// - A change that a killed run left half written is completed, one way or the other.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] (to be found by `downcast_ref`) where the words are no table of this layout, and
    /// whatever [`Memory::synchronize`] gives. The words are then as they were.
    pub fn open(mut memory: M) -> Result<Self> {
        let Contents { routes, chunks, idle, .. } = Contents::read(&memory)?;
        // What the earlier run had unlinked looks free, but may have been unlinked a moment ago.
        memory.synchronize().context("cannot wait for the programs that read the route table")?;
        let mut table = Self { memory, routes, chunks };
        table.complete();
        for address in idle {
            table.visit(Node::ROOT, address, 32, &|_, _| ());
        }
        Ok(table)
    }

    /// The routes, in the order of prefixes (by address, the shorter first).
    pub fn routes(&self) -> impl Iterator<Item = (Ipv4Net, Target)> {
        self.routes.iter().map(|(prefix, entry)| (prefix, target(entry)))
    }

    /// The target of the route with exactly this prefix.
    pub fn get(&self, prefix: Ipv4Net) -> Option<Target> {
        self.routes.get(prefix.trunc()).map(target)
    }

    /// The entry that the programs find for the address.
    pub fn lookup(&self, address: Ipv4Addr) -> Entry {
        trie::lookup(&Reader(&self.memory), address.to_bits())
            .unwrap_or(Entry::route(0, Target::Kernel(Reason::TableFault)))
    }

    /// Adds a route, or gives the one with this prefix another target; returns the target before.
    ///
    /// # Errors
    ///
    /// Where the target's index exceeds [`MAX_INDEX`], and where the table must grow and cannot. The table
    /// is then as before.
    pub fn insert(&mut self, prefix: Ipv4Net, target: Target) -> Result<Option<Target>> {
        if let Target::Endpoint(index) | Target::NextHop(index) = target {
            ensure!(
                index <= MAX_INDEX,
                "{prefix}: index {index} is beyond {MAX_INDEX}, the largest of a route"
            );
        }
        let prefix = prefix.trunc();
        let entry = Entry::route(prefix.prefix_len(), target);
        self.write(prefix, entry).with_context(|| format!("cannot add a route for {prefix}"))?;
        Ok(self.routes.insert(prefix, entry).map(routes::target))
    }

    /// Removes the route with this prefix; returns its target, or `None` where there is no such route.
    ///
    /// Longer routes stay, and the other addresses fall back to the longest shorter route that covers them.
    pub fn remove(&mut self, prefix: Ipv4Net) -> Option<Target> {
        let prefix = prefix.trunc();
        let removed = self.routes.remove(prefix)?;
        let fallback = self.routes.covering(prefix);
        let (address, length) = (prefix.network().to_bits(), prefix.prefix_len());
        self.visit(Node::ROOT, address, length, &|memory, node| {
            let change = |present| (present == removed).then_some(fallback);
            node.rewrite(memory, node.range(address, length), &change);
        });
        Some(target(removed))
    }

    /// The memory that the table is in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Returns when no program can still be reading what it found before the call.
    ///
    /// # Errors
    ///
    /// Whatever [`Memory::synchronize`] gives.
    pub fn synchronize(&mut self) -> Result<()> {
        self.memory.synchronize()
    }

    /// What the table takes.
    pub fn usage(&self) -> Usage {
        let slab_words = self.memory.slabs() as usize * SLAB_WORDS;
        let used_words = self.chunks.used_words();
        Usage {
            routes: self.routes.len(),
            slabs: self.memory.slabs(),
            bytes: (ROOT_WORDS + slab_words) * size_of::<Entry>(),
            chunks_used: self.chunks.used(),
            chunk_bytes_used: used_words * size_of::<Entry>(),
            chunk_bytes_free_or_waiting: (slab_words - used_words) * size_of::<Entry>(),
        }
    }

    /// Writes a route's entry into the words it owns.
    fn write(&mut self, prefix: Ipv4Net, entry: Entry) -> Result<()> {
        let (address, length) = (prefix.network().to_bits(), prefix.prefix_len());
        let node = self.nearest(address, length);
        if node.owns(length) {
            self.paint(node, address, entry);
        } else {
            let index = node.index(address);
            let inherited = load(&node.words(&self.memory)[index]);
            let chunk = self.build(node.depth + 1, address, entry, inherited)?;
            publish(&node.words(&self.memory)[index], Entry::chunk(chunk));
        }
        Ok(())
    }

    /// The node that owns the words of a prefix, or else the last one on the way to it.
    fn nearest(&self, address: u32, length: u8) -> Node {
        let mut node = Node::ROOT;
        while !node.owns(length) {
            let word = load(&node.words(&self.memory)[node.index(address)]);
            let Some(chunk) = word.as_chunk() else { break };
            node = node.child(chunk);
        }
        node
    }

    /// Stores a route's entry where no longer route stands: over no route, over routes that cover it, and
    /// over the one that it replaces. Gives the words that were stored.
    fn paint(&self, node: Node, address: u32, entry: Entry) -> usize {
        let length = entry.prefix_length();
        let change = |present: Entry| (present.prefix_length() <= length).then_some(entry);
        node.rewrite(&self.memory, node.range(address, length), &change)
    }

    /// Builds the chunks from a depth down to the one in which the entry stands, and nobody sees them yet.
    /// Gives the number of the uppermost.
    fn build(&mut self, depth: usize, address: u32, entry: Entry, inherited: Entry) -> Result<u32> {
        let level = node::DEPTHS[depth];
        let node = Node { depth, chunk: self.allocate(level)? };
        let (range, own) = if node.owns(entry.prefix_length()) {
            (node.range(address, entry.prefix_length()), entry)
        } else {
            match self.build(depth + 1, address, entry, inherited) {
                Ok(below) => (node.range(address, level.end()), Entry::chunk(below)),
                Err(error) => {
                    self.chunks.give_back(node.chunk, level);
                    return Err(error);
                }
            }
        };
        for (index, word) in node.words(&self.memory).iter().enumerate() {
            prepare(word, if range.contains(&index) { own } else { inherited });
        }
        Ok(node.chunk)
    }

    fn allocate(&mut self, level: Level) -> Result<u32> {
        if let Some(chunk) = self.chunks.take(level) {
            return Ok(chunk);
        }
        if self.chunks.waiting_words() >= BATCH_WORDS {
            self.reclaim()?;
        }
        if let Some(chunk) = self.chunks.take(level) {
            return Ok(chunk);
        }
        match self.memory.grow() {
            Ok(()) => (self.chunks.slabs()..self.memory.slabs()).for_each(|_| self.chunks.add_slab()),
            Err(error) if self.chunks.waiting_words() == 0 => return Err(error),
            Err(_) => self.reclaim()?,
        }
        self.chunks.take(level).context("the route table's slabs are full")
    }

    /// Makes what waits free.
    fn reclaim(&mut self) -> Result<()> {
        self.memory.synchronize().context("cannot wait for the programs that read the route table")?;
        self.chunks.release_waiting();
        Ok(())
    }

    /// Calls `act` with the node that owns the words of a prefix, if it is there, and unlinks on the way
    /// back the chunks that have nothing of their own left.
    fn visit(&mut self, node: Node, address: u32, length: u8, act: &impl Fn(&M, Node)) {
        if node.owns(length) {
            act(&self.memory, node);
            return;
        }
        let index = node.index(address);
        let Some(chunk) = load(&node.words(&self.memory)[index]).as_chunk() else { return };
        let child = node.child(chunk);
        self.visit(child, address, length, act);
        if child.is_idle(&self.memory) {
            let inherited = load(&child.words(&self.memory)[0]);
            publish(&node.words(&self.memory)[index], inherited);
            self.chunks.retire(chunk, child.level());
        }
    }

    /// Completes what an earlier run left half written: of a route that has some of its words and not all,
    /// or of one that had two targets, the routes that were read are written once more.
    ///
    /// Where nothing was half written nothing is stored: a word that holds a route shows that no longer one
    /// covers it.
    fn complete(&self) {
        let mut stored = 0;
        for (prefix, entry) in self.routes.shorter_first() {
            let address = prefix.network().to_bits();
            let node = self.nearest(address, prefix.prefix_len());
            // A route was read from a word, so that all chunks on the way to it are there.
            debug_assert!(node.owns(prefix.prefix_len()));
            stored += self.paint(node, address, entry);
        }
        if stored > 0 {
            info!(words = stored, "completed a change of the route table that an earlier run had begun");
        }
    }
}

#[cfg(test)]
mod tests;
