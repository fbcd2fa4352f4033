//! Answers to the commands, from the daemon's state.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use dataplane_common::{
    net::MacAddr,
    reason::{Class, Reason},
    stats::{Counter, Hook},
};
use ipnet::Ipv4Net;
use serde_json::{Value, to_value};

use super::{Daemon, sizes};
use crate::{
    control::{Request, answers},
    kernel::{attach, object::Program},
    rib::Source,
    source::bgp::Speaker,
    trace::{self, Entrance, Namer, Probe},
    wanted::{Destination, Offer},
};

impl Daemon {
    /// The answer to a request that changes nothing.
    pub(super) async fn answer(&self, request: Request) -> Result<Value> {
        Ok(match request {
            Request::Status => to_value(self.status(self.bgp_peers().await?)?)?,
            Request::EndpointList => to_value(self.endpoint_list())?,
            Request::RouteList => {
                let routes = self
                    .rib
                    .iter()
                    .map(|(prefix, source, offer)| self.route(prefix, source, self.destination(offer)));
                to_value(routes.collect::<Vec<_>>())?
            }
            Request::RouteGet { address } => to_value(self.route_get(address))?,
            Request::NatList => to_value(self.translations())?,
            Request::NatStats => to_value(self.nat_stats()?)?,
            Request::Drops => to_value(self.counts()?)?,
            Request::BgpPeers => to_value(self.bgp_peers().await?)?,
            Request::BgpRoutePage { refused, after } => to_value(self.bgp_routes(refused, after).await?)?,
            Request::Metrics => to_value(self.metrics_text(self.bgp_peers().await?)?)?,
            Request::Trace(probe) => to_value(self.trace(&probe)?)?,
            Request::Reload | Request::Detach => {
                bail!("a request that changes the daemon is served by its loop")
            }
        })
    }

