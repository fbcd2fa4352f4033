//! From what is wanted to what is: tables first, hooks then, the kernel's own routes last; removal after
//! addition, so that a packet never meets a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use anyhow::{Context as _, Result};
use dataplane_common::{flow::rule::Rule, net::MacAddr, next_hop::NextHop, stats::Hook};
use ipnet::Ipv4Net;
use tracing::{debug, warn};

use super::{Daemon, Stale};
use crate::{
    kernel::{
        attach,
        netlink::{Device, Event, Link, Netlink, OwnTarget},
        pins::Pins,
        sysctl,
    },
    rib::Source,
    slow_path::SlowPath,
    source::kernel::{Effect, Mirror},
    wanted::{self, Destination, Devices, masquerade},
};

/// Kernel routes that a full reconciliation writes at once; the loop writes the rest.
const FULL_CHUNK: usize = 4096;

impl Daemon {
    /// Takes one event into the mirror of the kernel; says whether it matters.
    pub(super) fn absorb(&mut self, event: Event) -> bool {
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
    async fn read_again(&mut self) -> Result<()> {
        if self.unread.rules {
            self.check_rules().await?;
            self.unread.rules = false;
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
        if self.rules_are_default && !default {
            warn!(
                "there are policy routing rules (`ip rule`): the data path follows the main table alone, so \
                 containers' packets do not obey them"
            );
        }
        self.rules_are_default = default;
        Ok(())
    }

    /// Brings in step what the events since the last time concern.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        self.read_again().await?;
        if self.stale != Stale::Prefixes {
            return self.reconcile().await;
        }
        let mut touched = self.take_touched();
        touched.retain(|prefix| !self.policy.is_endpoint(*prefix));
        self.offer_kernel_routes(touched);
        self.update_tables()
    }

    fn take_touched(&mut self) -> BTreeSet<Ipv4Net> {
        let touched = self.mirror.take_touched();
        // Whoever changed it: with an interface routes of ours go that nobody tells of, and one that somebody
        // else's was in the way of may have its turn.
        let differs = |prefix: &&Ipv4Net| {
            let older = self.mirror.older_own_route(**prefix);
            older.is_some() || self.mirror.own_route(**prefix) != self.own_route(**prefix)
        };
        let lost: Vec<Ipv4Net> = touched.difference(&self.held).filter(differs).copied().collect();
        self.slow_path.look_at(lost);
        touched
    }

    /// Asks the mirror again what is wanted for these prefixes.
    fn offer_kernel_routes(&mut self, prefixes: BTreeSet<Ipv4Net>) {
        for prefix in prefixes {
            let changed = match self.mirror.wanted_at(prefix, &self.policy).map(wanted::offer) {
                Some(offer) => self.rib.set(Source::Kernel, prefix, offer),
                None => self.rib.withdraw(Source::Kernel, prefix),
            };
            if changed {
                self.dirty.insert(prefix);
            }
        }
    }

    /// Brings everything in step with the configuration and the mirror.
    pub(super) async fn reconcile(&mut self) -> Result<()> {
        let (slow_path, result) = self.update_data_path().await?;
        self.update_slow_path(slow_path).await;
        let speaker = self.start_missing_speaker();
        self.tell_speaker();
        result?;
        self.stale = Stale::default();
        speaker
    }

    /// The first reconciliation. Where it fails, the kernel's own routes are as they were: they may be those
    /// of the daemon that is in the way.
    pub(super) async fn take_over(&mut self) -> Result<()> {
        let (slow_path, result) = self.update_data_path().await?;
        result?;
        self.update_slow_path(slow_path).await;
        self.tell_speaker();
        Ok(())
    }

    /// Follows the default routes, which name the uplinks where the file does not.
    pub(super) fn find_uplinks(&mut self) {
        let exists = |index| self.mirror.link(index).is_some();
        self.found_uplinks.update(self.mirror.default_uplinks(), exists, Instant::now());
    }

    /// Tables and hooks; gives the routes that are wanted in the kernel's table, and what went wrong.
    async fn update_data_path(&mut self) -> Result<(BTreeMap<Ipv4Net, OwnTarget>, Result<()>)> {
        self.nat.configure(&self.config.limits())?;
        self.find_uplinks();
        self.learn_macs().await?;
        self.learn_devices().await;
        let Self { config, mirror, macs, devices, found_uplinks, .. } = &*self;
        let picture = wanted::picture(config, mirror, macs, devices, found_uplinks);
        self.complaints = picture.complaints;
        self.choices = picture.choices;

        let mut touched = self.take_touched();
        let same = self.stale != Stale::Everything && picture.policy.agrees_but_for_endpoints(&self.policy);
        let before = std::mem::replace(&mut self.policy, picture.policy);
        if same {
            let endpoints = before.endpoints.iter().chain(&self.policy.endpoints);
            touched.extend(endpoints.map(|(address, _)| Ipv4Net::from(*address)));
            self.offer_kernel_routes(touched);
        } else {
            let wanted = self.mirror.wanted(&self.policy).into_iter();
            let offers = wanted.map(|(prefix, wanted)| (prefix, wanted::offer(wanted))).collect();
            self.dirty.append(&mut self.rib.replace(Source::Kernel, offers));
        }
        self.dirty.append(&mut self.rib.replace(Source::Host, picture.host));
        self.dirty.append(&mut self.rib.replace(Source::Config, picture.config));
        self.dirty.append(&mut self.rib.replace(Source::Workload, picture.discovered));
        self.find_routers();
        // Before the routes that lead to them: a packet that is to be translated must not find no rule.
        let rules = self.update_rules(&picture.rules);
        let tables = self.update_tables().and(rules);
        let uplinks = self.uplinks.set(&wanted::uplink_table(&self.choices, &self.mirror, &self.devices));
        let tables = tables.and(uplinks);

        self.succeed()?;
        let hooks = self.update_hooks(picture.places);
        Ok((picture.slow_path, tables.and(hooks)))
    }

    async fn update_slow_path(&mut self, wanted: BTreeMap<Ipv4Net, OwnTarget>) {
        let before = std::mem::replace(&mut self.own_routes, wanted);
        let prefixes: BTreeSet<Ipv4Net> = before.keys().chain(self.own_routes.keys()).copied().collect();
        let changed = prefixes.into_iter().filter(|prefix| before.get(prefix) != self.own_routes.get(prefix));
        self.slow_path.look_at(changed);
        self.slow_path.retry();
        self.work_slow_path(FULL_CHUNK).await;
        self.check_forwarding();
    }

    /// Asks for the MACs of the containers behind veths that may be endpoints and are not known yet.
    async fn learn_macs(&mut self) -> Result<()> {
        let mirror = &self.mirror;
        self.former_macs.retain(|index, _| mirror.link(*index).is_some());
        let configured = self.config.endpoints.iter().filter_map(|e| self.mirror.link_by_name(&e.interface));
        let discovered = wanted::discovered(&self.config, &self.mirror);
        let discovered = discovered.iter().filter_map(|(_, index)| self.mirror.link(*index));
        let unknown: Vec<Link> = configured
            .chain(discovered)
            .filter(|link| !self.macs.contains_key(&link.index))
            .cloned()
            .collect();
        for link in unknown {
            let Some(peer) = link.peer else { continue };
            match self.netlink.peer_mac(peer).await {
                Ok(Some(mac)) => {
                    self.macs.insert(link.index, mac);
                    self.follow_mac(&link, mac).await;
                }
                // It is on its way in or out; an event follows.
                Ok(None) => debug!("no peer behind {} now", link.name),
                Err(error) => warn!("cannot ask for the peer of {}: {error:#}", link.name),
            }
        }
        Ok(())
    }

    /// Has the kernel follow a container's new MAC address, too: it would find out half a minute later, when its neighbour
    /// entry fails.
    async fn follow_mac(&mut self, link: &Link, mac: MacAddr) {
        let Some(former) = self.former_macs.remove(&link.index).filter(|former| *former != mac) else {
            return;
        };
        if let Err(error) = self.netlink.change_neighbours(link.index, former, mac).await {
            warn!("the kernel does not follow the new MAC address behind {} at once: {error:#}", link.name);
        }
    }

    /// Asks what the uplinks' devices can do, where that is not known. What cannot be learned keeps nothing from being
    /// forwarded: tc serves every device.
    async fn learn_devices(&mut self) {
        for link in wanted::uplink_links(&self.config, &self.mirror, &self.found_uplinks) {
            if !self.devices.able.contains_key(&link.index) {
                let device = self.netlink.device(link.index).await.unwrap_or_else(|error| {
                    warn!("{} is taken for one that tells nothing of XDP: {error:#}", link.name);
                    Device::default()
                });
                self.devices.able.insert(link.index, device);
            }
        }
    }

    /// Additions and changes first, removals last. One that fails does not keep the others back; it stays
    /// dirty, for the next reconciliation.
    pub(super) fn update_tables(&mut self) -> Result<()> {
        let mut result = Ok(());
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            self.dirty.iter().copied().partition(|prefix| self.rib.best(*prefix).is_some());
        for prefix in wanted.into_iter().chain(unwanted) {
            let best = self.rib.best(prefix).map(|(_, offer)| self.destination(offer));
            let destination = best.map(|destination| self.translated(prefix, destination));
            match self.datapath.set(prefix, destination) {
                Ok(()) => drop(self.dirty.remove(&prefix)),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Sets the rules of translation; where they changed, every next hop may have to be marked otherwise.
    fn update_rules(&mut self, rules: &[Rule]) -> Result<()> {
        let sources = masquerade::sources(&self.mirror, rules);
        let datapath = &mut self.datapath;
        if self.nat.set_rules(rules, sources, || datapath.synchronize())? {
            self.dirty.extend(self.rib.iter().map(|(prefix, _, _)| prefix));
            // Flows that the new rules do not allow end now.
            self.nat.sweep(&mut self.object, 1)?;
        }
        Ok(())
    }

    /// The same destination, marked where packets to it may have to be translated.
    fn translated(&self, prefix: Ipv4Net, destination: Destination) -> Destination {
        match destination {
            Destination::NextHop(next_hop) => {
                if !masquerade::may_translate(self.nat.rules(), prefix, next_hop.ifindex) {
                    return destination;
                }
                let source = masquerade::source_by(&self.mirror, prefix, &next_hop);
                Destination::NextHop(NextHop { translates: 1, source, ..next_hop })
            }
            other => other,
        }
    }

    pub(super) fn check_forwarding(&mut self) {
        self.not_forwarding.clear();
        for place in self.places.keys().filter(|place| place.hook == Hook::FromUplink) {
            if let Ok(false) = sysctl::forwarding(&place.interface) {
                self.not_forwarding.push(format!(
                    "the kernel does not forward packets from {0}: ICMP errors and what BPF leaves to it get \
                     lost; sysctl -w net.ipv4.conf.{0}.forwarding=1",
                    place.interface
                ));
            }
        }
    }
}

/// Takes away every hook, pin and kernel route of the daemon whose pins these are.
///
/// # Errors
///
/// Where something stays behind, with what and why.
pub async fn remove_everything(pins: &Pins, netlink: &Netlink) -> Result<()> {
    // Read now: the event of a route that was written a moment ago may still wait.
    let mirror = read_kernel(netlink).await?;
    remove_hooks(pins, &mirror)?;
    for route in mirror.own_routes() {
        netlink
            .delete_route(&route)
            .await
            .with_context(|| format!("cannot remove the kernel route {route}"))?;
    }
    pins.remove()
}

/// Takes away every hook and pin, and none of the kernel's routes.
pub(super) fn remove_data_path(pins: &Pins, mirror: &Mirror) -> Result<()> {
    remove_hooks(pins, mirror)?;
    pins.remove()
}

fn remove_hooks(pins: &Pins, mirror: &Mirror) -> Result<()> {
    pins.gather()?;
    let names = |index| mirror.link(index).map(|link| link.name.clone());
    for place in attach::attached(pins, names)? {
        attach::detach(pins, &place)?;
    }
    Ok(())
}

/// The mirror of the kernel's state at this moment; events since netlink was opened may follow.
///
/// # Errors
///
/// Where the kernel cannot be asked.
pub async fn read_kernel(netlink: &Netlink) -> Result<Mirror> {
    let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
    Ok(Mirror::load(links, addresses, netlink.nexthops().await?, netlink.routes().await?))
}
