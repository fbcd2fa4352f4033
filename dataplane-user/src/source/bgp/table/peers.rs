//! The peers in the table, and how many routes and next hops each has there.

use std::{
    collections::{HashMap, hash_map},
    net::Ipv4Addr,
};

use dataplane_common::names::MAX_NEXT_HOPS;

use super::paths::{Counts, Path, PeerId};
use crate::source::bgp::{
    decision::Neighbour,
    filter::{Limits, Refusal},
};

/// Next hops that the routes of all peers may have together, where no single one may have more. Each takes two slots of
/// the data path's table at most, so that an eighth is left for what is the node's own.
const NEXT_HOPS: usize = MAX_NEXT_HOPS as usize * 7 / 16;

/// A peer.
#[derive(Clone, Debug)]
struct Peer {
    neighbour: Neighbour,
    limits: Limits,
    counts: Counts,
    /// The next hops of the routes that may be used, with the number of these.
    next_hops: HashMap<Ipv4Addr, u32>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    peers: Vec<Option<Peer>>,
    /// The next hops of all, with the number of peers that have each.
    next_hops: HashMap<Ipv4Addr, u32>,
    /// How many there may be.
    most: usize,
}

impl Peers {
    /// Takes in a peer without routes.
    pub fn add(&mut self, neighbour: Neighbour, limits: Limits) -> PeerId {
        let peer = Peer { neighbour, limits, counts: Counts::default(), next_hops: HashMap::new() };
        let index = self.peers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        self.peers[index] = Some(peer);
        self.set_most();
        PeerId(index as u16)
    }

    /// Forgets a peer, whose paths went before.
    pub fn remove(&mut self, id: PeerId) {
        self.peers[usize::from(id.0)] = None;
        self.set_most();
    }

    fn get(&self, id: PeerId) -> Option<&Peer> {
        self.peers[usize::from(id.0)].as_ref()
    }

    fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers[usize::from(id.0)].as_mut()
    }

    /// How many routes of a peer there are.
    pub fn counts(&self, id: PeerId) -> Counts {
        self.get(id).map(|peer| peer.counts).unwrap_or_default()
    }

    /// What the decision must know of a peer.
    pub fn neighbour(&self, id: PeerId) -> Option<Neighbour> {
        self.get(id).map(|peer| peer.neighbour)
    }

    /// What is allowed to a peer.
    pub fn limits(&self, id: PeerId) -> Option<Limits> {
        self.get(id).map(|peer| peer.limits)
    }

    /// Notes the identifier of a peer's new session.
    pub fn set_identifier(&mut self, id: PeerId, identifier: Ipv4Addr) {
        if let Some(peer) = self.get_mut(id) {
            peer.neighbour.identifier = identifier;
        }
    }

    /// Notes that all routes of a peer are stale.
    pub fn set_stale(&mut self, id: PeerId) {
        if let Some(peer) = self.get_mut(id) {
            peer.counts.stale = peer.counts.received;
        }
    }

    fn set_most(&mut self) {
        let of_one = self.peers.iter().flatten().map(|peer| peer.limits.next_hops).max();
        self.most = of_one.unwrap_or(0).max(NEXT_HOPS);
    }

    /// For each peer, whether routes that are refused for the number of next hops could be used now.
    pub fn with_room(&self) -> impl Iterator<Item = bool> {
        let room = self.next_hops.len() < self.most;
        self.peers.iter().map(move |peer| {
            peer.as_ref().is_some_and(|peer| {
                let waits = peer.counts.refused[Refusal::NextHopLimit as usize] != 0;
                room && waits && peer.next_hops.len() < peer.limits.next_hops
            })
        })
    }

    /// A path comes, which is refused where its next hop is one too many.
    pub fn enter(&mut self, path: &mut Path, next_hop: Ipv4Addr) {
        let most = self.most;
        let Some(peer) = &mut self.peers[usize::from(path.peer.0)] else { return };
        if path.refused.is_none() {
            if let Some(routes) = peer.next_hops.get_mut(&next_hop) {
                *routes += 1;
            } else if peer.next_hops.len() < peer.limits.next_hops
                && (self.next_hops.len() < most || self.next_hops.contains_key(&next_hop))
            {
                peer.next_hops.insert(next_hop, 1);
                *self.next_hops.entry(next_hop).or_default() += 1;
            } else {
                path.refused = Some(Refusal::NextHopLimit);
            }
        }
        peer.counts.add(path);
    }

    /// A path goes.
    pub fn leave(&mut self, path: &Path, next_hop: Ipv4Addr) {
        let Some(peer) = &mut self.peers[usize::from(path.peer.0)] else { return };
        if path.refused.is_none() && is_last(&mut peer.next_hops, next_hop) {
            is_last(&mut self.next_hops, next_hop);
        }
        peer.counts.remove(path);
    }
}

/// Takes one off the number; says whether it was the last.
fn is_last(numbers: &mut HashMap<Ipv4Addr, u32>, next_hop: Ipv4Addr) -> bool {
    let hash_map::Entry::Occupied(mut number) = numbers.entry(next_hop) else { return false };
    *number.get_mut() -= 1;
    let last = *number.get() == 0;
    if last {
        number.remove();
    }
    last
}
