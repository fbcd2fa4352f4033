//! What the peers said: every path to every prefix, the best first, and which next hops changed.

mod paths;
mod peers;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    mem,
    net::Ipv4Addr,
    ops::Bound,
};

use ipnet::Ipv4Net;

use super::{
    attributes::{Attributes, Interner},
    decision::{self, Neighbour},
    filter::{Limits, Refusal, Rules, Surroundings},
};

pub use self::paths::{Counts, Path, PeerId};
use self::{paths::Paths, peers::Peers};

/// A prefix, and the next hop of its best route from now on.
pub type Change = (Ipv4Net, Option<Ipv4Addr>);

/// The routes of all peers.
#[derive(Debug)]
pub struct Table {
    /// A tree rather than a hash table: that would have to be there twice whenever it grows.
    routes: BTreeMap<Ipv4Net, Paths>,
    attributes: Interner,
    peers: Peers,
    rules: Rules,
    surroundings: Surroundings,
    changes: Vec<Change>,
    /// Older changes, on their way out.
    leaving: std::vec::IntoIter<Change>,
}

impl Table {
    /// A table without routes.
    pub fn new(rules: Rules) -> Self {
        Self {
            routes: BTreeMap::new(),
            attributes: Interner::default(),
            peers: Peers::default(),
            rules,
            surroundings: Surroundings::default(),
            changes: Vec::new(),
            leaving: Vec::new().into_iter(),
        }
    }

    /// Takes in a peer.
    pub fn add_peer(&mut self, neighbour: Neighbour, limits: Limits) -> PeerId {
        self.peers.add(neighbour, limits)
    }

    /// Notes the identifier of a peer's new session.
    pub fn set_identifier(&mut self, id: PeerId, identifier: Ipv4Addr) {
        self.peers.set_identifier(id, identifier);
    }

