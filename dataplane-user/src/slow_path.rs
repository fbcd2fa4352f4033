//! The routes that the daemon keeps in the kernel's own table, so that what BPF leaves to the kernel finds
//! its way: blackholes for the blocks, routes to other nodes' blocks, routes to configured containers.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use tracing::{info, warn};

use crate::{
    applied::Applied,
    kernel::netlink::{Added, Netlink, OwnRoute, OwnTarget, Present},
    source::kernel::Mirror,
};

/// What is to be done about them. What is there the mirror knows.
#[derive(Debug, Default)]
pub struct SlowPath {
    /// Prefixes for which somebody else has a route, which stays.
    taken: BTreeSet<Ipv4Net>,
    /// Prefixes whose route in the kernel may not be the one that is wanted, and why the kernel refused it.
    routes: Applied<Ipv4Net, String>,
    /// What was said of the last refusal.
    refusal: Option<String>,
}

/// The routes for a prefix.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// The daemon's that is there.
    pub present: Option<OwnTarget>,
    /// The one of an older version, with another metric.
    pub older: Option<OwnTarget>,
    /// What has the metric of the daemon's.
    pub in_the_way: Option<Present>,
    /// What is wanted.
    pub wanted: Option<OwnTarget>,
}

impl SlowPath {
    /// Starts with the routes that bear the daemon's protocol number, by whichever run.
    pub fn adopt(mirror: &Mirror) -> Self {
        let mut adopted = Self::default();
        adopted.look_at(mirror.own_routes().map(|route| route.destination));
        adopted
    }

    /// What is wanted for these prefixes may be another route than before, or none.
    pub fn look_at(&mut self, prefixes: impl IntoIterator<Item = Ipv4Net>) {
        self.routes.mark(prefixes);
    }

    /// Leaves these as they are until [`Self::look_at`] names them.
    pub fn postpone(&mut self, prefixes: &BTreeSet<Ipv4Net>) {
        self.routes.postpone(|prefix| prefixes.contains(prefix));
    }

    /// Tries again what the kernel refused.
    pub fn retry(&mut self) {
        self.routes.retry(|_| usize::MAX);
    }

    /// What could not be written, and why.
    pub fn complaint(&self) -> Option<String> {
        let refusals = self.routes.refusals();
        let (reason, (_, first)) = refusals.iter().next()?;
        let refused: usize = refusals.values().map(|(count, _)| count).sum();
        Some(format!(
            "{refused} kernel routes could not be written, and are tried again; the first, to {first}: {reason}"
        ))
    }

    /// Whether [`Self::work`] has something to do.
    pub fn is_pending(&self) -> bool {
        self.routes.is_pending()
    }

    /// Makes the kernel's table hold what is wanted for at most so many prefixes. A route that somebody else has
    /// for the same destination and metric is theirs and stays. `route` gives the routes for a prefix.
    ///
    /// A route that the kernel refuses is logged, and tried again after [`Self::retry`].
    pub async fn work(&mut self, netlink: &Netlink, most: usize, route: impl Fn(Ipv4Net) -> State) {
        let mut first_refusal = None;
        let mut refusals = 0;
        for prefix in self.routes.take(most) {
            if let Err(error) = self.settle(netlink, prefix, route(prefix)).await {
                self.routes.refuse(prefix, error.root_cause().to_string());
                first_refusal.get_or_insert_with(|| format!("{error:#}"));
                refusals += 1;
            }
        }
        match first_refusal {
            None if self.routes.is_settled() => self.refusal = None,
            None => {}
            // Said once, however often it is tried.
            Some(error) if self.refusal.as_ref() == Some(&error) => {}
            Some(error) => {
                warn!("{refusals} kernel routes could not be written; of the first: {error}");
                self.refusal = Some(error);
            }
        }
    }

    async fn settle(
        &mut self,
        netlink: &Netlink,
        destination: Ipv4Net,
        State { present, older, in_the_way, wanted }: State,
    ) -> anyhow::Result<()> {
        if present != wanted {
            self.write(netlink, destination, present, in_the_way, wanted).await?;
        }
        // Last, so that there is no gap.
        if let Some(target) = older {
            netlink.delete_route(&OwnRoute { destination, target, metric: 0 }).await?;
        }
        Ok(())
    }

    async fn write(
        &mut self,
        netlink: &Netlink,
        destination: Ipv4Net,
        present: Option<OwnTarget>,
        in_the_way: Option<Present>,
        wanted: Option<OwnTarget>,
    ) -> anyhow::Result<()> {
        let Some(target) = wanted else {
            if let Some(target) = present {
                netlink.delete_route(&OwnRoute::new(destination, target)).await?;
            }
            self.taken.remove(&destination);
            return Ok(());
        };
        // An older one of ours is replaced without a gap.
        let route = OwnRoute::new(destination, target);
        match netlink.add_route(&route, in_the_way).await? {
            Added::Added | Added::AlreadyThere => drop(self.taken.remove(&destination)),
            Added::TakenBy { protocol } => {
                if self.taken.insert(destination) {
                    info!(protocol, "the kernel has a route of somebody else's for {route}: left alone");
                }
            }
        }
        Ok(())
    }
}
