//! The routes that the daemon keeps in the kernel's own table, so that what BPF leaves to the kernel finds
//! its way: blackholes for the blocks, routes to other nodes' blocks, routes to configured containers.

use std::collections::BTreeSet;

use anyhow::Result;
use tracing::{info, warn};

use crate::{
    kernel::netlink::{Added, Netlink, OwnRoute},
    source::kernel::Mirror,
};

/// What is in the kernel by this daemon, or by a run before it.
#[derive(Debug, Default)]
pub struct SlowPath {
    present: BTreeSet<OwnRoute>,
    taken: BTreeSet<OwnRoute>,
}

impl SlowPath {
    /// Starts with the routes that bear the daemon's protocol number, by whichever run.
    pub fn adopt(mirror: &Mirror) -> Self {
        let present = mirror.own_routes().filter_map(OwnRoute::from_route).collect();
        Self { present, taken: BTreeSet::new() }
    }

    /// Forgets a route that left the kernel's table without this daemon, for instance with its interface:
    /// the next [`Self::reconcile`] puts it back if it is still wanted.
    pub fn lost(&mut self, route: &OwnRoute) {
        self.present.remove(route);
    }

    /// Makes the kernel's table hold what is wanted and nothing else of ours. A route that somebody else has
    /// for the same destination is theirs and stays.
    ///
    /// # Errors
    ///
    /// Never for a single route that the kernel refuses: those are logged, and tried again the next time.
    pub async fn reconcile(&mut self, netlink: &Netlink, wanted: &BTreeSet<OwnRoute>) -> Result<()> {
        // Removal first: a changed route is a removal and an addition of the same destination.
        let gone: Vec<_> = self.present.difference(wanted).copied().collect();
        for route in gone {
            match netlink.delete_route(&route).await {
                Ok(()) => drop(self.present.remove(&route)),
                Err(error) => warn!("cannot remove the kernel route {route}: {error:#}"),
            }
        }
        self.taken.retain(|route| wanted.contains(route));
        let missing: Vec<_> = wanted.difference(&self.present).copied().collect();
        for route in missing {
            match netlink.add_route(&route).await {
                Ok(Added::Added | Added::AlreadyThere) => {
                    self.taken.remove(&route);
                    self.present.insert(route);
                }
                Ok(Added::TakenBy { protocol }) => {
                    if self.taken.insert(route) {
                        info!(protocol, "the kernel has a route of somebody else's for {route}: left alone");
                    }
                }
                Err(error) => warn!("cannot add the kernel route {route}: {error:#}"),
            }
        }
        Ok(())
    }
}
