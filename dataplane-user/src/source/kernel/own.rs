//! The routes of table `main` that the daemon wrote, in this run or an earlier one.

use std::collections::BTreeMap;

use dataplane_common::names::ROUTE_METRIC;
use ipnet::Ipv4Net;

use crate::kernel::netlink::{OwnRoute, OwnTarget};

/// By prefix: as many as there are blocks in the cluster, and so kept small.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnRoutes {
    /// Those with the daemon's metric.
    current: BTreeMap<Ipv4Net, OwnTarget>,
    /// Those of metric 0, which older versions wrote.
    older: BTreeMap<Ipv4Net, OwnTarget>,
}

impl OwnRoutes {
    fn of(&mut self, metric: u32) -> &mut BTreeMap<Ipv4Net, OwnTarget> {
        if metric == ROUTE_METRIC { &mut self.current } else { &mut self.older }
    }

    /// Whether that changed anything.
    pub(super) fn put(&mut self, own: OwnRoute) -> bool {
        self.of(own.metric).insert(own.destination, own.target) != Some(own.target)
    }

    /// Whether there was such a route. A deletion of one that was replaced meanwhile finds the new one, which stays.
    pub(super) fn remove(&mut self, own: &OwnRoute) -> bool {
        let routes = self.of(own.metric);
        let found = routes.get(&own.destination) == Some(&own.target);
        if found {
            routes.remove(&own.destination);
        }
        found
    }

    /// Whether there is a route of ours that a replacement with that metric may have taken the place of.
    pub(super) fn holds(&self, metric: u32, prefix: Ipv4Net) -> bool {
        match metric {
            0 => self.older.contains_key(&prefix),
            ROUTE_METRIC => self.current.contains_key(&prefix),
            _ => false,
        }
    }

    /// Forgets the one that was replaced.
    pub(super) fn forget(&mut self, metric: u32, prefix: Ipv4Net) {
        self.of(metric).remove(&prefix);
    }

    /// Removes those by a link; gives their prefixes.
    pub(super) fn remove_by_link(&mut self, index: u32) -> Vec<Ipv4Net> {
        let mut gone = Vec::new();
        for routes in [&mut self.current, &mut self.older] {
            routes.retain(|prefix, target| {
                let stays = target.link() != Some(index);
                if !stays {
                    gone.push(*prefix);
                }
                stays
            });
        }
        gone
    }

    /// Whether any is by that link.
    pub(super) fn any_by_link(&self, index: u32) -> bool {
        self.current.values().chain(self.older.values()).any(|target| target.link() == Some(index))
    }

    /// The one with the daemon's metric.
    pub(super) fn get(&self, prefix: Ipv4Net) -> Option<OwnTarget> {
        self.current.get(&prefix).copied()
    }

    /// The one of an older version.
    pub(super) fn older(&self, prefix: Ipv4Net) -> Option<OwnTarget> {
        self.older.get(&prefix).copied()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = OwnRoute> {
        let with = |metric| move |(&destination, &target): (&_, &_)| OwnRoute { destination, target, metric };
        self.current.iter().map(with(ROUTE_METRIC)).chain(self.older.iter().map(with(0)))
    }
}
