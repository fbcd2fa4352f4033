//! `dataplane flow`: what the data path knows of connections, read from the pinned maps.

use std::process::{Command, Stdio};

use aya::maps::{Array, Map, MapData};
use dataplane_common::{
    flow::{
        record::{Life, flags, ticks},
        state::{Progress, State},
        tuple::protocol,
    },
    names::{LAYOUT_VERSION, MAP_FLOW_RECORDS, MAP_FLOW_TAKEN},
};
use tests::harness::{
    daemon::place,
    process::run,
    traffic::{TcpPair, UdpPair},
};

use super::*;

/// The flows that `dataplane flow list` shows with those options.
fn list(net: &Egress, options: &[&str]) -> Result<Vec<Value>> {
    let list = net.daemon.cli(&[&["flow", "list", "--json"], options].concat())?;
    list.as_array().cloned().context("the list is none")
}

fn one(net: &Egress, options: &[&str]) -> Result<Value> {
    let flows = list(net, options)?;
    ensure!(flows.len() == 1, "not one flow with {options:?}: {flows:?}");
    Ok(flows[0].clone())
}

fn none(net: &Egress, options: &[&str]) -> Result<()> {
    let flows = list(net, options)?;
    ensure!(flows.is_empty(), "with {options:?}: {flows:?}");
    Ok(())
}

#[test]
fn a_connection_is_shown_with_both_tuples() -> Result<()> {
    require_root!();
    let mut net = Egress::new()?;
    let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    let seen_as = pair.upload(100_000)?.client_seen_as;
    net.daemon.kill()?;

    let flow = one(&net, &["--protocol", "tcp"])?;
    let is = |tuple: &str, source: &dyn ToString, destination: &dyn ToString| {
        let tuple = &flow[tuple];
        tuple["source"] == source.to_string() && tuple["destination"] == destination.to_string()
    };
    ensure!(is("original", &net.c1.address, &FAR) && is("reply", &FAR, &NODE), "{flow}");
    ensure!(flow["reply"]["destination_port"] == seen_as.port(), "{flow}");
    ensure!(flow["original"]["destination_port"] == flow["reply"]["source_port"], "{flow}");
    ensure!(flow["state"] == "tcp-established" && flow["by"] == "masquerade", "{flow}");
    ensure!(flow["snat"] == true && flow["dnat"] == false, "{flow}");
    ensure!(flow["rule_source"] == "172.19.0.0/16" && flow["interface"] == "eth1", "{flow}");
    ensure!(flow["original_bytes"].as_u64() > Some(100_000), "{flow}");
    ensure!(
        flow["reply_packets"].as_u64() > Some(0) && flow["expires_seconds"].as_u64() > Some(60),
        "{flow}"
    );

    let source = net.c1.address.to_string();
    for options in [
        &["--source", &source, "--by", "masquerade"][..],
        &["--source", "172.19.0.0/16", "--destination", "203.0.113.5", "--state", "tcp-established"],
    ] {
        one(&net, options)?;
    }
    for options in [
        &["--source", "172.19.35.3"][..],
        &["--destination", &source],
        &["--protocol", "udp"],
        &["--state", "tcp-closed"],
        &["--by", "kernel"],
        &["--limit", "0"],
    ] {
        none(&net, options)?;
    }

    let stats = net.daemon.cli(&["flow", "stats", "--json"])?;
    ensure!(stats["flows"] == 1 && stats["translated"] == 1 && stats["by"]["masquerade"] == 1, "{stats}");
    ensure!(stats["by_state"]["tcp-established"] == 1, "{stats}");
    let rule = |stats: &Value| {
        let rules = stats["rules"].as_array().context("no rules")?;
        rules.iter().find(|rule| rule["interface"] == "eth1").cloned().context("no rule for eth1")
    };
    ensure!(rule(&stats)?["ports_in_use"]["tcp"] == 1, "{stats}");
    ensure!(stats["usable_ports"]["tcp"] == 40_960, "{stats}");
    let stats = net.daemon.cli(&["nat", "stats", "--json"])?;
    ensure!(stats["flows"] == 1 && rule(&stats)?["address"] == NODE.to_string(), "{stats}");
    let text = net.daemon.cli_output(&["flow", "list"]).ok()?;
    ensure!(text.lines().count() == 2 && text.contains("tcp-established"), "{text}");
    ensure!(net.daemon.cli_output(&["flow", "stats"]).ok()?.contains("decided by masquerade: 1"));
    ensure!(net.flow("tcp", pair.client.peer_addr()?)?["translated"] == seen_as.to_string());
    Ok(())
}

