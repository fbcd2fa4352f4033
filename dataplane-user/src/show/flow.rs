//! Flows as text.

use std::net::SocketAddr;

use crate::control::answers::{FlowEnd, FlowEntry, FlowStats, FlowTuple};

/// The heading of `dataplane flow list`.
pub const FLOWS: &str = " PROTOCOL  STATE            BY          ORIGINAL                                       \
                         REPLY                                          OUT BY           AGE       ENDS IN   \
                         PACKETS (REPLY)        BYTES (REPLY)\n";

/// A line of `dataplane flow list`. Columns have the width of the longest value, but for numbers without a bound: a list is
/// written as it is read.
pub fn flow(flow: &FlowEntry) -> String {
    let (original, reply) = (tuple(&flow.original), tuple(&flow.reply));
    let (by, interface) = (flow.by.unwrap_or("-"), flow.interface.as_deref().unwrap_or("-"));
    let (age, ends) = (format!("{} s", flow.age_seconds), format!("{} s", flow.expires_seconds));
    let packets = format!("{} ({})", flow.original_packets, flow.reply_packets);
    format!(
        " {:<8}  {:<15}  {by:<10}  {original:<45}  {reply:<45}  {interface:<15}  {age:<8}  {ends:<8}  {packets:<21}  {} ({})\n",
        flow.protocol, flow.state, flow.original_bytes, flow.reply_bytes
    )
}

/// Protocol and original tuple in a sentence.
pub fn original(flow: &FlowEntry) -> String {
    format!("{} {}", flow.protocol, tuple(&flow.original))
}

fn tuple(tuple: &FlowTuple) -> String {
    let source = SocketAddr::new(tuple.source, tuple.source_port);
    let destination = SocketAddr::new(tuple.destination, tuple.destination_port);
    format!("{source} > {destination}")
}

/// `dataplane flow stats`.
pub fn stats(stats: &FlowStats) -> String {
    let mut text = super::nat::stats_of(&stats.table, "flows");
    text.push_str(&format!("\n{} of the flows are translated; decided by", stats.translated));
    match stats.by.is_empty() {
        true => text.push_str(" nothing\n"),
        false => {
            let by: Vec<_> = stats.by.iter().map(|(by, flows)| format!(" {by}: {flows}")).collect();
            text.push_str(&format!("{}\n", by.join(",")));
        }
    }
    for (protocol, ports) in &stats.usable_ports {
        text.push_str(&format!("  {protocol} ports that are not the host's: {ports}\n"));
    }
    text
}

/// `dataplane flow end`.
pub fn end(end: &FlowEnd) -> String {
    format!("{} flows ended\n", end.ended)
}
