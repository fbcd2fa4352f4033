//! What Prometheus is told, as OpenMetrics text: names, units and labels, and the endpoint that gives it.
//!
//! Labels are hooks, reasons, sources, states and the peers of the file: never a container, an address or a flow, of
//! which there is no bound.

pub mod server;

use std::fmt::Write as _;

use anyhow::Result;
use dataplane_common::{
    flow::settings::Stats,
    reason::Reason,
    stats::{Counter as Counted, Hook},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::control::answers::{BgpPeer, Respect};

/// `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A daemon at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What every hook counted, zeros included.
    pub counters: Vec<(Hook, Reason, Counted)>,
    /// Interfaces with a program, by hook.
    pub attached: Vec<(Hook, usize)>,
    /// Endpoints in the table, and places for them.
    pub endpoints: (usize, u32),
    /// Next hops in the table, and places for them.
    pub next_hops: (usize, u32),
    /// Routes in the table, and how many it may have.
    pub routes: (usize, u32),
    /// Prefixes that each source offers.
    pub offered: Vec<(&'static str, usize)>,
    /// Memory of the route table.
    pub route_table_bytes: usize,
    /// Translations in the table, and how many it may have; 0 where nothing is translated.
    pub flows: (u32, u32),
    /// What became of translations.
    pub nat: Stats,
    /// Connections that the kernel decides, where it does.
    pub respect: Option<Respect>,
    /// The BGP peers.
    pub peers: Vec<BgpPeer>,
    /// How many things are wrong: the lines of `dataplane status`.
    pub complaints: usize,
    /// When the daemon was ready, in seconds since 1970.
    pub started: f64,
    /// When its file was last read without an error, in seconds since 1970.
    pub read: f64,
    /// Whether the file was in order when it was last read.
    pub reload_succeeded: bool,
    /// Lines of the log that could not be written.
    pub log_lines_lost: u64,
}

type Labels = Vec<(&'static str, String)>;

/// The metrics under registration.
struct Metrics(Registry);

impl Metrics {
    fn gauge(&mut self, name: &str, help: &str, value: impl TryInto<i64>) {
        let gauge = Gauge::<i64>::default();
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        self.0.register(name, help, gauge);
    }

    fn gauges<T: TryInto<i64>>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, T)>,
    ) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value.try_into().unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }

    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(value);
        self.0.register_with_unit(name, help, Unit::Seconds, gauge);
    }
}

fn label(name: &'static str, value: impl ToString) -> Labels {
    vec![(name, value.to_string())]
}

/// The text that Prometheus is given.
///
/// # Errors
///
/// Where it cannot be written, which a string never refuses.
pub fn text(snapshot: &Snapshot) -> Result<String> {
    let mut metrics = Metrics(Registry::with_prefix("dataplane"));
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    metrics.0.register("build", "The program that runs", version);
    packets(&mut metrics, snapshot);
    tables(&mut metrics, snapshot);
    translations(&mut metrics, &snapshot.nat);
    respect(&mut metrics, snapshot.respect.as_ref());
    peers(&mut metrics, &snapshot.peers);
    metrics.gauge("complaints", "What is wrong, as `dataplane status` tells it", snapshot.complaints);
    metrics.seconds("start_time", "When the daemon was ready, since 1970", snapshot.started);
    metrics.seconds(
        "config_last_read_timestamp",
        "When the file was last read without an error, since 1970",
        snapshot.read,
    );
    let succeeded = i64::from(snapshot.reload_succeeded);
    metrics.gauge(
        "config_last_read_successful",
        "Whether the file was in order when it was last read",
        succeeded,
    );
    let lost = Counter::<u64>::default();
    lost.inc_by(snapshot.log_lines_lost);
    metrics.0.register("log_lines_lost", "Lines of the log that could not be written", lost);
    let mut text = String::new();
    encode(&mut text, &metrics.0)?;
    Ok(text)
}

fn packets(metrics: &mut Metrics, snapshot: &Snapshot) {
    let of = |value: fn(&Counted) -> u64| {
        snapshot.counters.iter().map(move |(hook, reason, counter)| {
            let labels = vec![
                ("hook", hook.name().to_owned()),
                ("reason", reason.name().to_owned()),
                ("class", reason.class().name().to_owned()),
            ];
            (labels, value(counter))
        })
    };
    metrics.counters("packets", "Packets; an aggregate counts once", of(|counter| counter.packets));
    metrics.counters("bytes", "Bytes of their frames", of(|counter| counter.bytes));
    let attached = snapshot.attached.iter().map(|(hook, count)| (label("hook", hook.name()), *count));
    metrics.gauges("attached_interfaces", "Interfaces with a program", attached);
}