    fn status(&self, peers: Vec<answers::BgpPeer>) -> Result<answers::Status> {
        let (mut packets, mut packets_by_hook) = (answers::PacketShare::default(), BTreeMap::new());
        for (hook, reason, Counter { packets: count, .. }) in self.datapath.counters()? {
            let at_hook: &mut answers::PacketShare =
                packets_by_hook.entry(hook.name().to_owned()).or_default();
            at_hook.add(reason.class(), count);
            // What XDP passes comes to tc, which says what becomes of it.
            if hook != Hook::XdpFromUplink || reason.class() != Class::Pass {
                packets.add(reason.class(), count);
            }
        }
        let mut complaints = self.all_complaints(&peers);
        let mut hooks = Vec::new();
        for (place, program) in &self.places {
            let program_id = attach::program_id(place, self.mode, &self.pins);
            match &program_id {
                Ok(Some(_)) => {}
                Ok(None) => complaints.push(Self::hook_complaint(place)),
                Err(error) => complaints.push(format!("{error:#}")),
            }
            hooks.push(answers::HookStatus {
                interface: place.interface.clone(),
                ifindex: place.ifindex,
                hook: place.hook.name().to_owned(),
                program: program.name().to_owned(),
                program_id: program_id.ok().flatten(),
                mode: place.mode_name(self.mode).to_owned(),
            });
        }
        let uplinks = self.choices.iter().map(|choice| answers::UplinkStatus {
            interface: self.interface(choice.ifindex),
            uplink_hook: if choice.xdp { "xdp" } else { "tc" }.to_owned(),
            why: choice.why.clone(),
        });
        let usage = self.datapath.usage();
        let table = |name: &str, used: usize, max: u32| answers::TableStatus {
            table: name.to_owned(),
            used: used as u64,
            max: max.into(),
        };
        let ((endpoints, max_endpoints), (next_hops, max_next_hops)) =
            (self.datapath.endpoint_slots(), self.datapath.next_hop_slots());
        Ok(answers::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.config.node.name.clone(),
            health: if complaints.is_empty() { "ok" } else { "degraded" }.to_owned(),
            complaints,
            uptime_seconds: self.ready_since.elapsed().as_secs(),
            pid: std::process::id(),
            config_file: self.config_file.as_ref().map(|file| file.display().to_string()),
            hooks,
            uplinks: uplinks.collect(),
            tables: vec![
                table("routes", usage.routes, self.datapath.max_routes()),
                table("endpoints", endpoints, max_endpoints),
                table("next-hops", next_hops, max_next_hops),
            ],
            route_table_bytes: usage.bytes as u64,
            peers,
            import: self.import(),
            ipsec: self.ipsec.remote.iter().copied().collect(),
            packets,
            packets_by_hook,
        })
    }

    /// What is wrong, each with the mend.
    pub(super) fn all_complaints(&self, peers: &[answers::BgpPeer]) -> Vec<String> {
        let down = peers.iter().filter(|peer| peer.state != "established").map(|peer| {
            let why = peer.last_error.as_deref().unwrap_or("it has not connected yet");
            format!("BGP peer {} is not established ({}): {why}", peer.address, peer.state)
        });
        let warnings = peers.iter().flat_map(|peer| {
            peer.warnings.iter().map(|warning| format!("BGP peer {}: {warning}", peer.address))
        });
        let listening = self.speaker.as_ref().and_then(Speaker::complaint);
        let own = self
            .complaints
            .iter()
            .chain(&self.not_forwarding)
            .chain(&self.pin_failure)
            .chain(self.host_ports.complaints())
            .chain(self.metrics.complaint())
            .cloned();
        let failed = self.retry.complaint().into_iter().chain(self.slow_path.complaint());
        failed
            .chain(self.route_complaints())
            .chain(own)
            .chain(listening)
            .chain(down)
            .chain(warnings)
            .collect()
    }

    /// Counted when it is asked for: nothing else needs the number.
    fn import(&self) -> Option<answers::Import> {
        let table = self.policy.import.as_ref()?.table;
        let account = self.mirror.import_account(&self.policy);
        let left = account.left.into_iter().map(|(cause, (routes, first))| answers::ImportLeft {
            cause: cause.name().to_owned(),
            routes: routes as u64,
            first,
        });
        Some(answers::Import { table, carried: account.carried as u64, left: left.collect() })
    }

    pub(super) fn interface(&self, ifindex: u32) -> String {
        self.mirror.link(ifindex).map_or_else(|| format!("#{ifindex}"), |link| link.name.clone())
    }

    fn endpoint_list(&self) -> Vec<answers::Endpoint> {
        let endpoints = self.rib.iter().filter_map(|(_, source, offer)| match offer {
            Offer::To(Destination::Endpoint(endpoint)) => Some((source, endpoint)),
            _ => None,
        });
        endpoints
            .map(|(source, endpoint)| answers::Endpoint {
                address: endpoint.address.into(),
                interface: self.interface(endpoint.ifindex),
                ifindex: endpoint.ifindex,
                mac: endpoint.macs.destination().to_string(),
                mtu_bytes: endpoint.mtu,
                source: source.name().to_owned(),
            })
            .collect()
    }

    fn route(&self, prefix: Ipv4Net, source: Source, destination: Destination) -> answers::Route {
        let (kind, via, ifindex, reason): (_, _, _, Option<Reason>) = match destination {
            Destination::Endpoint(endpoint) => ("endpoint", None, Some(endpoint.ifindex), None),
            Destination::NextHop(next_hop) => {
                let gateway = (next_hop.gateway.to_wire() != 0).then(|| next_hop.gateway.into());
                ("next-hop", gateway, Some(next_hop.ifindex), None)
            }
            Destination::Block => ("block", None, None, None),
            Destination::Kernel(reason) => ("kernel", None, None, Some(reason)),
        };
        answers::Route {
            prefix,
            kind: kind.to_owned(),
            via,
            interface: ifindex.map(|ifindex| self.interface(ifindex)),
            reason: reason.map(|reason| reason.name().to_owned()),
            source: source.name().to_owned(),
        }
    }

    /// From the table that the programs read, not from what it should hold.
    fn route_get(&self, address: std::net::Ipv4Addr) -> answers::RouteGet {
        let found = self.datapath.lookup(address);
        let route = found.map(|(prefix, destination)| {
            let source = self.rib.best(prefix).map_or(Source::Kernel, |(source, _)| source);
            self.route(prefix, source, destination)
        });
        let offers = found.map(|(prefix, _)| {
            let others = self.rib.offers(prefix).skip(1);
            others.map(|(source, offer)| self.route(prefix, source, self.destination(offer))).collect()
        });
        answers::RouteGet { address, route, other_offers: offers.unwrap_or_default() }
    }

    fn counts(&self) -> Result<Vec<answers::Count>> {
        let counters = self.datapath.counters()?.into_iter();
        Ok(counters
            .filter(|(_, reason, counter)| reason.class() != Class::Forward && counter.packets != 0)
            .map(|(hook, reason, counter)| answers::Count {
                hook: hook.name().to_owned(),
                reason: reason.name().to_owned(),
                class: reason.class().name().to_owned(),
                text: reason.text().to_owned(),
                packets: counter.packets,
                bytes: counter.bytes,
            })
            .collect())
    }

    fn trace(&self, probe: &Probe) -> Result<answers::Trace> {
        let mut walks = self.places.iter().filter(|(_, program)| **program != Program::Waiting);
        let (place, _) = walks.find(|(place, _)| place.interface == probe.interface).with_context(|| {
            format!(
                "no packets of {} are walked: `dataplane status` lists the interfaces with a program, and \
                 `waiting` there means that no container is known behind it",
                probe.interface
            )
        })?;
        let link = self.mirror.link(place.ifindex).context("the interface is just going")?;
        let places = self.places.keys().filter(|other| other.ifindex == place.ifindex);
        let entrance = Entrance {
            hooks: places.map(|place| place.hook).rev().collect(), // XDP comes before tc
            ifindex: place.ifindex,
            mac: link.mac.unwrap_or(MacAddr::new([0; 6])),
        };
        let namer = Namer { mirror: &self.mirror, resolve: &|target| self.datapath.resolve(target) };
        trace::run(&self.pins.maps(), sizes(&self.config), probe, &entrance, &namer)
    }
}
