//! From what is wanted to what is: tables first, hooks then, the kernel's own routes last; removal after
//! addition, so that a packet never meets a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Result, bail, ensure};
use dataplane_common::{flow::rule::Rule, net::Ipv4Be, next_hop::NextHop, stats::Hook};
use ipnet::Ipv4Net;

use super::{Daemon, Stale};
use crate::{
    datapath::{Claim, Full},
    kernel::{
        attach,
        netlink::{Netlink, OwnTarget},
        pins::Pins,
        sysctl,
    },
    rib::Source,
    source::kernel::Mirror,
    wanted::{self, Destination, masquerade},
};

/// Kernel routes that a full reconciliation writes at once; the loop writes the rest.
const FULL_CHUNK: usize = 4096;

/// Why a route is not in the data path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// A table has no room for it.
    Full { table: Full, claim: Claim, source: Source },
    /// The kernel did not take it.
    Other(String),
}

/// The node's own are its addresses, what the file says, its containers, and of the kernel's routes the default route and
/// connected networks; everything else somebody announced.
fn claim(source: Source, prefix: Ipv4Net, destination: Destination) -> Claim {
    let is_connected =
        matches!(destination, Destination::NextHop(next_hop) if next_hop.gateway.to_wire() == 0);
    match source {
        Source::Host | Source::Config | Source::Workload => Claim::Own,
        Source::Kernel if prefix.prefix_len() == 0 || is_connected => Claim::Own,
        Source::Bgp | Source::Kernel => Claim::Learned,
    }
}