    /// Forgets a peer and all it said.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.remove_paths(id, |_| true);
        self.peers.remove(id);
    }

    /// How many routes of a peer are here.
    pub fn counts(&self, id: PeerId) -> Counts {
        self.peers.counts(id)
    }

    /// A peer announces prefixes, all with the same attributes.
    pub fn announce(&mut self, id: PeerId, prefixes: &[Ipv4Net], attributes: Attributes) {
        let Some(limits) = self.peers.limits(id) else { return };
        let by_attributes = self.surroundings.judge_attributes(&self.rules, limits, &attributes);
        let attributes = self.attributes.acquire(attributes);
        for &prefix in prefixes {
            let by_prefix = self.surroundings.refuse_prefix(&self.rules, prefix);
            let refused = by_attributes.with(by_prefix);
            self.attributes.retain(attributes);
            self.put(prefix, Path::new(attributes, id, refused));
        }
        self.attributes.release(attributes);
    }

    fn put(&mut self, prefix: Ipv4Net, mut path: Path) {
        let Self { routes, attributes, peers, changes, .. } = self;
        match routes.entry(prefix) {
            btree_map::Entry::Vacant(place) => {
                enter(peers, attributes, &mut path);
                let next_hop = next_hop(attributes, &path);
                place.insert(Paths::One(path));
                if next_hop.is_some() {
                    changes.push((prefix, next_hop));
                }
            }
            btree_map::Entry::Occupied(mut place) => {
                let paths = place.get_mut();
                let before = told(attributes, paths);
                match paths.as_mut_slice().iter_mut().find(|held| held.peer == path.peer) {
                    Some(held) => {
                        leave(peers, attributes, held);
                        enter(peers, attributes, &mut path);
                        let replaced = mem::replace(held, path);
                        select(paths, attributes, peers);
                        let after = told(attributes, paths);
                        attributes.release(replaced.attributes);
                        note(changes, prefix, before, after);
                    }
                    None => {
                        enter(peers, attributes, &mut path);
                        paths.push(path);
                        select(paths, attributes, peers);
                        note(changes, prefix, before, told(attributes, paths));
                    }
                }
            }
        }
    }

    /// A peer withdraws prefixes; those that it never announced do not matter.
    pub fn withdraw(&mut self, id: PeerId, prefixes: &[Ipv4Net]) {
        for prefix in prefixes {
            let Self { routes, attributes, peers, changes, .. } = self;
            if let btree_map::Entry::Occupied(mut place) = routes.entry(*prefix)
                && !take_off(*prefix, place.get_mut(), attributes, peers, changes, |path| path.peer == id)
            {
                place.remove();
            }
        }
    }

    /// The session to a peer ended, and it may come back with the same routes: they stay in use, as stale.
    pub fn make_stale(&mut self, id: PeerId) {
        for paths in self.routes.values_mut() {
            for path in paths.as_mut_slice().iter_mut().filter(|path| path.peer == id) {
                path.stale = true;
            }
        }
        self.peers.set_stale(id);
    }

    /// Forgets what a peer has not said again since it restarted.
    pub fn remove_stale(&mut self, id: PeerId) {
        if self.counts(id).stale != 0 {
            self.remove_paths(id, |path| path.stale);
        }
    }

    /// Forgets all that a peer said.
    pub fn remove_all(&mut self, id: PeerId) {
        if self.counts(id).received != 0 {
            self.remove_paths(id, |_| true);
        }
    }

    fn remove_paths(&mut self, id: PeerId, which: impl Fn(&Path) -> bool) {
        let Self { routes, attributes, peers, changes, .. } = self;
        routes.retain(|prefix, paths| {
            take_off(*prefix, paths, attributes, peers, changes, |path| path.peer == id && which(path))
        });
    }

    /// Other rules hold from now on, also for what was learned before.
    pub fn set_rules(&mut self, rules: Rules) {
        if self.rules != rules {
            self.rules = rules;
            self.judge_all();
        }
    }

    /// The node has, or reaches, something else from now on.
    pub fn set_surroundings(&mut self, surroundings: Surroundings) {
        let next_hops = self.attributes.iter().map(|attributes| attributes.next_hop);
        let difference = surroundings.difference(&self.surroundings, next_hops);
        self.surroundings = surroundings;
        match difference {
            None => self.judge_all(),
            Some(addresses) => self.judge_some(&addresses),
        }
    }

    fn judge_all(&mut self) {
        let Self { routes, attributes, peers, rules, surroundings, changes, .. } = self;
        for (&prefix, paths) in routes {
            judge(prefix, paths, attributes, peers, changes, rules, surroundings);
        }
    }

    fn judge_some(&mut self, addresses: &BTreeSet<Ipv4Addr>) {
        let Self { routes, attributes, peers, rules, surroundings, changes, .. } = self;
        for prefix in addresses.iter().map(|address| Ipv4Net::from(*address)) {
            if let Some(paths) = routes.get_mut(&prefix) {
                judge(prefix, paths, attributes, peers, changes, rules, surroundings);
            }
        }
    }

    /// Whether a peer has fewer next hops again than it may have, and routes that were refused for that.
    pub fn can_readmit(&self) -> bool {
        self.peers.with_room().any(|room| room)
    }

    /// Judges those routes again. It looks at every route: not to be done for each that goes.
    pub fn readmit(&mut self) {
        let Self { routes, attributes, peers, rules, surroundings, changes, .. } = self;
        let ids: Vec<bool> = peers.with_room().collect();
        let waits =
            |path: &Path| path.refused == Some(Refusal::NextHopLimit) && ids[usize::from(path.peer.0)];
        for (&prefix, paths) in routes {
            if paths.as_slice().iter().any(waits) {
                judge(prefix, paths, attributes, peers, changes, rules, surroundings);
            }
        }
    }

    /// Changes that nobody has taken yet.
    pub fn pending(&self) -> usize {
        self.changes.len() + self.leaving.len()
    }

    /// Takes some of the oldest changes, at most `limit`, each prefix once. They come by prefix, whatever the order
    /// in which the peers told them: neighbours in a table are found faster one after the other.
    pub fn take_changes(&mut self, limit: usize) -> Vec<Change> {
        if self.leaving.len() == 0 {
            let mut changes = mem::take(&mut self.changes);
            // The last one for a prefix holds.
            changes.reverse();
            changes.sort_by_key(|(prefix, _)| *prefix);
            changes.dedup_by_key(|(prefix, _)| *prefix);
            self.leaving = changes.into_iter();
        }
        self.leaving.by_ref().take(limit).collect()
    }

    /// The prefixes after this one, in their order, with the paths to each, the best first, and what these say.
    pub fn after(
        &self,
        prefix: Option<Ipv4Net>,
    ) -> impl Iterator<Item = (Ipv4Net, impl Iterator<Item = (&Path, &Attributes)>)> {
        let begin = prefix.map_or(Bound::Unbounded, Bound::Excluded);
        self.routes.range((begin, Bound::Unbounded)).map(|(&prefix, paths)| {
            let paths = paths.as_slice().iter();
            (prefix, paths.map(|path| (path, self.attributes.get(path.attributes))))
        })
    }

    /// Prefixes, and distinct sets of attributes.
    #[cfg(test)]
    pub fn size(&self) -> (usize, usize) {
        (self.routes.len(), self.attributes.len())
    }
}

