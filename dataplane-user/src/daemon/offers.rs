//! What the sources offer, put into the data path.

use std::net::Ipv4Addr;

use anyhow::Result;
use dataplane_common::reason::Reason;
use ipnet::Ipv4Net;

use super::Daemon;
use crate::{
    datapath::Claim,
    kernel::netlink::OwnTarget,
    rib::Source,
    slow_path::State,
    wanted::{self, Destination, Offer},
};

impl Daemon {
    /// Notes what a source says of routers: for each prefix the address of the router that now leads there, or
    /// `None` where it takes its offer back. Routers are looked for on the links of the uplinks, now and
    /// whenever those change; packets for one that is on none stay with the kernel (`no-next-hop`).
    ///
    /// Nothing reaches the data path before [`Self::apply_offers`]: call that once for as many as there are.
    pub fn offer(&mut self, source: Source, changes: impl IntoIterator<Item = (Ipv4Net, Option<Ipv4Addr>)>) {
        let (mirror, policy) = (&self.mirror, &self.policy);
        let reach = std::cell::LazyCell::new(|| mirror.reach(policy));
        for (prefix, router) in changes {
            let changed = match router {
                None => self.rib.withdraw(source, prefix),
                Some(router) => {
                    self.routers.entry(router).or_insert_with(|| wanted::by_router(&reach, policy, router));
                    self.rib.set(source, prefix, Offer::By(router))
                }
            };
            if changed {
                self.routes.mark([prefix.trunc()]);
                if self.config.datapath.kernel_routes {
                    self.slow_path.look_at([prefix.trunc()]);
                }
            }
        }
    }

    /// Writes every prefix whose best offer changed into the data path; the others cost nothing. The kernel's own
    /// table follows in the daemon's loop, in pieces between other work.
    ///
    /// # Errors
    ///
    /// Where a table cannot be written. The rest is written, and what is not is tried again, as what found no room.
    pub fn apply_offers(&mut self) -> Result<()> {
        self.update_tables()
    }

    /// Every peer had its say (End-of-RIB, RFC 4724, section 2), or its time is over: what an earlier run left and
    /// nobody offers goes. Until then a daemon that peers speak to keeps those routes, so that its restart loses no
    /// packet.
    ///
    /// # Errors
    ///
    /// As [`Self::apply_offers`].
    pub fn sweep_leftovers(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        self.slow_path.look_at(held.iter().copied());
        self.routes.mark(held.into_iter().filter(|prefix| self.rib.best(*prefix).is_none()));
        self.apply_offers()
    }

    /// Marks the next hops of what an earlier run left by the rules of translation that hold now: until a peer says
    /// such a route again, no source offers it.
    ///
    /// # Errors
    ///
    /// As [`Self::apply_offers`].
    pub(super) fn mark_held(&mut self) -> Result<()> {
        let mut result = Ok(());
        for &prefix in self.held.iter().filter(|prefix| self.rib.best(**prefix).is_none()) {
            if let Some(destination) = self.datapath.get(prefix) {
                let marked = self.translated(prefix, destination);
                let set = self.datapath.set(prefix, Some(marked), Claim::Learned).or_else(|_| {
                    // There is no slot for another mark: by the old one, packets could leave untranslated.
                    let kernel = Destination::Kernel(Reason::NoNextHop);
                    self.datapath.set(prefix, Some(kernel), Claim::Learned)
                });
                result = result.and(set);
            }
        }
        result
    }

    /// Looks for every router again, after links, addresses or uplinks changed; notes the prefixes of those that
    /// are reached otherwise now.
    pub(super) fn find_routers(&mut self) {
        let reach = self.mirror.reach(&self.policy);
        let mut moved = false;
        for (router, destination) in &mut self.routers {
            let now = wanted::by_router(&reach, &self.policy, *router);
            moved |= now != *destination;
            *destination = now;
        }
        if moved {
            let prefixes = self.by_routers();
            self.routes.mark(prefixes.iter().copied());
            self.slow_path.look_at(prefixes);
        }
    }

    /// The prefixes whose best offer names a router.
    pub(super) fn by_routers(&self) -> Vec<Ipv4Net> {
        let offers = self.rib.iter().filter(|(_, _, offer)| matches!(offer, Offer::By(_)));
        offers.map(|(prefix, _, _)| prefix).collect()
    }

    /// Writes into the kernel's own table what is wanted there, for at most so many prefixes.
    pub(super) async fn work_slow_path(&mut self, most: usize) {
        let mut slow_path = std::mem::take(&mut self.slow_path);
        let route = |prefix| State {
            present: self.mirror.own_route(prefix),
            older: self.mirror.older_own_route(prefix),
            in_the_way: self.mirror.in_the_way(prefix),
            wanted: self.own_route(prefix),
        };
        slow_path.work(&self.netlink, most, route).await;
        self.slow_path = slow_path;
    }

    /// The route that is wanted in the kernel's own table: the configuration's, or that of a router that a source
    /// named. What the kernel itself offers is there already.
    pub(super) fn own_route(&self, prefix: Ipv4Net) -> Option<OwnTarget> {
        if !self.config.datapath.kernel_routes {
            return None;
        }
        if let Some(target) = self.own_routes.get(&prefix) {
            return Some(*target);
        }
        match self.rib.best(prefix)? {
            (_, offer @ Offer::By(router)) => match self.destination(offer) {
                Destination::NextHop(next_hop) => {
                    Some(OwnTarget::Via { gateway: *router, oif: next_hop.ifindex })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Where the packets go that an offer is for.
    pub(super) fn destination(&self, offer: &Offer) -> Destination {
        match offer {
            Offer::To(destination) => *destination,
            Offer::By(router) => self.routers.get(router).copied().unwrap_or_else(|| {
                wanted::by_router(&self.mirror.reach(&self.policy), &self.policy, *router)
            }),
        }
    }
}
