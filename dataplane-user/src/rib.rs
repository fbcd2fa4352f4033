//! What the sources want: for each prefix an offer of each source, and which offer holds.
//!
//! Nothing here knows the kernel: the daemon asks what has changed and applies that.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::iter::Peekable;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Serialize, Serializer};

/// Who offers a route. In order of preference: of two offers for one prefix the smaller source's holds.
///
/// Of routes the file comes first, because a person wrote it for this node; then the containers that are on the node,
/// which no other node has; then BGP, which this daemon speaks itself; last what the kernel's table shows, which may be an older word of either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The kernel, of what is the host's own: no route can take its addresses away from it.
    Host,
    /// The configuration file.
    Config,
    /// The kernel, of the containers of this node.
    Workload,
    /// A BGP peer.
    Bgp,
    /// The kernel's own table.
    Kernel,
}

impl Source {
    /// Every source, the most preferred first.
    pub const ALL: [Self; 5] = [Self::Host, Self::Config, Self::Workload, Self::Bgp, Self::Kernel];

    /// The name in `--json` output: `config`, `bgp` or `kernel`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Bgp => "bgp",
            Self::Host | Self::Workload | Self::Kernel => "kernel",
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The routing information base: the offers of all sources. `T` is what a source wants done for a prefix.
///
/// Host bits of a prefix do not count: 10.1.2.3/8 is 10.0.0.0/8.
#[derive(Clone, Debug)]
pub struct Rib<T> {
    /// One map for each source rather than a set of offers for each prefix: almost every prefix has one
    /// source, and a million of them should not each carry room for three.
    offers: [BTreeMap<Ipv4Net, T>; Source::ALL.len()],
    /// Prefixes that have an offer.
    prefixes: usize,
}

impl<T> Default for Rib<T> {
    fn default() -> Self {
        Self { offers: [const { BTreeMap::new() }; Source::ALL.len()], prefixes: 0 }
    }
}

impl<T: Clone + PartialEq> Rib<T> {
    /// A base without offers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `source` wants `wanted` for the prefix, in place of what it wanted before.
    ///
    /// Says whether the prefix's best offer is another one now: another source's, or another wish.
    pub fn set(&mut self, source: Source, prefix: Ipv4Net, wanted: T) -> bool {
        let prefix = prefix.trunc();
        let holds = !self.has_better(source, prefix);
        match self.offers[source as usize].entry(prefix) {
            btree_map::Entry::Occupied(mut offer) => {
                let changed = *offer.get() != wanted;
                offer.insert(wanted);
                changed && holds
            }
            btree_map::Entry::Vacant(place) => {
                place.insert(wanted);
                self.prefixes += usize::from(holds && !self.has_worse(source, prefix));
                holds
            }
        }
    }

    /// How many prefixes `source` offers.
    pub fn offered_by(&self, source: Source) -> usize {
        self.offers[source as usize].len()
    }

    /// Takes back the offer of `source` for the prefix; the next source's holds then.
    ///
    /// Says whether the prefix's best offer is another one now, or gone.
    pub fn withdraw(&mut self, source: Source, prefix: Ipv4Net) -> bool {
        let prefix = prefix.trunc();
        if self.offers[source as usize].remove(&prefix).is_none() {
            return false;
        }
        let held = !self.has_better(source, prefix);
        self.prefixes -= usize::from(held && !self.has_worse(source, prefix));
        held
    }

    /// Makes `wanted` all that `source` offers, and gives the prefixes whose best offer is another one now.
    ///
    /// An offer that stays as it was costs nothing and is not among them.
    pub fn replace(&mut self, source: Source, mut wanted: BTreeMap<Ipv4Net, T>) -> BTreeSet<Ipv4Net> {
        if wanted.keys().any(|prefix| prefix.addr() != prefix.network()) {
            wanted = wanted.into_iter().map(|(prefix, wanted)| (prefix.trunc(), wanted)).collect();
        }
        let present = std::mem::take(&mut self.offers[source as usize]);
        let mut changed = BTreeSet::new();
        for (&prefix, offer) in &wanted {
            let before = present.get(&prefix);
            if before != Some(offer) && !self.has_better(source, prefix) {
                changed.insert(prefix);
                self.prefixes += usize::from(before.is_none() && !self.has_worse(source, prefix));
            }
        }
        for &prefix in present.keys() {
            if !wanted.contains_key(&prefix) && !self.has_better(source, prefix) {
                changed.insert(prefix);
                self.prefixes -= usize::from(!self.has_worse(source, prefix));
            }
        }
        self.offers[source as usize] = wanted;
        changed
    }

    /// The offer that holds for exactly this prefix, and whose it is.
    pub fn best(&self, prefix: Ipv4Net) -> Option<(Source, &T)> {
        self.offers(prefix).next()
    }

    /// All offers of one source.
    pub fn of(&self, source: Source) -> impl Iterator<Item = (Ipv4Net, &T)> {
        self.offers[source as usize].iter().map(|(prefix, offer)| (*prefix, offer))
    }

    /// All offers for exactly this prefix, the best first.
    pub fn offers(&self, prefix: Ipv4Net) -> impl Iterator<Item = (Source, &T)> {
        let prefix = prefix.trunc();
        Source::ALL
            .into_iter()
            .filter_map(move |source| Some((source, self.offers[source as usize].get(&prefix)?)))
    }

    /// The best offer of every prefix, in the order of prefixes (by address, the shorter first).
    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Net, Source, &T)> {
        let mut sources = self.offers.each_ref().map(|offers| offers.iter().peekable());
        std::iter::from_fn(move || next_best(&mut sources))
    }

    /// The best offer of the longest prefix that has one and that the address lies in.
    pub fn longest_match(&self, address: Ipv4Addr) -> Option<(Ipv4Net, Source, &T)> {
        (0..=32).rev().find_map(|length| {
            let prefix = Ipv4Net::new_assert(address, length).trunc();
            self.best(prefix).map(|(source, offer)| (prefix, source, offer))
        })
    }

    /// Prefixes that have an offer.
    pub fn len(&self) -> usize {
        self.prefixes
    }

    /// Whether there is no offer at all.
    pub fn is_empty(&self) -> bool {
        self.prefixes == 0
    }

    fn has_better(&self, source: Source, prefix: Ipv4Net) -> bool {
        self.offers[..source as usize].iter().any(|offers| offers.contains_key(&prefix))
    }

    fn has_worse(&self, source: Source, prefix: Ipv4Net) -> bool {
        self.offers[source as usize + 1..].iter().any(|offers| offers.contains_key(&prefix))
    }
}

type Offers<'a, T> = Peekable<btree_map::Iter<'a, Ipv4Net, T>>;

/// Takes the smallest prefix off all sources that stand at it; the first of them has the best offer.
fn next_best<'a, T>(sources: &mut [Offers<'a, T>; Source::ALL.len()]) -> Option<(Ipv4Net, Source, &'a T)> {
    let prefix = sources.iter_mut().filter_map(|offers| offers.peek().map(|(prefix, _)| **prefix)).min()?;
    let mut best = None;
    for (source, offers) in Source::ALL.into_iter().zip(sources) {
        if let Some((_, offer)) = offers.next_if(|(candidate, _)| **candidate == prefix) {
            best = best.or(Some((prefix, source, offer)));
        }
    }
    best
}

#[cfg(test)]
mod tests;
