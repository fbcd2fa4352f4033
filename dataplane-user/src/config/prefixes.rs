//! Prefixes of which it can be asked quickly which overlap: files of a hundred thousand routes exist.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

/// Prefixes, each with the offset at which it stands.
#[derive(Default)]
pub(super) struct Prefixes {
    by_start: BTreeMap<(u32, u8), usize>,
}

impl Prefixes {
    /// Adds a prefix; of two equal ones the first stays.
    pub(super) fn insert(&mut self, network: Ipv4Net, at: usize) {
        self.by_start.entry((network.network().to_bits(), network.prefix_len())).or_insert(at);
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// This very prefix.
    pub(super) fn exact(&self, network: Ipv4Net) -> Option<(Ipv4Net, usize)> {
        self.at(network)
    }

    /// The longest prefix that contains all of this one.
    pub(super) fn containing(&self, network: Ipv4Net) -> Option<(Ipv4Net, usize)> {
        std::iter::successors(Some(network), Ipv4Net::supernet).find_map(|wider| self.at(wider))
    }

    /// A prefix that shares an address with this one: one that contains it, or else the first inside it.
    pub(super) fn overlapping(&self, network: Ipv4Net) -> Option<(Ipv4Net, usize)> {
        self.containing(network).or_else(|| {
            let inside = (network.network().to_bits(), 0)..=(network.broadcast().to_bits(), 32);
            self.by_start
                .range(inside)
                .next()
                .map(|(&(start, length), &at)| (Ipv4Net::new_assert(start.into(), length), at))
        })
    }

    fn at(&self, network: Ipv4Net) -> Option<(Ipv4Net, usize)> {
        let at = *self.by_start.get(&(network.network().to_bits(), network.prefix_len()))?;
        Some((network, at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> impl Strategy<Value = Ipv4Net> {
        // Few bits and short lengths, so that overlaps are common.
        (0_u32..64, 24_u8..=32)
            .prop_map(|(bits, length)| Ipv4Net::new_assert((bits << 4).into(), length).trunc())
    }

    proptest! {
        #[test]
        fn answers_are_those_of_a_search_through_all(
            prefixes in prop::collection::vec(prefix(), 0..12), asked in prefix()
        ) {
            let mut index = Prefixes::default();
            for (at, network) in prefixes.iter().enumerate() {
                index.insert(*network, at);
            }
            let contains = |outer: &Ipv4Net, inner: &Ipv4Net| outer.contains(inner);
            let containing =
                prefixes.iter().filter(|other| contains(other, &asked)).max_by_key(|other| other.prefix_len());
            let overlaps = prefixes.iter().any(|other| contains(other, &asked) || contains(&asked, other));
            prop_assert_eq!(index.containing(asked).map(|(found, _)| found), containing.copied());
            prop_assert_eq!(index.overlapping(asked).is_some(), overlaps);
            prop_assert_eq!(
                index.exact(asked).map(|(_, at)| at),
                prefixes.iter().position(|other| *other == asked)
            );
            if let Some((found, at)) = index.overlapping(asked) {
                prop_assert!(contains(&found, &asked) || contains(&asked, &found));
                prop_assert_eq!(prefixes[at], found);
            }
        }
    }
}
