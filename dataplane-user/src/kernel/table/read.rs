//! Taking over the words of an earlier run.

use std::fmt;
use std::net::Ipv4Addr;

use dataplane_common::route::Entry;
use ipnet::Ipv4Net;

use super::chunks::Chunks;
use super::memory::Memory;
use super::node::{DEPTHS, Node, load};
use super::routes::Routes;

/// The memory holds what no writer of this layout leaves there. The table must be rebuilt: from new maps, or
/// in memory that was cleared.
#[derive(Debug)]
pub struct Unreadable {
    /// The addresses of the word.
    range: Ipv4Net,
    word: Entry,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    TooLong,
    NoTarget,
    TooDeep,
    BadChunk,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Fault::TooLong => "a route that is longer than the table's level",
            Fault::NoTarget => "a route of a kind that this version does not know",
            Fault::TooDeep => "a chunk below the last level",
            Fault::BadChunk => "a chunk that lies in no slab, or is used twice",
        };
        write!(
            f,
            "the route table cannot be read: its word for {} ({:#010x}) is {fault}; the table must be rebuilt",
            self.range,
            self.word.to_bits()
        )
    }
}

impl std::error::Error for Unreadable {}

/// What stands in a table's words.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) routes: Routes,
    pub(super) chunks: Chunks,
    /// Addresses of the chunks that have nothing of their own: a run ended between emptying and unlinking.
    pub(super) idle: Vec<u32>,
    /// The last route seen of each length. Neighbouring words mostly repeat it.
    last: [Option<(Ipv4Net, Entry)>; 33],
}

impl Contents {
    /// Reads the whole table.
    pub(super) fn read<M: Memory>(memory: &M) -> Result<Self, Unreadable> {
        let mut contents =
            Self { routes: Routes::new(), chunks: Chunks::default(), idle: Vec::new(), last: [None; 33] };
        (0..memory.slabs()).for_each(|_| contents.chunks.add_slab());
        contents.read_node(memory, Node::ROOT, 0)?;
        Ok(contents)
    }

    fn read_node<M: Memory>(&mut self, memory: &M, node: Node, address: u32) -> Result<(), Unreadable> {
        let end = node.level().end();
        for (word, index) in node.words(memory).iter().zip(0_u32..) {
            let entry = load(word);
            let address = address | index << (32 - end);
            let refuse = |fault| Unreadable { range: prefix(address, end), word: entry, fault };
            if let Some(chunk) = entry.as_chunk() {
                let level = *DEPTHS.get(node.depth + 1).ok_or_else(|| refuse(Fault::TooDeep))?;
                // Each chunk can be claimed once, so that a loop ends here as well.
                if !self.chunks.claim(chunk, level) {
                    return Err(refuse(Fault::BadChunk));
                }
                let child = node.child(chunk);
                self.read_node(memory, child, address)?;
                if child.is_idle(memory) {
                    self.idle.push(address);
                }
            } else if !entry.is_none() {
                if entry.target().is_none() {
                    return Err(refuse(Fault::NoTarget));
                }
                if entry.prefix_length() > end {
                    return Err(refuse(Fault::TooLong));
                }
                self.note(prefix(address, entry.prefix_length()), entry);
            }
        }
        Ok(())
    }

    fn note(&mut self, prefix: Ipv4Net, entry: Entry) {
        let last = &mut self.last[usize::from(prefix.prefix_len())];
        if *last != Some((prefix, entry)) {
            *last = Some((prefix, entry));
            self.routes.insert(prefix, entry);
        }
    }
}

fn prefix(address: u32, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(address), length).trunc()
}
