//! The kernel's events, taken into the mirror, and what they make out of date.

use std::time::Duration;

use anyhow::Result;
use tracing::warn;

use super::{Daemon, Stale, read_kernel};
use crate::{
    kernel::netlink::{Event, Events, Link},
    slow_path::SlowPath,
    source::kernel::Effect,
    wanted::Devices,
};

/// How long the daemon gathers further events after one, so that a burst costs one reconciliation.
const GATHER: Duration = Duration::from_micros(500);

/// What of the kernel's state is not known any more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unread {
    /// Links, addresses, nexthop objects and routes.
    pub(super) mirror: bool,
    /// The policy routing rules.
    pub(super) rules: bool,
    /// The IPsec policies.
    pub(super) ipsec: bool,
    /// Whether the kernel forwards.
    pub(super) forwarding: bool,
}

impl Daemon {
    /// Takes in the event and those that come within a moment; says whether anything of them matters.
    pub(super) async fn gather(&mut self, first: Event, events: &mut Events) -> Result<bool> {
        let mut matters = self.absorb(first);
        let deadline = tokio::time::Instant::now() + GATHER;
        while let Ok(event) = tokio::time::timeout_at(deadline, events.next()).await {
            matters |= self.absorb(event?);
        }
        if std::mem::take(&mut self.unread.forwarding) {
            self.check_forwarding();
            self.log_health();
        }
        Ok(matters)
    }

    /// Takes one event into the mirror of the kernel; says whether it matters.
    fn absorb(&mut self, event: Event) -> bool {
        match &event {
            Event::Overrun => {
                warn!("the kernel had more to tell than fitted: reading everything again");
                self.unread.mirror = true;
                self.former_macs.extend(self.macs.drain());
                self.devices = Devices::default();
                self.stale = Stale::Everything;
                return true;
            }
            // The peer may be another one, or have another address, than a moment ago; the device may do other things.
            Event::Link(Link { index, .. }) | Event::LinkGone(index) => {
                self.forget_mac(*index);
                self.devices.able.remove(index);
                if self.devices.refused.remove(index).is_some() {
                    self.stale = self.stale.max(Stale::Picture);
                }
            }
            Event::Device(index) => {
                // Whether it was known makes no difference: an event of the link may have come in between.
                self.devices.able.remove(index);
                let is_uplink = self.policy.uplink(*index).is_some();
                if is_uplink {
                    self.stale = self.stale.max(Stale::Picture);
                }
                return is_uplink;
            }
            Event::PeerLink { peer, .. } => {
                let link = self.mirror.link_with_peer(*peer).map(|link| link.index);
                if let Some(index) = link {
                    self.forget_mac(index);
                    self.stale = self.stale.max(Stale::Picture);
                }
                return link.is_some();
            }
            Event::Rules => {
                self.unread.rules = true;
                return true;
            }
            Event::Ipsec => {
                self.unread.ipsec = true;
                return true;
            }
            Event::Forwarding => {
                self.unread.forwarding = true;
                return false;
            }
            Event::Address(_)
            | Event::AddressGone(_)
            | Event::Route(..)
            | Event::RouteGone(_)
            | Event::NextHop(_)
            | Event::NextHopGone(_) => {}
        }
        if let Event::Link(link) = &event {
            self.log_link(link);
        }
        match self.mirror.apply(event) {
            Effect::Unchanged => return self.stale != Stale::Prefixes,
            Effect::Route(_) => {}
            Effect::Changed => self.stale = self.stale.max(Stale::Picture),
            Effect::Reload => {
                self.unread.mirror = true;
                self.stale = Stale::Everything;
            }
        }
        true
    }

    /// The MAC address behind that link is to be asked for again.
    fn forget_mac(&mut self, index: u32) {
        self.former_macs.extend(self.macs.remove_entry(&index));
    }

    /// Reads what events alone did not tell. Events that come meanwhile are taken in afterwards.
    pub(super) async fn read_again(&mut self) -> Result<()> {
        if self.unread.rules {
            self.check_rules().await?;
            self.unread.rules = false;
        }
        if self.unread.ipsec {
            self.check_ipsec().await?;
            self.unread.ipsec = false;
        }
        if self.unread.mirror {
            self.load_mirror().await?;
            self.unread.mirror = false;
        }
        Ok(())
    }

    /// Reads the kernel's state anew.
    async fn load_mirror(&mut self) -> Result<()> {
        self.mirror = read_kernel(&self.netlink).await?;
        self.slow_path = SlowPath::adopt(&self.mirror);
        self.slow_path.postpone(&self.held);
        self.slow_path.look_at(self.own_routes.keys().copied());
        self.slow_path.look_at(self.by_routers());
        Ok(())
    }

    /// Says so once when policy routing begins or ends.
    pub(super) async fn check_rules(&mut self) -> Result<()> {
        let default = self.netlink.rules_are_default().await?;
        if self.rules_are_default && !default && self.respect.is_none() {
            warn!(
                "there are policy routing rules (`ip rule`): the data path follows the main table alone, so \
                 containers' packets do not obey them"
            );
        }
        self.rules_are_default = default;
        self.tell_respect();
        Ok(())
    }
}
