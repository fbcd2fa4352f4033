//! Answers as text, for people.

pub mod bgp;
pub mod flow;
pub mod nat;

use std::{net::Ipv4Addr, time::Duration};

use comfy_table::{Table, presets};

use crate::{control::answers, wanted::Destination};

fn table<const COLUMNS: usize>(headings: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    table
}

/// The table without the blanks at the ends of lines.
fn render(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A destination in a few words.
pub fn describe(destination: &Destination, interface: &dyn Fn(u32) -> String) -> String {
    match destination {
        Destination::Endpoint(endpoint) => {
            format!(
                "the container {} behind {}",
                Ipv4Addr::from(endpoint.address),
                interface(endpoint.ifindex)
            )
        }
        Destination::NextHop(next_hop) if next_hop.gateway.to_wire() == 0 => {
            format!("on the link of {}", interface(next_hop.ifindex))
        }
        Destination::NextHop(next_hop) => {
            format!("via {} by {}", Ipv4Addr::from(next_hop.gateway), interface(next_hop.ifindex))
        }
        Destination::Block => "a block of this node: an address without a container is dropped".to_owned(),
        Destination::Kernel(reason) => format!("left to the kernel ({}: {})", reason.name(), reason.text()),
    }
}

/// A duration as people say it: `1m 43s`, `2days 3h`. Of its units the two largest.
fn duration(seconds: u64) -> String {
    let exact = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// `dataplane status`.
pub fn status(status: &answers::Status) -> String {
    let mut text = format!(
        "node {} · dataplane {} · pid {} · up {} · health {}\n",
        status.node,
        status.version,
        status.pid,
        duration(status.uptime_seconds),
        status.health
    );
    for complaint in &status.complaints {
        text.push_str(&format!("  ! {complaint}\n"));
    }
    let mut hooks = table(["INTERFACE", "HOOK", "PROGRAM", "ID", "MODE"]);
    for hook in &status.hooks {
        let id = hook.program_id.map_or("not attached".to_owned(), |id| id.to_string());
        hooks.add_row([
            hook.interface.clone(),
            hook.hook.clone(),
            hook.program.clone(),
            id,
            hook.mode.clone(),
        ]);
    }
    text.push_str(&format!("\n{}", render(&hooks)));
    for uplink in &status.uplinks {
        text.push_str(&format!("\nuplink {}: {} ({})", uplink.interface, uplink.uplink_hook, uplink.why));
    }
    text.push('\n');
    let mut tables = table(["TABLE", "USED", "MAX"]);
    for table in &status.tables {
        tables.add_row([table.table.clone(), table.used.to_string(), table.max.to_string()]);
    }
    if let Some(import) = &status.import {
        text.push_str(&format!("\nkernel table {}: {} routes taken over", import.table, import.carried));
        for left in &import.left {
            let (cause, routes, first) = (&left.cause, left.routes, left.first);
            text.push_str(&format!(", {routes} left to the kernel ({cause}: {first}, …)"));
        }
        text.push('\n');
    }
    if !status.ipsec.is_empty() {
        let networks: Vec<String> = status.ipsec.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\nleft to the kernel for IPsec policies: {}\n", networks.join(", ")));
    }
    if let Some(respect) = &status.respect {
        text.push_str(&format!("\n{}", flow::respect(respect)));
    }
    if !status.peers.is_empty() {
        text.push_str(&format!("\n{}", bgp::peers(&status.peers, false)));
    }
    let packets = status.packets;
    text.push_str(&format!(
        "\n{}\nroute table: {} KiB\npackets: {} by BPF, {} passed to the kernel, {} dropped\n",
        render(&tables),
        status.route_table_bytes / 1024,
        packets.forwarded,
        packets.passed,
        packets.dropped
    ));
    for (hook, packets) in &status.packets_by_hook {
        text.push_str(&format!(
            "  {hook}: {} carried, {} passed on, {} dropped\n",
            packets.forwarded, packets.passed, packets.dropped
        ));
    }
    text
}

/// The heading of `dataplane endpoint list`.
pub const ENDPOINTS: &str = " ADDRESS          INTERFACE        MAC                MTU    SOURCE\n";

/// A line of `dataplane endpoint list`. Columns have the width of the longest value: a list is written as it is read.
pub fn endpoint(endpoint: &answers::Endpoint) -> String {
    let answers::Endpoint { address, interface, mac, mtu_bytes, source, .. } = endpoint;
    let (address, source) = (address.to_string(), or_dash(source.as_ref()));
    format!(" {address:<15}  {interface:<15}  {mac:<17}  {mtu_bytes:<5}  {source}\n")
}

/// The heading of `dataplane route list`.
pub const ROUTES: &str =
    " PREFIX              KIND      VIA              INTERFACE        REASON           SOURCE\n";

/// A line of `dataplane route list`.
pub fn route(route: &answers::Route) -> String {
    let answers::Route { prefix, kind, via, interface, reason, source } = route;
    let (prefix, via) = (prefix.to_string(), or_dash(via.map(|via| via.to_string()).as_ref()));
    let [interface, reason, source] = [interface, reason, source].map(|text| or_dash(text.as_ref()));
    format!(" {prefix:<18}  {kind:<8}  {via:<15}  {interface:<15}  {reason:<15}  {source}\n")
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or("-".to_owned())
}

/// `dataplane route get`.
pub fn route_get(answer: &answers::RouteGet) -> String {
    let Some(route) = &answer.route else {
        return format!("{}: no route in the data path; the kernel decides\n", answer.address);
    };
    let mut text = format!("{} takes\n{ROUTES}{}", answer.address, self::route(route));
    if !answer.other_offers.is_empty() {
        text.push_str(&format!("also offered:\n{ROUTES}"));
        text.extend(answer.other_offers.iter().map(self::route));
    }
    text
}

/// `dataplane drops`.
pub fn counts(counts: &[answers::Count]) -> String {
    let mut table = table(["HOOK", "CLASS", "REASON", "PACKETS", "BYTES", "MEANING"]);
    for count in counts {
        table.add_row([
            count.hook.clone(),
            count.class.clone(),
            count.reason.clone(),
            count.packets.to_string(),
            count.bytes.to_string(),
            count.text.clone(),
        ]);
    }
    if counts.is_empty() {
        "nothing was dropped or passed to the kernel\n".to_owned()
    } else {
        render(&table)
    }
}

/// `dataplane trace`.
pub fn trace(trace: &answers::Trace) -> String {
    let mut text = format!("{} on {}\n", trace.hook, trace.interface);
    for (number, step) in trace.steps.iter().enumerate() {
        text.push_str(&format!("  {}. {:<14} {}\n", number + 1, step.step, step.text));
    }
    text.push_str(&format!("=> {} ({}): {}\n", trace.verdict, trace.reason, trace.text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let cases = [(0, "0s"), (59, "59s"), (103, "1m 43s"), (3600, "1h"), (187_261, "2days 4h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }
}
