//! What an operator sees of translation: `nat list`, `nat stats`, `trace`, `drops`.

use anyhow::{Context as _, Result, ensure};
use tests::harness::{
    packet::{Ipv4, Tcp, flags},
    traffic::{self, UdpPair},
};

use super::{Egress, FAR, NODE, Sender, require_root};

impl Egress {
    /// The text of a command.
    fn text(&self, arguments: &[&str]) -> Result<String> {
        self.daemon.cli_output(arguments).ok()
    }
}

#[test]
fn list_and_stats() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    ensure!(net.text(&["nat", "list"])? == "no translations\n");
    let pair = UdpPair::new(&net.c1, &net.outside, FAR)?;
    let seen_as = pair.exchange(&[7; 100])?;
    pair.exchange(&[7; 100])?;
    traffic::ping(&net.c2, FAR, 2)?.all_answered()?;

    let (client, server) = (pair.client.local_addr()?, pair.server.local_addr()?);
    let list = net.text(&["nat", "list"])?;
    let line = list.lines().find(|line| line.contains("udp")).context("no line")?;
    for part in [client.to_string(), seen_as.to_string(), server.to_string(), "udp-replied".to_owned()] {
        ensure!(line.contains(&part), "no {part}: {line}");
    }
    let flow = net.flow("udp", server)?;
    // 100 bytes of payload in a frame of 142, twice each way.
    for (member, value) in [("bytes_out", 284), ("bytes_in", 284), ("bytes", 568), ("packets_out", 2)] {
        ensure!(flow[member] == value, "{member}: {flow}");
    }
    ensure!(flow["expires_seconds"].as_u64().is_some_and(|seconds| (100..=120).contains(&seconds)), "{flow}");

    let stats = net.daemon.cli(&["nat", "stats", "--json"])?;
    ensure!(stats["flows"] == 2 && stats["opened"] == 2, "{stats}");
    ensure!(stats["by_state"]["udp-replied"] == 1 && stats["by_state"]["icmp-echo"] == 1, "{stats}");
    let probes = stats["probes"].as_array().context("no histogram")?;
    let counted: u64 = probes.iter().filter_map(|row| row["flows"].as_u64()).sum();
    ensure!(counted == 2, "{stats}");

    Sender::of(&net.c1)?.send(&Ipv4::new(net.c1.address, FAR, Tcp::new(5000, 5001, flags::RST)))?;
    tests::harness::eventually(super::PATIENCE, || {
        let text = net.text(&["nat", "stats"])?;
        for part in ["2 of 262144 translations", "198.51.100.10", "16384-65535", "nat-no-flow"] {
            ensure!(text.contains(part), "no {part}: {text}");
        }
        let drops = net.text(&["drops"])?;
        ensure!(drops.contains("nat-no-flow"), "{drops}");
        Ok(())
    })?;
    net.finish().map(drop)
}

/// A trace tells what would happen, and nothing happens.
#[test]
fn a_trace_opens_and_renews_nothing() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let trace = |from: &str, to: &str| net.text(&["trace", "--in", "cali1", "udp", from, to]);
    let text = trace("172.19.35.2:5000", "203.0.113.5:5001")?;
    for part in ["a rule applies: 198.51.100.10", "none yet for", "forwarded"] {
        ensure!(text.contains(part), "no {part}: {text}");
    }
    ensure!(net.text(&["nat", "list"])? == "no translations\n");

    let pair = UdpPair::new(&net.c1, &net.outside, FAR)?;
    let seen_as = pair.exchange(b"hello")?;
    let (client, server) = (pair.client.local_addr()?.to_string(), pair.server.local_addr()?.to_string());
    let before = net.flow("udp", pair.server.local_addr()?)?;
    let text = trace(&client, &server)?;
    for part in [&format!("replies go to {seen_as}"), "the source becomes", "forwarded"] {
        ensure!(text.contains(part), "no {part}: {text}");
    }
    let back = net.text(&["trace", "--in", "eth1", "udp", &server, &seen_as.to_string()])?;
    for part in ["the destination becomes 172.19.35.2", "delivered"] {
        ensure!(back.contains(part), "no {part}: {back}");
    }
    let after = net.flow("udp", pair.server.local_addr()?)?;
    for member in ["packets_out", "packets_in", "state", "translated"] {
        ensure!(after[member] == before[member], "{member}: {after} and not {before}");
    }
    ensure!(seen_as.ip() == NODE);
    net.finish().map(drop)
}

/// Any packet of a connection can be traced, not only one that would open it.
#[test]
fn a_trace_in_the_middle_of_a_connection() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let stream = traffic::TcpPair::connect(&net.c1, &net.outside, FAR)?;
    let (client, server) = (stream.client.local_addr()?.to_string(), stream.server.local_addr()?.to_string());
    let trace = |interface: &str, from: &str, to: &str, flags: &str| {
        net.daemon.cli(&["trace", "--in", interface, "--flags", flags, "tcp", from, to, "--json"])
    };
    let out = trace("cali1", &client, &server, "ACK")?;
    ensure!(out["reason"] == "forwarded" && out["flow"]["direction"] == "original", "{out}");
    let listed = net.flow("tcp", stream.server.local_addr()?)?;
    ensure!(out["flow"]["state"] == "tcp-established" && out["flow"]["by"] == "masquerade", "{out}");
    let translated = listed["translated"].as_str().context("no translation")?;
    let back = trace("eth1", &server, translated, "psh,ack")?;
    ensure!(back["reason"] == "delivered" && back["flow"]["direction"] == "reply", "{back}");
    ensure!(back["flow"]["original"] == out["flow"]["original"], "{back} and {out}");
    let said = back["steps"].to_string();
    ensure!(said.contains(&format!("reply direction of tcp {client} > {server}")), "{said}");

    // Of another connection, which that packet would begin or not.
    for (flags, reason) in [("SYN", "forwarded"), ("ACK", "forwarded"), ("RST", "nat-no-flow")] {
        let new = trace("cali1", "172.19.35.2:9", &server, flags)?;
        ensure!(new["reason"] == reason && new["flow"].is_null(), "{flags}: {new}");
    }
    let output =
        net.daemon.cli_output(&["trace", "--in", "cali1", "--flags", "SYM", "tcp", &client, &server]);
    ensure!(output.code() == Some(2) && output.stderr.contains("URG, ECE, CWR"), "{output:?}");
    ensure!(net.flow("tcp", stream.server.local_addr()?)?["packets_out"] == listed["packets_out"]);
    net.finish().map(drop)
}
