//! A set of ports, written as the kernel writes lists of them.

use std::{
    fmt,
    ops::{BitAnd, BitOr, RangeInclusive, Sub},
};

use dataplane_common::ports::{WORDS_PER_ROW, bit, word};

/// Ports, a bit for each.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; WORDS_PER_ROW as usize]>);

impl PortSet {
    /// No port.
    pub fn new() -> Self {
        Self(Box::new([0; WORDS_PER_ROW as usize]))
    }

    /// Reads what `net.ipv4.ip_local_reserved_ports` holds, as in `8080,9000-9010`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut ports = Self::new();
        for item in text.trim().split(',').filter(|item| !item.is_empty()) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            ports.insert_all(first.parse().ok()?..=last.parse().ok()?);
        }
        Some(ports)
    }

    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        self.0[word(0, port) as usize] |= bit(port);
    }

    /// Adds every port of a range.
    pub fn insert_all(&mut self, range: RangeInclusive<u16>) {
        range.for_each(|port| self.insert(port));
    }

    /// Whether the port is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0[word(0, port) as usize] & bit(port) != 0
    }

    /// Whether every port of these is among the others.
    pub fn is_subset(&self, others: &Self) -> bool {
        self.0.iter().zip(others.0.iter()).all(|(word, other)| word & !other == 0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The ports, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|port| self.contains(*port))
    }

    /// The ports as ranges, as long as they can be, the lowest first.
    pub fn ranges(&self) -> Vec<RangeInclusive<u16>> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for port in self.iter() {
            match ranges.last_mut().filter(|range| range.end().checked_add(1) == Some(port)) {
                Some(range) => *range = *range.start()..=port,
                None => ranges.push(port..=port),
            }
        }
        ranges
    }

    /// The bits, 64 ports to a word.
    pub fn words(&self) -> &[u64] {
        self.0.as_slice()
    }

    fn combine(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = self.clone();
        for (word, other) in result.0.iter_mut().zip(other.0.iter()) {
            *word = with(*word, *other);
        }
        result
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl From<RangeInclusive<u16>> for PortSet {
    fn from(range: RangeInclusive<u16>) -> Self {
        let mut ports = Self::new();
        ports.insert_all(range);
        ports
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(iter: I) -> Self {
        let mut ports = Self::new();
        iter.into_iter().for_each(|port| ports.insert(port));
        ports
    }
}

impl BitAnd for &PortSet {
    type Output = PortSet;

    fn bitand(self, other: Self) -> PortSet {
        self.combine(other, |word, other| word & other)
    }
}

impl BitOr for &PortSet {
    type Output = PortSet;

    fn bitor(self, other: Self) -> PortSet {
        self.combine(other, |word, other| word | other)
    }
}

impl Sub for &PortSet {
    type Output = PortSet;

    fn sub(self, other: Self) -> PortSet {
        self.combine(other, |word, other| word & !other)
    }
}

/// As `net.ipv4.ip_local_reserved_ports` is written and read.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_read_as_the_kernel_prints_it() {
        assert!(PortSet::parse("\n").unwrap().is_empty());
        let ports = PortSet::parse("8080,9000-9010\n").unwrap();
        assert_eq!((ports.len(), ports.to_string().as_str()), (12, "8080,9000-9010"));
        assert_eq!(PortSet::parse("0-65535").unwrap().len(), 65_536);
        for wrong in ["8080-", "eighty", "70000", "1;2"] {
            assert_eq!(PortSet::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            some in prop::collection::btree_set(any::<u16>(), 0..200),
            others in prop::collection::btree_set(0..2000_u16, 0..200),
        ) {
            let (a, b): (PortSet, PortSet) = (some.iter().copied().collect(), others.iter().copied().collect());
            let as_set = |ports: &PortSet| ports.iter().collect::<BTreeSet<u16>>();
            prop_assert_eq!(as_set(&a), some.clone());
            prop_assert_eq!(as_set(&(&a & &b)), &some & &others);
            prop_assert_eq!(as_set(&(&a | &b)), &some | &others);
            prop_assert_eq!(as_set(&(&a - &b)), &some - &others);
            prop_assert_eq!(a.len(), some.len());
            prop_assert_eq!(a.is_subset(&b), some.is_subset(&others));
            prop_assert_eq!(PortSet::parse(&b.to_string()), Some(b));
        }
    }
}
