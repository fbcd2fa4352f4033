//! From what is wanted to what is: tables first, hooks then, the kernel's own routes last; removal after
//! addition, so that a packet never meets a gap.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use dataplane_common::{nat::rule::Rule, next_hop::NextHop, stats::Hook};
use ipnet::Ipv4Net;
use tracing::{debug, info, warn};

use super::{Daemon, Stale};
use crate::{
    config::UplinkHook,
    kernel::{
        attach::{self, Place},
        netlink::{Device, Event, Link, Netlink, OwnTarget},
        object::Program,
        pins::Pins,
        sysctl,
    },
    rib::Source,
    slow_path::SlowPath,
    source::kernel::{Effect, Mirror},
    wanted::{self, Destination, Devices, Offer},
};

/// Kernel routes that a full reconciliation writes at once; the loop writes the rest.
const FULL_CHUNK: usize = 4096;

impl Daemon {
    /// Takes one event into the mirror of the kernel; says whether it matters.
    pub(super) async fn absorb(&mut self, event: Event) -> Result<bool> {
        match &event {
            Event::Overrun => {
                warn!("the kernel had more to tell than fitted: reading everything again");
                self.load_mirror().await?;
                self.macs.clear();
                self.devices = Devices::default();
                self.stale = Stale::Everything;
                return Ok(true);
            }
            // The peer may be another one, or have another address, than a moment ago.
            Event::Link(Link { index, .. }) | Event::LinkGone(index) => {
                self.macs.remove(index);
                self.devices.able.remove(index);
                if self.devices.refused.remove(index).is_some() {
                    self.stale = self.stale.max(Stale::Picture);
                }
            }
            Event::Device(index) => {
                let known = self.devices.able.remove(index).is_some();
                if known {
                    self.stale = self.stale.max(Stale::Picture);
                }
                return Ok(known);
            }
            Event::PeerLink { peer, .. } => {
                let link = self.mirror.link_with_peer(*peer).map(|link| link.index);
                let known = link.is_some_and(|index| self.macs.remove(&index).is_some());
                if known {
                    self.stale = self.stale.max(Stale::Picture);
                }
                return Ok(known);
            }
            Event::Rules => self.check_rules().await?,
            Event::Address(_)
            | Event::AddressGone(_)
            | Event::Route(..)
            | Event::RouteGone(_)
            | Event::NextHop(_)
            | Event::NextHopGone(_) => {}
        }
        match self.mirror.apply(event) {
            Effect::Unchanged => return Ok(self.stale != Stale::Prefixes),
            Effect::Route(_) => {}
            Effect::Changed => self.stale = self.stale.max(Stale::Picture),
            Effect::Reload => {
                self.load_mirror().await?;
                self.stale = Stale::Everything;
            }
        }
        Ok(true)
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
        if self.stale != Stale::Prefixes {
            return self.reconcile().await;
        }
        let mut touched = self.take_touched();
        touched.retain(|prefix| !self.policy.is_endpoint(*prefix));
        self.offer_kernel_routes(touched, &BTreeMap::new());
        self.update_tables()
    }

    fn take_touched(&mut self) -> BTreeSet<Ipv4Net> {
        let touched = self.mirror.take_touched();
        // Whoever changed it: with an interface routes of ours go that nobody tells of, and one that somebody
        // else's was in the way of may have its turn.
        let differs = |prefix: &&Ipv4Net| self.mirror.own_route(**prefix) != self.own_route(**prefix);
        let lost: Vec<Ipv4Net> = touched.difference(&self.held).filter(differs).copied().collect();
        self.slow_path.look_at(lost);
        touched
    }