#[test]
fn a_flow_that_is_ended_begins_anew() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let udp = UdpPair::new(&net.c1, &net.outside, FAR)?;
    for text in [&b"one"[..], b"two", b"three"] {
        udp.exchange(text)?;
    }
    let tcp = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    ensure!(one(&net, &["--protocol", "udp"])?["original_packets"] == 3);

    ensure!(net.daemon.cli(&["flow", "end", "--protocol", "udp", "--json"])?["ended"] == 1);
    none(&net, &["--protocol", "udp"])?;
    ensure!(net.daemon.cli(&["flow", "end", "--protocol", "udp", "--json"])?["ended"] == 0);
    udp.exchange(b"four")?;
    let flow = one(&net, &["--protocol", "udp"])?;
    ensure!(flow["original_packets"] == 1 && flow["state"] == "udp-replied", "{flow}");

    // The other one was let be; then all end, and a segment in the middle of its connection begins it anew.
    tcp.exchange()?;
    ensure!(net.daemon.cli_output(&["flow", "end"]).ok()? == "2 flows ended\n");
    none(&net, &[])?;
    tcp.exchange()?;
    one(&net, &["--protocol", "tcp"]).map(drop)
}

/// A table that no daemon and no packet touches any more, with so many flows.
fn fill(net: &mut Egress, flows: u32) -> Result<()> {
    net.daemon.kill()?;
    let maps = net.daemon.bpf_dir().join(format!("v{LAYOUT_VERSION}/maps"));
    let open = |name| anyhow::Ok(Map::from_map_data(MapData::from_pin(maps.join(name))?)?);
    let mut records: Array<_, [u64; 8]> = open(MAP_FLOW_RECORDS)?.try_into()?;
    let mut taken: Array<_, u64> = open(MAP_FLOW_TAKEN)?.try_into()?;
    let life = Life::from_bits(0).next(Progress::first(State::TcpEstablished), ticks(uptime() + 3600));
    let pair = |one: Ipv4Addr, other: Ipv4Addr| {
        u64::from(u32::from_ne_bytes(one.octets())) | u64::from(u32::from_ne_bytes(other.octets())) << 32
    };
    let kind = u64::from(protocol::TCP) << 32 | u64::from(flags::SNAT | flags::BY_MASQUERADE) << 40;
    for number in 0..flows {
        let source = Ipv4Addr::from(0xac13_0000 | number >> 8);
        let (port, server) = (40_000 + u64::from(number & 0xff), 443);
        let record = [
            life.to_bits(),
            pair(source, FAR),
            port | server << 16 | kind,
            0,
            0,
            pair(FAR, NODE),
            server | port << 16,
            0,
        ];
        records.set(number, record, 0)?;
    }
    for word in 0..flows / 64 {
        taken.set(word, u64::MAX, 0)?;
    }
    Ok(())
}

/// Seconds since the start of the machine.
fn uptime() -> u32 {
    let since = dataplane::kernel::monitor::since_start();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

const MANY: u32 = 64 * 1024;

/// A command that may take that much memory of its own.
fn limited(net: &Egress, arguments: &[&str]) -> Result<Command> {
    let mut command = net.node.command(["prlimit", "--data=12582912"]);
    command.arg(place::binary()?).args(arguments).arg("--state-dir").arg(net.daemon.state_dir());
    Ok(command)
}

#[test]
fn a_long_list_takes_little_memory() -> Result<()> {
    require_root!();
    let mut net = Egress::new()?;
    fill(&mut net, MANY)?;
    let lines = run(limited(&net, &["flow", "list"])?, "").ok()?.lines().count();
    ensure!(lines == MANY as usize + 1, "{lines} lines");
    let text = run(limited(&net, &["flow", "list", "--json"])?, "").ok()?;
    let flows: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(flows.len() == MANY as usize && flows[MANY as usize - 1]["original"]["source_port"] == 40_255);
    ensure!(run(limited(&net, &["nat", "list"])?, "").ok()?.lines().count() == lines);
    for statistics in ["flow", "nat"] {
        let text = run(limited(&net, &[statistics, "stats", "--json"])?, "").ok()?;
        ensure!(serde_json::from_str::<Value>(&text)?["flows"] == MANY, "{text}");
    }
    // A reader that has enough is no error.
    for json in [&[][..], &["--json"]] {
        let mut command = limited(&net, &[&["flow", "list"][..], json].concat())?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    }
    ensure!(list(&net, &["--limit", "3"])?.len() == 3);
    let ended = net.daemon.cli(&["flow", "end", "--source", "172.19.1.0/24", "--json"])?;
    ensure!(ended["ended"] == 0, "{ended}");
    let ended = net.daemon.cli(&["flow", "end", "--source", "172.19.0.0/25", "--json"])?;
    ensure!(ended["ended"] == MANY / 2, "{ended}");
    let left = net.daemon.cli(&["flow", "stats", "--json"])?;
    ensure!(left["flows"] == MANY / 2, "{left}");
    Ok(())
}
