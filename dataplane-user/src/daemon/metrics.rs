//! What the daemon tells Prometheus of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use dataplane_common::stats::Hook;
use tokio::sync::mpsc;

use super::{Daemon, reload::Incomplete};
use crate::{
    control::{answers::BgpPeer, server::Pending},
    kernel::object::Program,
    log,
    metrics::{self, Snapshot, server::Server},
    respect::Respect,
    rib::Source,
};

/// The endpoint, and what is remembered for it.
pub(super) struct Metrics {
    requests: mpsc::Sender<Pending>,
    server: Option<Server>,
    /// Why the file was refused when it was last read.
    refused: Option<String>,
    started: SystemTime,
    read: SystemTime,
}

impl Metrics {
    /// Without an endpoint so far; it asks by that channel.
    pub(super) fn new(requests: mpsc::Sender<Pending>) -> Self {
        let now = SystemTime::now();
        Self { requests, server: None, refused: None, started: now, read: now }
    }

    /// What is wrong with the endpoint, and with the file.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        let listening = self.server.as_ref().and_then(Server::complaint);
        listening.into_iter().chain(self.refused.clone())
    }

    /// Notes how a reading of the file went.
    pub(super) fn note_reload<T>(&mut self, result: &Result<T>) {
        self.refused = match result {
            Ok(_) => {
                self.read = SystemTime::now();
                None
            }
            // The file was read and holds; what is pending says so itself, until it is done.
            Err(error) if error.is::<Incomplete>() => {
                self.read = SystemTime::now();
                None
            }
            Err(error) => {
                let when = humantime::format_rfc3339_seconds(SystemTime::now());
                let first = format!("{error:#}");
                let first = first.lines().next().unwrap_or_default();
                Some(format!(
                    "the reload at {when} failed, correct the file and run `dataplane reload`: {first}"
                ))
            }
        };
    }
}

impl Daemon {
    /// Listens where the file says. An address that cannot be had is a complaint: the data path is not to wait for it.
    pub(super) async fn configure_metrics(&mut self) {
        let wanted = self.config.metrics.listen;
        let Self { metrics, .. } = self;
        if metrics.server.as_ref().map(Server::address) == wanted {
            return;
        }
        metrics.server = None;
        if let Some(address) = wanted {
            metrics.server = Some(Server::start(address, metrics.requests.clone()).await);
        }
    }

    /// The text for Prometheus. Nothing in it costs more for a larger table.
    pub(super) fn metrics_text(&self, peers: Vec<BgpPeer>) -> Result<String> {
        let attached = |hook: Hook| {
            let places = self.places.iter();
            places.filter(|(place, program)| place.hook == hook && **program != Program::Waiting).count()
        };
        let offered = |source: Source| self.rib.offered_by(source);
        let (settings, since_1970) = (self.nat.settings(), |time: SystemTime| {
            time.duration_since(UNIX_EPOCH).map_or(0.0, |duration| duration.as_secs_f64())
        });
        let usage = self.datapath.usage();
        metrics::text(&Snapshot {
            counters: self.datapath.counters()?,
            attached: Hook::ALL.iter().map(|hook| (*hook, attached(*hook))).collect(),
            endpoints: self.datapath.endpoint_slots(),
            next_hops: self.datapath.next_hop_slots(),
            routes: (usage.routes, self.datapath.max_routes()),
            offered: vec![
                ("config", offered(Source::Config)),
                ("bgp", offered(Source::Bgp)),
                ("kernel", [Source::Kernel, Source::Host, Source::Workload].map(offered).iter().sum()),
            ],
            route_table_bytes: usage.bytes,
            flows: if settings.buckets == 0 { (0, 0) } else { (self.nat.flows_held(), settings.max_flows) },
            nat: self.nat.counters()?,
            respect: self.respect.as_ref().map(Respect::status),
            complaints: self.all_complaints(&peers).len(),
            peers,
            started: since_1970(self.metrics.started),
            read: since_1970(self.metrics.read),
            reload_succeeded: self.metrics.refused.is_none(),
            log_lines_lost: log::lost(),
        })
    }
}
