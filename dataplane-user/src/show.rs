//! Answers as text, for people.

pub mod bgp;
pub mod nat;

use std::net::Ipv4Addr;

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

/// `dataplane status`.
pub fn status(status: &answers::Status) -> String {
    let mut text = format!(
        "node {} · dataplane {} · pid {} · up {} s · health {}\n",
        status.node, status.version, status.pid, status.uptime_seconds, status.health
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

/// `dataplane endpoint list`.
pub fn endpoints(endpoints: &[answers::Endpoint]) -> String {
    let mut table = table(["ADDRESS", "INTERFACE", "MAC", "MTU", "SOURCE"]);
    for endpoint in endpoints {
        table.add_row([
            endpoint.address.to_string(),
            endpoint.interface.clone(),
            endpoint.mac.clone(),
            endpoint.mtu_bytes.to_string(),
            endpoint.source.clone(),
        ]);
    }
    render(&table)
}

/// `dataplane route list`.
pub fn routes(routes: &[answers::Route]) -> String {
    let mut table = table(["PREFIX", "KIND", "VIA", "INTERFACE", "REASON", "SOURCE"]);
    for route in routes {
        let or_dash = |text: Option<String>| text.unwrap_or("-".to_owned());
        table.add_row([
            route.prefix.to_string(),
            route.kind.clone(),
            or_dash(route.via.map(|via| via.to_string())),
            or_dash(route.interface.clone()),
            or_dash(route.reason.clone()),
            route.source.clone(),
        ]);
    }
    render(&table)
}

/// `dataplane route get`.
pub fn route_get(answer: &answers::RouteGet) -> String {
    let Some(route) = &answer.route else {
        return format!("{}: no route in the data path; the kernel decides\n", answer.address);
    };
    let mut text = format!("{} takes\n{}", answer.address, routes(std::slice::from_ref(route)));
    if !answer.other_offers.is_empty() {
        text.push_str(&format!("also offered:\n{}", routes(&answer.other_offers)));
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