    /// Asks the mirror again what is wanted for these prefixes; `endpoints` go before its routes.
    fn offer_kernel_routes(&mut self, prefixes: BTreeSet<Ipv4Net>, endpoints: &BTreeMap<Ipv4Net, Offer>) {
        for prefix in prefixes {
            let route = || self.mirror.wanted_at(prefix, &self.policy).map(wanted::offer);
            let changed = match endpoints.get(&prefix).copied().or_else(route) {
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
        self.tell_speaker();
        result?;
        self.stale = Stale::default();
        Ok(())
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

    /// Tables and hooks; gives the routes that are wanted in the kernel's table, and what went wrong.
    async fn update_data_path(&mut self) -> Result<(BTreeMap<Ipv4Net, OwnTarget>, Result<()>)> {
        self.learn_macs().await?;
        self.learn_devices().await;
        let picture = wanted::picture(&self.config, &self.mirror, &self.macs, &self.devices);
        self.complaints = picture.complaints;
        self.choices = picture.choices;

        let mut touched = self.take_touched();
        let same = self.stale != Stale::Everything && picture.policy.agrees_but_for_endpoints(&self.policy);
        let before = std::mem::replace(&mut self.policy, picture.policy);
        if same {
            let endpoints = before.endpoints.iter().chain(&self.policy.endpoints);
            touched.extend(endpoints.map(|(address, _)| Ipv4Net::from(*address)));
            self.offer_kernel_routes(touched, &picture.discovered);
        } else {
            let wanted = self.mirror.wanted(&self.policy).into_iter();
            let mut offers: BTreeMap<_, _> =
                wanted.map(|(prefix, wanted)| (prefix, wanted::offer(wanted))).collect();
            offers.extend(picture.discovered);
            self.dirty.append(&mut self.rib.replace(Source::Kernel, offers));
        }
        self.dirty.append(&mut self.rib.replace(Source::Host, picture.host));
        self.dirty.append(&mut self.rib.replace(Source::Config, picture.config));
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
                Ok(Some(mac)) => drop(self.macs.insert(link.index, mac)),
                // It is on its way in or out; an event follows.
                Ok(None) => debug!("no peer behind {} now", link.name),
                Err(error) => warn!("cannot ask for the peer of {}: {error:#}", link.name),
            }
        }
        Ok(())
    }

    /// Asks what the uplinks' devices can do, where that is not known. What cannot be learned keeps nothing from being
    /// forwarded: tc serves every device.
    async fn learn_devices(&mut self) {
        for link in wanted::uplink_links(&self.config, &self.mirror) {
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
        let datapath = &mut self.datapath;
        if self.nat.set_rules(rules, || datapath.synchronize())? {
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
                let translates = wanted::may_translate(self.nat.rules(), prefix, next_hop.ifindex);
                Destination::NextHop(NextHop { translates: translates.into(), ..next_hop })
            }
            other => other,
        }
    }

    /// Attaches where a program is wanted and takes it off where it is not. One interface that cannot be
    /// attached to is a complaint and an error, and the others are attached all the same.
    fn update_hooks(&mut self, wanted: BTreeMap<Place, Program>) -> Result<()> {
        let mut result = Ok(());
        // An interface that was renamed is where it was, with its program.
        let renamed =
            |(place, program): (Place, Program)| (place.find_in(&wanted).cloned().unwrap_or(place), program);
        self.places = std::mem::take(&mut self.places).into_iter().map(renamed).collect();
        for (place, &program) in &wanted {
            if self.places.get(place) == Some(&program) {
                continue;
            }
            if program == Program::Walk(Hook::FromContainer) && self.config.datapath.kernel_routes {
                // As Calico does: what BPF leaves to the kernel must be forwarded by it.
                if let Err(error) = sysctl::enable_forwarding(&place.interface) {
                    debug!("{error:#}");
                }
            }
            match attach::attach(&mut self.object, &self.pins, self.mode, place, program) {
                Ok(()) => drop(self.places.insert(place.clone(), program)),
                // It went, or was renamed, a moment ago; the event is on its way.
                Err(error) if !place.exists() => debug!("{error:#}"),
                Err(error) if error.is::<attach::Refused>() => self.fall_back(place, &error),
                Err(error) => {
                    self.complaints.push(format!("{error:#}"));
                    result = result.and(Err(error));
                }
            }
        }
        let stale =
            attach::attached(&self.pins, |index| self.mirror.link(index).map(|link| link.name.clone()))?;
        for place in stale.iter().chain(self.places.clone().keys()) {
            if !wanted.contains_key(place) {
                attach::detach(&self.pins, place)?;
                self.places.remove(place);
            }
        }
        result
    }

    /// Goes on with an uplink at tc alone, until its link changes.
    fn fall_back(&mut self, place: &Place, error: &anyhow::Error) {
        let why = error.root_cause().to_string();
        if let Some(choice) = self.choices.iter_mut().find(|choice| choice.ifindex == place.ifindex) {
            (choice.xdp, choice.why) = (false, why.clone());
        }
        let complaint = format!("uplink {} is served at tc, not at XDP: {why}", place.interface);
        if self.config.datapath.uplink_hook == UplinkHook::Xdp {
            self.complaints.push(complaint);
        } else {
            info!("{complaint}");
        }
        self.devices.refused.insert(place.ifindex, why);
    }

    fn check_forwarding(&mut self) {
        for place in self.places.keys().filter(|place| place.hook == Hook::FromUplink) {
            if let Ok(false) = sysctl::forwarding(&place.interface) {
                self.complaints.push(format!(
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