fn enter(peers: &mut Peers, attributes: &Interner, path: &mut Path) {
    peers.enter(path, attributes.get(path.attributes).next_hop);
}

fn leave(peers: &mut Peers, attributes: &Interner, path: &Path) {
    peers.leave(path, attributes.get(path.attributes).next_hop);
}

fn next_hop(attributes: &Interner, path: &Path) -> Option<Ipv4Addr> {
    path.refused.is_none().then(|| attributes.get(path.attributes).next_hop)
}

/// The next hop that was told of for these paths.
fn told(attributes: &Interner, paths: &Paths) -> Option<Ipv4Addr> {
    paths.as_slice().first().and_then(|path| next_hop(attributes, path))
}

fn note(changes: &mut Vec<Change>, prefix: Ipv4Net, before: Option<Ipv4Addr>, after: Option<Ipv4Addr>) {
    if before != after {
        changes.push((prefix, after));
    }
}

/// Puts the best path first.
fn select(paths: &mut Paths, attributes: &Interner, peers: &Peers) {
    let Paths::Many(paths) = paths else { return };
    let neighbour = |path: &Path| peers.neighbour(path.peer).expect("a peer's paths go before it does");
    if let Some(best) = decision::best(paths, attributes, neighbour) {
        paths.swap(0, best);
    }
}

/// Takes off the paths for which `gone` holds; says whether any is left.
fn take_off(
    prefix: Ipv4Net,
    paths: &mut Paths,
    attributes: &mut Interner,
    peers: &mut Peers,
    changes: &mut Vec<Change>,
    gone: impl Fn(&Path) -> bool,
) -> bool {
    if !paths.as_slice().iter().any(&gone) {
        return true;
    }
    let before = told(attributes, paths);
    let left = paths.retain(|path| {
        let goes = gone(path);
        if goes {
            leave(peers, attributes, path);
            attributes.release(path.attributes);
        }
        !goes
    });
    if left {
        select(paths, attributes, peers);
    }
    let after = if left { told(attributes, paths) } else { None };
    note(changes, prefix, before, after);
    left
}

/// Judges the paths to a prefix again.
fn judge(
    prefix: Ipv4Net,
    paths: &mut Paths,
    attributes: &Interner,
    peers: &mut Peers,
    changes: &mut Vec<Change>,
    rules: &Rules,
    surroundings: &Surroundings,
) {
    let before = told(attributes, paths);
    let by_prefix = surroundings.refuse_prefix(rules, prefix);
    for path in paths.as_mut_slice() {
        let Some(limits) = peers.limits(path.peer) else { continue };
        let of_path = attributes.get(path.attributes);
        peers.leave(path, of_path.next_hop);
        path.refused = surroundings.judge_attributes(rules, limits, of_path).with(by_prefix);
        peers.enter(path, of_path.next_hop);
    }
    select(paths, attributes, peers);
    note(changes, prefix, before, told(attributes, paths));
}

#[cfg(test)]
mod tests;