impl Daemon {
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
                self.routes.mark([prefix]);
            }
        }
    }

    /// Brings everything in step with the configuration and the mirror.
    pub(super) async fn reconcile(&mut self) -> Result<()> {
        self.tell_respect();
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
        self.tell_respect();
        let (slow_path, result) = self.update_data_path().await?;
        result?;
        // An earlier run may have ended between the rules and the marks.
        self.mark_held()?;
        self.update_slow_path(slow_path).await;
        self.tell_speaker();
        self.stale = Stale::default();
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
        self.update_ipsec();
        let Self { config, mirror, macs, devices, found_uplinks, ipsec, .. } = &*self;
        let picture = wanted::picture(config, mirror, macs, devices, found_uplinks, ipsec);
        self.log_endpoints(&picture);
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
            let changed = self.rib.replace(Source::Kernel, offers);
            self.routes.mark(changed);
        }
        let changed = self.rib.replace(Source::Host, picture.host);
        self.routes.mark(changed);
        let changed = self.rib.replace(Source::Config, picture.config);
        self.routes.mark(changed);
        let changed = self.rib.replace(Source::Workload, picture.discovered);
        self.routes.mark(changed);
        // What fails from here on is pending on its own: the sources need not be asked for everything again.
        self.stale = Stale::Picture;
        self.find_routers();
        self.follow_rules(&picture.rules).await;
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

    /// Additions and changes first, removals last. One that is refused does not keep the others back; it is tried again
    /// where something went, and by time.
    pub(super) fn update_tables(&mut self) -> Result<()> {
        let removed = self.update_pending()?;
        if removed {
            self.retry_routes();
            self.update_pending()?;
        }
        Ok(())
    }

    /// Tries as many refused routes again as there is room for.
    pub(super) fn retry_routes(&mut self) {
        let Self { datapath, routes, .. } = self;
        routes.retry(|refusal| match refusal {
            Refusal::Full { table, claim, .. } => datapath.room(*table, *claim),
            Refusal::Other(_) => usize::MAX,
        });
    }

    /// Writes what is pending, and says whether anything was removed.
    fn update_pending(&mut self) -> Result<bool> {
        let (mut result, mut removed) = (Ok(()), false);
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            self.routes.take(usize::MAX).into_iter().partition(|prefix| self.rib.best(*prefix).is_some());
        removed |= !unwanted.is_empty();
        for prefix in wanted.into_iter().chain(unwanted) {
            let best = self.rib.best(prefix).map(|(source, offer)| (source, self.destination(offer)));
            let claim = best.map_or(Claim::Own, |(source, destination)| claim(source, prefix, destination));
            let destination =
                best.map(|(_, destination)| self.obeyed(prefix, self.translated(prefix, destination)));
            if let Err(error) = self.datapath.set(prefix, destination, claim) {
                let source = best.map_or(Source::Host, |(source, _)| source);
                let refusal = match error.downcast_ref::<Full>() {
                    Some(table) => Refusal::Full { table: *table, claim, source },
                    None => Refusal::Other(error.root_cause().to_string()),
                };
                if matches!(refusal, Refusal::Other(_)) {
                    result = Err(error);
                }
                self.routes.refuse(prefix, refusal);
            }
        }
        result.map(|()| removed)
    }

    /// Routes that are not carried for want of room, with whose they are.
    pub(super) fn route_complaints(&self) -> Vec<String> {
        let complaint = |(refusal, (count, first)): (&Refusal, (usize, Ipv4Net))| match refusal {
            Refusal::Full { table, claim, source } => {
                let whose = match (source, claim) {
                    (Source::Bgp, _) => "learned by BGP",
                    (Source::Kernel, Claim::Learned) => "taken over from the kernel's table",
                    (Source::Config, _) => "of the file",
                    _ => "of this node",
                };
                let kept = match (table, claim) {
                    (Full::Routes | Full::NextHops, Claim::Learned) => {
                        " (a part is kept for this node's own)"
                    }
                    _ => "",
                };
                format!(
                    "{count} routes {whose} are not in the data path, the first to {first}: {table}{kept}"
                )
            }
            Refusal::Other(error) => {
                format!("{count} routes are not in the data path, the first to {first}: {error}")
            }
        };
        self.routes.refusals().into_iter().map(complaint).collect()
    }

    /// Sets the rules of translation; where they changed, every next hop may have to be marked otherwise.
    fn update_rules(&mut self, rules: &[Rule]) -> Result<()> {
        let sources = masquerade::sources(&self.mirror, rules);
        let datapath = &mut self.datapath;
        if self.nat.set_rules(rules, sources, || datapath.synchronize())? {
            self.routes.mark(self.rib.iter().map(|(prefix, _, _)| prefix));
            self.mark_held()?;
            // Flows that the new rules do not allow end now.
            self.nat.sweep(&mut self.object, 1)?;
        }
        Ok(())
    }

    /// The same destination, marked where packets to it may have to be translated.
    pub(super) fn translated(&self, prefix: Ipv4Net, destination: Destination) -> Destination {
        match destination {
            Destination::NextHop(next_hop) => {
                let translates = masquerade::may_translate(self.nat.rules(), prefix, next_hop.ifindex);
                let source = if translates {
                    masquerade::source_by(&self.mirror, prefix, &next_hop)
                } else {
                    Ipv4Be::UNSPECIFIED
                };
                Destination::NextHop(NextHop { translates: translates.into(), source, ..next_hop })
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

/// Takes away every hook, pin and kernel route of the daemon whose pins these are, as far as can be. Gives what is among
/// the pins and not the daemon's, and so stays.
///
/// # Errors
///
/// Where something stays behind, with what and why.
pub async fn remove_everything(pins: &Pins, netlink: &Netlink) -> Result<Vec<PathBuf>> {
    // Read now: the event of a route that was written a moment ago may still wait.
    let mirror = read_kernel(netlink).await?;
    let left = remove_data_path(pins, &mirror);
    let mut errors = Vec::new();
    for route in mirror.own_routes() {
        if let Err(error) = netlink.delete_route(&route).await {
            errors.push(format!("cannot remove the kernel route {route}: {error:#}"));
        }
    }
    match left {
        Ok(left) if errors.is_empty() => Ok(left),
        Ok(_) => bail!("{}", errors.join("; ")),
        Err(error) => {
            errors.insert(0, format!("{error:#}"));
            bail!("{}", errors.join("; "))
        }
    }
}

/// Takes away every hook and pin, and none of the kernel's routes.
pub(super) fn remove_data_path(pins: &Pins, mirror: &Mirror) -> Result<Vec<PathBuf>> {
    remove_hooks(pins, mirror)?;
    pins.remove()
}

/// Every hook that can be taken off is. The pins of the others stay, by which the next try finds them.
fn remove_hooks(pins: &Pins, mirror: &Mirror) -> Result<()> {
    pins.gather()?;
    let names = |index| mirror.link(index).map(|link| link.name.clone());
    let refused =
        attach::attached(pins, names)?.into_iter().filter_map(|place| attach::detach(pins, &place).err());
    let refused: Vec<String> = refused.map(|error| format!("{error:#}")).collect();
    ensure!(refused.is_empty(), "{}", refused.join("; "));
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
