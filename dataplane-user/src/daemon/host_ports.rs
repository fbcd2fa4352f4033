//! Keeps MASQUERADE's ports apart from the host's: by the sysctls that say which ports the host takes for its own
//! connections, and by the sockets that it has.
//!
//! None of these tell of their changes, so they are read again every few seconds, where there is a rule.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    ops::RangeInclusive,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use dataplane_common::flow::rule::Rule;
use tracing::{error, info, warn};

use super::Daemon;
use crate::{
    config::{self, Config},
    kernel::{
        flow_ports::FlowPorts,
        netlink::{Sockets, Transport},
        reserved_ports::{PortSysctls, ReservedPorts},
    },
    port_set::PortSet,
    source::kernel::Mirror,
    wanted::{
        masquerade,
        ports::{self, Host, Recent},
    },
};

/// How often the host's settings and sockets are looked at.
pub(super) const PERIOD: Duration = Duration::from_secs(4);

/// How long a port is left out after the socket that was bound to it was last seen: one that comes and goes, or is about
/// to be bound again by a service that restarts, is not to lose its port in between.
const HOLD: Duration = Duration::from_secs(60);

/// The kernel's default of `net.ipv4.ip_local_port_range`.
const USUAL_RANGE: RangeInclusive<u16> = 32768..=60999;

/// What the configuration and the interfaces say of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Basis {
    mode: config::HostPorts,
    /// The `ports` of each rule.
    rules: Vec<Option<RangeInclusive<u16>>>,
    /// What the rules translate to.
    addresses: BTreeSet<Ipv4Addr>,
}

impl Basis {
    fn new(config: &Config, mirror: &Mirror, rules: &[Rule]) -> Self {
        let given = rules.iter().map(|rule| Ipv4Addr::from(rule.address));
        let by_default = masquerade::sources(mirror, rules).into_iter().map(|(_, network)| network.addr());
        Self {
            mode: config.datapath.host_ports,
            rules: config.masquerade.iter().map(|rule| rule.ports.clone()).collect(),
            addresses: given.chain(by_default).filter(|address| !address.is_unspecified()).collect(),
        }
    }
}

/// The daemon's side of the ports.
pub(super) struct HostPorts {
    map: FlowPorts,
    reserved: ReservedPorts,
    sockets: Sockets,
    basis: Option<Basis>,
    /// The ports of sockets, by the map's rows.
    recent: [Recent; 2],
    complaints: Vec<String>,
}

impl HostPorts {
    pub(super) fn new(map: FlowPorts, state_dir: &Path) -> Self {
        Self {
            map,
            reserved: ReservedPorts::new(state_dir),
            sockets: Sockets::default(),
            basis: None,
            recent: Default::default(),
            complaints: Vec::new(),
        }
    }

    /// What is wrong, each with the fix.
    pub(super) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Takes away what was added to the host's reserved ports.
    pub(super) fn put_back(&self) -> Result<()> {
        self.reserved.put_back()
    }

    /// Brings everything in step with the basis, and with the host as it is now. Says whether a port was taken away that a
    /// flow may have.
    async fn update(&mut self) -> bool {
        let Some(basis) = self.basis.clone() else { return false };
        let mut complaints = Vec::new();
        if basis.rules.is_empty() {
            let took = self.map.restrict(&PortSet::new());
            let put_back = self.put_back();
            complaints
                .extend(put_back.err().map(|error| format!("ports of the host stay reserved: {error:#}")));
            self.say(complaints);
            return took;
        }
        let host = self.host(&mut complaints);
        let reserves = basis.mode == config::HostPorts::Reserve;
        let mut plan = ports::plan(&host, &basis.rules, reserves);
        // What the host is to have again is not used any more before it has it, and what is taken from it is used only
        // then. Sockets are looked at in between: they may have been given a port until now.
        let mut took = self.map.restrict(&plan.usable);
        match self.reserved.set(&plan.reserve) {
            Ok(true) => info!(
                "reserved in net.ipv4.ip_local_reserved_ports for MASQUERADE: {}",
                if plan.reserve.is_empty() { "nothing".to_owned() } else { plan.reserve.to_string() }
            ),
            Ok(false) => {}
            Err(error) => {
                plan = ports::plan(&host, &basis.rules, false);
                took |= self.map.restrict(&plan.usable);
                complaints.push(ports::unwritable(&error, &plan, &host, reserves));
            }
        }
        complaints.extend(plan.complaints(&host, reserves));
        if let Err(error) = self.look_at_sockets(&plan.usable, &basis.addresses).await {
            complaints.push(format!(
                "masquerade: {error:#}: the ports of the host's own sockets are not left out; modprobe tcp_diag udp_diag"
            ));
        }
        took |= self.map.apply(&ports::words(&plan.usable, &self.recent.each_ref().map(Recent::ports)));
        self.say(complaints);
        took
    }

    fn host(&self, complaints: &mut Vec<String>) -> Host {
        let mut settle = |error: anyhow::Error| {
            complaints.push(format!("masquerade: {error:#}: the kernel's default is taken for it"));
        };
        let ephemeral = PortSysctls::default().ephemeral().unwrap_or_else(|error| {
            settle(error);
            USUAL_RANGE
        });
        let reserved = self.reserved.read().map(|reserved| reserved.others).unwrap_or_else(|error| {
            settle(error);
            PortSet::new()
        });
        Host { ephemeral, reserved }
    }

    /// Notes the ports of sockets that packets to one of the addresses may be for.
    async fn look_at_sockets(&mut self, usable: &PortSet, addresses: &BTreeSet<Ipv4Addr>) -> Result<()> {
        let Some(lowest) = usable.iter().next() else { return Ok(()) };
        for (transport, recent) in [Transport::Tcp, Transport::Udp].into_iter().zip(&mut self.recent) {
            let sockets = self.sockets.bound(transport, lowest).await?.into_iter();
            let ours = sockets.filter(|socket| {
                usable.contains(socket.port)
                    && socket.address.is_none_or(|address| addresses.contains(&address))
            });
            recent.note(ours.map(|socket| socket.port), Instant::now(), HOLD);
        }
        Ok(())
    }

    fn say(&mut self, complaints: Vec<String>) {
        for complaint in complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            warn!("{complaint}");
        }
        self.complaints = complaints;
    }
}

impl Daemon {
    /// Looks at the host's ports where these rules, or the configuration, say something else of them than before.
    pub(super) async fn follow_rules(&mut self, rules: &[Rule]) {
        let basis = Some(Basis::new(&self.config, &self.mirror, rules));
        if self.host_ports.basis != basis {
            self.host_ports.basis = basis;
            self.update_ports().await;
        }
    }

    /// Looks at the host's ports. Flows with ports that are the host's now end at once.
    pub(super) async fn update_ports(&mut self) {
        if self.host_ports.update().await
            && let Err(error) = self.nat.sweep(&mut self.object, 1)
        {
            error!("{error:#}");
        }
    }
}
