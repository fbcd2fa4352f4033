//! Translations as text.

use super::{render, table};
use crate::control::answers::{NatStats, Translation};

/// The heading of `dataplane nat list`.
pub const TRANSLATIONS: &str = " PROTOCOL  ORIGINAL               TRANSLATED             REMOTE                 STATE            \
                                AGE       ENDS IN   OUT              IN\n";

/// A line of `dataplane nat list`.
pub fn translation(flow: &Translation) -> String {
    let [original, translated, remote] =
        [flow.original, flow.translated, flow.remote].map(|side| side.to_string());
    let (age, ends) = (format!("{} s", flow.age_seconds), format!("{} s", flow.expires_seconds));
    let (out, back) = (format!("{} B", flow.bytes_out), format!("{} B", flow.bytes_in));
    format!(
        " {:<8}  {original:<21}  {translated:<21}  {remote:<21}  {:<15}  {age:<8}  {ends:<8}  {out:<15}  {back}\n",
        flow.protocol, flow.state
    )
}

/// `dataplane nat stats`.
pub fn stats(stats: &NatStats) -> String {
    stats_of(stats, "translations")
}

/// The same of whatever flows.
pub(super) fn stats_of(stats: &NatStats, what: &str) -> String {
    let mut text = format!(
        "{} of {} {what}, at most {} for each source; table: {} KiB\n",
        stats.flows,
        stats.max_flows,
        stats.max_flows_per_source,
        stats.table_bytes / 1024
    );
    for (state, flows) in &stats.by_state {
        text.push_str(&format!("  {state:<18}{flows}\n"));
    }
    let mut rules = table(["INTERFACE", "ADDRESS", "PORTS", "TCP IN USE", "UDP IN USE", "ICMP IN USE"]);
    for rule in &stats.rules {
        let in_use = |protocol| rule.ports_in_use.get(protocol).copied().unwrap_or_default().to_string();
        rules.add_row([
            rule.interface.clone(),
            rule.address.map_or("none: dropped".to_owned(), |address| address.to_string()),
            format!("{}-{}", rule.ports.0, rule.ports.1),
            in_use("tcp"),
            in_use("udp"),
            in_use("icmp"),
        ]);
    }
    text.push_str(&format!("\n{}", render(&rules)));
    text.push_str(&format!(
        "\nbegun {}, expired {}, revoked {}, displaced {} closed and {} half-open\n",
        stats.opened, stats.expired, stats.revoked, stats.displaced_ended, stats.displaced_half_open
    ));
    for (reason, packets) in &stats.refused_packets {
        text.push_str(&format!("  dropped as {reason}: {packets} packets\n"));
    }
    let probed = stats.probes.iter().filter(|row| row.flows != 0);
    for row in probed {
        let probes =
            if row.from == row.to { row.from.to_string() } else { format!("{}-{}", row.from, row.to) };
        text.push_str(&format!("  ports found after {probes} probes: {}\n", row.flows));
    }
    text
}
