//! IPsec policies of the kernel that select containers' packets: obeyed, by leaving those packets to it.

use anyhow::{Result, bail};
use dataplane_common::reason::Reason;
use ipnet::Ipv4Net;
use tracing::info;

use super::{Daemon, Stale};
use crate::wanted::{Destination, Ipsec};

impl Daemon {
    /// Reads the policies; where they changed, every route may have to be left to the kernel, or no more.
    pub(super) async fn check_ipsec(&mut self) -> Result<()> {
        let policies = self.netlink.ipsec_policies().await?;
        if policies != self.ipsec_policies {
            self.ipsec_policies = policies;
            self.stale = self.stale.max(Stale::Picture);
        }
        Ok(())
    }

    /// What BPF cannot obey keeps the daemon from starting: it would silently undo what the operator asked the kernel for.
    pub(super) fn refuse_ipsec(&self) -> Result<()> {
        match Ipsec::new(&self.ipsec_policies, &self.config, &self.mirror).complaint() {
            Some(complaint) => bail!("{complaint}"),
            None => Ok(()),
        }
    }

    /// Follows policies, containers and configuration.
    pub(super) fn update_ipsec(&mut self) {
        let ipsec = Ipsec::new(&self.ipsec_policies, &self.config, &self.mirror);
        if ipsec == self.ipsec {
            return;
        }
        if ipsec.remote != self.ipsec.remote {
            match ipsec.note() {
                Some(note) => info!("{note}"),
                None => info!("no IPsec policy selects containers' packets any more"),
            }
            self.routes.mark(self.rib.iter().map(|(prefix, _, _)| prefix));
        }
        self.ipsec = ipsec;
    }

    /// The same destination, or the kernel where a policy selects its packets.
    pub(super) fn obeyed(&self, prefix: Ipv4Net, destination: Destination) -> Destination {
        match destination {
            Destination::NextHop(_) if self.ipsec.leaves(prefix) => Destination::Kernel(Reason::KernelRoute),
            other => other,
        }
    }
}
