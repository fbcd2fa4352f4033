//! Reading a route table that another process writes, in constant memory.
//!
//! The routes come in the order of prefixes, block by block: a block is the /16 of one word of the root. Those that are no
//! longer than a block may first be visible in a later one than their own, so they are gathered before.
//!
//! A chunk that is unlinked may be used again at once as far as this reader is concerned: it takes part in no grace
//! period. So the word that led to a chunk is read again after the chunk, and the block is read anew where it differs.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;

use anyhow::{Result, bail};
use dataplane_common::route::{Entry, Target};
use dataplane_common::trie::{self, ROOT_WORDS};
use ipnet::Ipv4Net;

use super::node::DEPTHS;

/// How often a block is read that changes meanwhile.
const ATTEMPTS: usize = 1000;

/// Prefix length of a block.
const BLOCK: u8 = DEPTHS[0].end();

/// The words of a table, as they are at this moment.
pub trait Source {
    /// A word of the root.
    fn root(&self, index: usize) -> u32;

    /// Copies words of a slab from `first` on; false where there is no such slab.
    ///
    /// # Errors
    ///
    /// Where the slab cannot be read.
    fn slab(&mut self, slab: u32, first: u32, words: &mut [u32]) -> Result<bool>;
}

/// A route as it stands in the table.
type Found = (Ipv4Net, Target);

/// Somebody else's table.
pub struct View<S> {
    source: S,
}

/// A block changed while it was read.
struct Changed;

impl<S: Source> View<S> {
    /// A view of that source's words.
    pub fn new(source: S) -> Self {
        Self { source }
    }

    /// The longest prefix that holds the address, and what it leads to.
    ///
    /// # Errors
    ///
    /// Where the table cannot be read.
    pub fn lookup(&mut self, address: Ipv4Addr) -> Result<Option<Found>> {
        let address = address.to_bits();
        'attempts: for _ in 0..ATTEMPTS {
            let first = self.source.root(trie::select_root(address) as usize);
            let (mut entry, mut path) = (Entry::from_bits(first), Vec::new());
            for level in trie::LEVELS {
                let Some(chunk) = entry.as_chunk() else { break };
                let (slab, start) = trie::chunk_position(chunk);
                let place = (slab, start + level.select(address));
                let Some(word) = self.word(place)? else { continue 'attempts };
                path.push((place, word));
                entry = Entry::from_bits(word);
            }
            // The words that led there, from the last to the root's.
            for &(place, word) in path.iter().rev() {
                if self.word(place)? != Some(word) {
                    continue 'attempts;
                }
            }
            if self.source.root(trie::select_root(address) as usize) == first {
                return Ok(entry.target().map(|target| (prefix(address, entry.prefix_length()), target)));
            }
        }
        bail!("the route table changes faster than it can be read")
    }

    fn word(&mut self, (slab, index): (u32, u32)) -> Result<Option<u32>> {
        let mut word = [0];
        Ok(self.source.slab(slab, index, &mut word)?.then_some(word[0]))
    }

    /// Calls `visit` with each route, in the order of prefixes (by address, the shorter first), until it breaks off.
    ///
    /// # Errors
    ///
    /// Where the table cannot be read, and what `visit` gives.
    pub fn routes(
        &mut self,
        mut visit: impl FnMut(Ipv4Net, Target) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut short = self.short()?.into_iter().peekable();
        let mut block = Block::new();
        for index in 0..ROOT_WORDS {
            self.read_block(index, &mut block)?;
            let here = |prefix: &Ipv4Net| trie::select_root(prefix.network().to_bits()) as usize == index;
            block.routes.retain(|(prefix, _)| prefix.prefix_len() > BLOCK);
            block.routes.extend(std::iter::from_fn(|| short.next_if(|(prefix, _)| here(prefix))));
            block.routes.sort_unstable_by_key(|(prefix, _)| *prefix);
            for &(prefix, target) in &block.routes {
                if visit(prefix, target)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The routes that are no longer than a block, in the order of prefixes: 2^17 at most.
    fn short(&mut self) -> Result<Vec<Found>> {
        let (mut short, mut block): (Vec<Found>, _) = (Vec::new(), Block::new());
        let mut last = [None; BLOCK as usize + 1];
        for index in 0..ROOT_WORDS {
            self.read_block(index, &mut block)?;
            for &(prefix, target) in block.routes.iter().filter(|(prefix, _)| prefix.prefix_len() <= BLOCK) {
                let last = &mut last[usize::from(prefix.prefix_len())];
                if last.replace(prefix) != Some(prefix) {
                    short.push((prefix, target));
                }
            }
        }
        short.sort_unstable_by_key(|(prefix, _)| *prefix);
        Ok(short)
    }

    /// The routes that are visible in a block, each once.
    fn read_block(&mut self, index: usize, block: &mut Block) -> Result<()> {
        for _ in 0..ATTEMPTS {
            block.clear();
            let word = self.source.root(index);
            let address = (index as u32) << (32 - BLOCK);
            if self.read_word(word, 0, address, block)?.is_ok() && self.source.root(index) == word {
                return Ok(());
            }
        }
        bail!(
            "the route table changes faster than it can be read, or is damaged at {}",
            prefix((index as u32) << (32 - BLOCK), BLOCK)
        )
    }

    /// Notes what a word at that depth says, and what lies below it.
    fn read_word(
        &mut self,
        word: u32,
        depth: usize,
        address: u32,
        block: &mut Block,
    ) -> Result<Result<(), Changed>> {
        let entry = Entry::from_bits(word);
        let Some(chunk) = entry.as_chunk() else {
            if let Some(target) = entry.target() {
                block.note(prefix(address, entry.prefix_length().min(32)), target);
            }
            return Ok(Ok(()));
        };
        let Some(level) = DEPTHS.get(depth + 1) else { return Ok(Err(Changed)) };
        let (slab, first) = trie::chunk_position(chunk);
        let mut words = [0; 1 << DEPTHS[1].stride];
        let words = &mut words[..level.words()];
        if !self.source.slab(slab, first, words)? {
            return Ok(Err(Changed));
        }
        for (&word, number) in words.iter().zip(0_u32..) {
            let below = address | number << (32 - level.end());
            let read = self.read_word(word, depth + 1, below, block)?;
            let linked = Entry::from_bits(word).as_chunk().is_some();
            if read.is_err() || linked && self.word((slab, first + number))? != Some(word) {
                return Ok(Err(Changed));
            }
        }
        Ok(Ok(()))
    }
}

const _: () = assert!(DEPTHS[1].stride >= DEPTHS[2].stride && DEPTHS[1].stride >= DEPTHS[3].stride);

/// The routes of a block.
struct Block {
    routes: Vec<Found>,
    /// The last one seen of each length: neighbouring words mostly repeat it.
    last: [Option<Found>; 33],
}

impl Block {
    /// An empty one.
    fn new() -> Self {
        Self { routes: Vec::new(), last: [None; 33] }
    }

    fn clear(&mut self) {
        self.routes.clear();
        self.last = [None; 33];
    }

    fn note(&mut self, prefix: Ipv4Net, target: Target) {
        let last = &mut self.last[usize::from(prefix.prefix_len())];
        if last.replace((prefix, target)) != Some((prefix, target)) {
            self.routes.push((prefix, target));
        }
    }
}

fn prefix(address: u32, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(address), length).trunc()
}
