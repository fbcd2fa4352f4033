//! Answers to the commands, from the daemon's state.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use dataplane_common::{
    reason::Class,
    stats::{Counter, Hook},
};
use ipnet::Ipv4Net;
use serde_json::{Value, to_value};

use super::Daemon;
use crate::{
    control::{Request, answers},
    kernel::attach,
    respect::Respect,
    source::bgp::Speaker,
};

/// Routes on a page of sources: a part of a millisecond's work.
const SOURCES_PER_PAGE: usize = 4096;

impl Daemon {
    /// The answer to a request that changes nothing.
    pub(super) async fn answer(&self, request: Request) -> Result<Value> {
        Ok(match request {
            Request::Status => to_value(self.status(self.bgp_peers().await?)?)?,
            Request::Sources { from } => to_value(self.sources(from))?,
            Request::Offers { prefix } => to_value(self.offers(prefix))?,
            Request::Respect => to_value(self.respect.as_ref().map(Respect::status))?,
            Request::BgpPeers => to_value(self.bgp_peers().await?)?,
            Request::BgpRoutePage { refused, after } => to_value(self.bgp_routes(refused, after).await?)?,
            Request::Metrics => to_value(self.metrics_text(self.bgp_peers().await?)?)?,
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
            respect: self.respect.as_ref().map(Respect::status),
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
        let own = self.complaints.iter().chain(&self.not_forwarding).chain(&self.pin_failure);
        let own = own
            .chain(self.host_ports.complaints())
            .cloned()
            .chain(self.respect.as_ref().and_then(Respect::complaint))
            .chain(self.metrics.complaints());
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

    /// A page of who offers what.
    fn sources(&self, from: Ipv4Net) -> answers::SourcePage {
        let mut routes = self.rib.iter_from(from).map(|(prefix, source, _)| (prefix, source));
        let page: Vec<_> = routes.by_ref().take(SOURCES_PER_PAGE).collect();
        let next = routes.next().map(|(prefix, _)| prefix);
        answers::SourcePage::new(page.into_iter(), next)
    }

    /// Who offers a route to the prefix, and what else was offered.
    fn offers(&self, prefix: Ipv4Net) -> answers::Offers {
        let route = |(source, offer)| {
            let name = &mut |ifindex| self.interface(ifindex);
            answers::Route::new(prefix, &self.destination(offer), Some(source), name)
        };
        answers::Offers {
            source: self.rib.best(prefix).map(|(source, _)| source.name().to_owned()),
            others: self.rib.offers(prefix).skip(1).map(route).collect(),
        }
    }
}
