//! A peer in the table, and how many routes and next hops it has there.

use std::{
    collections::{HashMap, hash_map},
    net::Ipv4Addr,
};

use super::paths::{Counts, Path};
use crate::source::bgp::{
    decision::Neighbour,
    filter::{Limits, Refusal},
};

/// A peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the decision must know of it.
    pub neighbour: Neighbour,
    /// What is allowed to it.
    pub limits: Limits,
    /// How many routes of it there are.
    pub counts: Counts,
    /// The next hops of the routes that may be used, with the number of these.
    next_hops: HashMap<Ipv4Addr, u32>,
}

impl Peer {
    /// A peer without routes.
    pub fn new(neighbour: Neighbour, limits: Limits) -> Self {
        Self { neighbour, limits, counts: Counts::default(), next_hops: HashMap::new() }
    }

    /// Whether routes that are refused for the number of next hops could be used now.
    pub fn has_room(&self) -> bool {
        self.counts.refused[Refusal::NextHopLimit as usize] != 0
            && self.next_hops.len() < self.limits.next_hops
    }

    /// A path comes, which is refused where its next hop is one too many.
    pub fn enter(&mut self, path: &mut Path, next_hop: Ipv4Addr) {
        if path.refused.is_none() {
            let full = self.next_hops.len() >= self.limits.next_hops;
            match self.next_hops.entry(next_hop) {
                hash_map::Entry::Occupied(mut routes) => *routes.get_mut() += 1,
                hash_map::Entry::Vacant(_) if full => path.refused = Some(Refusal::NextHopLimit),
                hash_map::Entry::Vacant(place) => {
                    place.insert(1);
                }
            }
        }
        self.counts.add(path);
    }

    /// A path goes.
    pub fn leave(&mut self, path: &Path, next_hop: Ipv4Addr) {
        if path.refused.is_none()
            && let hash_map::Entry::Occupied(mut routes) = self.next_hops.entry(next_hop)
        {
            *routes.get_mut() -= 1;
            if *routes.get() == 0 {
                routes.remove();
            }
        }
        self.counts.remove(path);
    }
}