fn tables(metrics: &mut Metrics, snapshot: &Snapshot) {
    let offered = snapshot.offered.iter().map(|(source, count)| (label("source", source), *count));
    metrics.gauges("routes", "Prefixes that each source offers", offered);
    let tables =
        [("routes", snapshot.routes), ("endpoints", snapshot.endpoints), ("next-hops", snapshot.next_hops)];
    let used = tables.iter().map(|(table, (used, _))| (label("table", table), *used));
    metrics.gauges("table_entries", "Entries in use", used);
    let most = tables.iter().map(|(table, (_, most))| (label("table", table), *most));
    metrics.gauges("table_entries_limit", "Entries that fit", most);
    metrics.gauge("route_table_bytes", "Memory of the route table", snapshot.route_table_bytes);
    metrics.gauge(
        "flows",
        "Translations, those among them that have expired and were not swept yet",
        snapshot.flows.0,
    );
    metrics.gauge("flow_limit", "Most translations; 0 where there is no table of them", snapshot.flows.1);
}

fn translations(metrics: &mut Metrics, nat: &Stats) {
    let opened = Counter::<u64>::default();
    opened.inc_by(nat.opened);
    metrics.0.register("flows_opened", "Translations that began", opened);
    let ended = [
        ("expired", nat.expired),
        ("displaced-closed", nat.displaced_ended),
        ("displaced-half-open", nat.displaced_half_open),
        ("revoked", nat.revoked),
    ];
    let ended = ended.map(|(cause, count)| (label("cause", cause), count));
    metrics.counters("flows_ended", "Translations that ended, by cause", ended);
}

fn respect(metrics: &mut Metrics, respect: Option<&Respect>) {
    let Some(respect) = respect else { return };
    if let Some(tracked) = respect.tracked {
        metrics.gauge(
            "connections_tracked",
            "Entries of the kernel's connection tracking, where it decides",
            tracked,
        );
    }
    metrics.gauge(
        "connections_carried",
        "Connections that the kernel decided and BPF carries",
        respect.carried,
    );
    let events = [
        ("offered", respect.offered),
        ("renewed", respect.renewed),
        ("refreshed", respect.refreshed),
        ("destroyed", respect.destroyed),
        ("resynchronized", respect.resynchronized),
    ];
    let events = events.map(|(event, count)| (label("event", event), count));
    metrics.counters("connection_events", "What was done for connections that the kernel decides", events);
    let left = respect.left.iter().map(|(cause, count)| (label("cause", cause), *count));
    metrics.counters("connections_left", "Lookups of connections that are not carried, by cause", left);
}

fn peers(metrics: &mut Metrics, peers: &[BgpPeer]) {
    let up = peers.iter().map(|peer| (label("peer", peer.address), i64::from(peer.state == "established")));
    metrics.gauges("bgp_session_up", "Whether the session is established", up);
    let sessions = peers.iter().map(|peer| (label("peer", peer.address), peer.sessions));
    metrics.counters("bgp_sessions", "Sessions that were established", sessions);
    let prefixes = peers.iter().flat_map(|peer| {
        let counts = [
            ("received", peer.prefixes_received),
            ("accepted", peer.prefixes_accepted),
            ("stale", peer.prefixes_stale),
            ("announced", peer.prefixes_announced),
        ];
        counts.map(|(kind, count)| {
            let mut labels = label("peer", peer.address);
            labels.push(("kind", kind.to_owned()));
            (labels, count)
        })
    });
    metrics.gauges("bgp_prefixes", "IPv4 prefixes", prefixes);
}

/// Names of the samples in such a text.
pub fn names(text: &str) -> std::collections::BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).filter(|name| !name.is_empty()).collect()
}

/// The reference of the metrics, as `docs/metrics.md` has it: a row for each.
pub fn reference(text: &str) -> String {
    let mut rows = String::new();
    let mut help = "";
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), Some(found)) => help = found.trim_end_matches('.'),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let _ = writeln!(rows, "| `{name}{suffix}` | {kind} | {help} |");
            }
            _ => {}
        }
    }
    rows
}

#[cfg(test)]
mod tests;
