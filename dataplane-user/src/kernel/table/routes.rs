//! The set of routes in a table.

use std::collections::BTreeMap;

use dataplane_common::route::{Entry, Target};
use ipnet::Ipv4Net;

/// The routes, by prefix.
///
/// The trie alone does not do: a route that longer ones hide entirely stands in no word, and comes back when
/// one of those goes. A B-tree rather than a hash table, because it grows by small steps (a hash table of
/// a million copies itself into twice the room) and lists the routes in order. A route takes 9 bytes in it,
/// with the tree's slack 10 to 20.
#[derive(Debug)]
pub(super) struct Routes {
    by_prefix: BTreeMap<Ipv4Net, Entry>,
    /// Routes of each prefix length: tables have few lengths, and the search for a covering route skips
    /// the rest.
    of_length: [u32; 33],
}

impl Routes {
    pub(super) const fn new() -> Self {
        Self { by_prefix: BTreeMap::new(), of_length: [0; 33] }
    }

    pub(super) fn len(&self) -> usize {
        self.by_prefix.len()
    }

    pub(super) fn get(&self, prefix: Ipv4Net) -> Option<Entry> {
        self.by_prefix.get(&prefix).copied()
    }

    /// Gives the entry that the prefix had before.
    pub(super) fn insert(&mut self, prefix: Ipv4Net, entry: Entry) -> Option<Entry> {
        let before = self.by_prefix.insert(prefix, entry);
        self.of_length[usize::from(prefix.prefix_len())] += u32::from(before.is_none());
        before
    }

    pub(super) fn remove(&mut self, prefix: Ipv4Net) -> Option<Entry> {
        let before = self.by_prefix.remove(&prefix)?;
        self.of_length[usize::from(prefix.prefix_len())] -= 1;
        Some(before)
    }

    /// The entry of the longest route that is shorter than the prefix and covers it.
    pub(super) fn covering(&self, prefix: Ipv4Net) -> Entry {
        (0..prefix.prefix_len())
            .rev()
            .filter(|length| self.of_length[usize::from(*length)] > 0)
            .find_map(|length| self.get(Ipv4Net::new_assert(prefix.addr(), length).trunc()))
            .unwrap_or(Entry::NONE)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ipv4Net, Entry)> {
        self.by_prefix.iter().map(|(prefix, entry)| (*prefix, *entry))
    }

    /// The routes, shorter prefixes before the longer ones that they cover.
    pub(super) fn shorter_first(&self) -> impl Iterator<Item = (Ipv4Net, Entry)> {
        (0..=32_u8)
            .filter(|length| self.of_length[usize::from(*length)] > 0)
            .flat_map(|length| self.iter().filter(move |(prefix, _)| prefix.prefix_len() == length))
    }
}

/// What the entry of a route leads to.
///
/// # Panics
///
/// Where it is no route's: only routes are put into [`Routes`].
pub(super) fn target(entry: Entry) -> Target {
    entry.target().expect("the entry of a route has a target")
}
