//! Flows as text.

use std::net::SocketAddr;

use crate::control::answers::{FlowEnd, FlowEntry, FlowStats, FlowTuple, Respect};

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
    if let Some(respect) = &stats.respect {
        text.push_str(&format!("\n{}", self::respect(respect)));
    }
    text
}

/// Connections that the kernel decides.
pub fn respect(respect: &Respect) -> String {
    let tracked = respect.tracked.map_or("?".to_owned(), |tracked| tracked.to_string());
    let mut text = format!(
        "netfilter decides: {tracked} connections tracked, {} carried by BPF\n  offered {}, leases renewed {}, timeouts set back {}, \
         ended with their entry {}, all ended since events were lost {}\n",
        respect.carried,
        respect.offered,
        respect.renewed,
        respect.refreshed,
        respect.destroyed,
        respect.resynchronized
    );
    let left: Vec<_> = respect.left.iter().filter(|(_, connections)| **connections != 0).collect();
    if !left.is_empty() {
        let left: Vec<_> = left.iter().map(|(cause, connections)| format!("{cause} {connections}")).collect();
        text.push_str(&format!("  not carried, by lookups: {}\n", left.join(", ")));
    }
    for rule in &respect.every_packet {
        text.push_str(&format!("  a rule that does not see carried packets: {rule}\n"));
    }
    text
}

/// `dataplane flow end`.
pub fn end(end: &FlowEnd) -> String {
    format!("{} flows ended\n", end.ended)
}
