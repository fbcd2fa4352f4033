//! Translations as text.

use super::{render, table};
use crate::control::answers::{NatStats, Translation};

/// `dataplane nat list`.
pub fn list(list: &Vec<Translation>) -> String {
    if list.is_empty() {
        return "no translations\n".to_owned();
    }
    let headings = ["PROTOCOL", "ORIGINAL", "TRANSLATED", "REMOTE", "STATE", "AGE", "ENDS IN", "OUT", "IN"];
    let mut table = table(headings);
    for flow in list {
        table.add_row([
            flow.protocol.clone(),
            flow.original.to_string(),
            flow.translated.to_string(),
            flow.remote.to_string(),
            flow.state.clone(),
            format!("{} s", flow.age_seconds),
            format!("{} s", flow.expires_seconds),
            format!("{} B", flow.bytes_out),
            format!("{} B", flow.bytes_in),
        ]);
    }
    render(&table)
}

/// `dataplane nat stats`.
pub fn stats(stats: &NatStats) -> String {
    let mut text = format!(
        "{} of {} translations, at most {} for each source; table: {} KiB\n",
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
