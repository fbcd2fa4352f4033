//! What is told of connections that are not carried.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{traffic::TcpPair, wait::eventually};

use super::{Rules, SERVICE, Site, await_carried, await_left, tcp_port};
use crate::netns::require_root;

#[test]
fn what_stays_with_the_kernel_is_told_with_its_cause() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let Site { c1, c2, node1, .. } = &site;
    let daemon = site.start()?;
    let left = |cause: &str| -> Result<u64> {
        let stats = daemon.cli(&["flow", "stats", "--json"])?;
        stats["respect"]["left"][cause].as_u64().with_context(|| format!("{cause} in {stats}"))
    };
    let pair = TcpPair::connect(c1, c2, c2.address)?;
    // An end that is the node itself.
    let own = TcpPair::connect(c1, node1, node1.address)?;
    eventually(Duration::from_secs(20), || {
        (0..20).try_for_each(|_| own.exchange())?;
        ensure!(left("unreachable")? > 0, "nothing is unreachable");
        Ok(())
    })?;
    // What would become of a packet, before there is a connection.
    for (to, route) in [
        ("172.19.36.2", "172.19.36.2 matches 172.19.36.0/24: via 10.141.0.2"),
        (SERVICE, "10.96.0.10 matches 0.0.0.0/0"),
    ] {
        let trace = daemon.cli(&[
            "trace",
            "--in",
            "cali1",
            "tcp",
            "172.19.35.2:40000",
            &format!("{to}:80"),
            "--json",
        ])?;
        assert_eq!(trace["reason"], "kernel-decides", "{trace}");
        let expected = format!("BPF carries it, if nothing is translated so: {route}");
        ensure!(trace["text"].as_str().is_some_and(|text| text.contains(&expected)), "{trace}");
    }
    // A rule that wants every packet is named.
    node1.run(["iptables", "-t", "mangle", "-A", "POSTROUTING", "-j", "DSCP", "--set-dscp", "10"]).ok()?;
    let status = daemon.cli(&["status", "--json"])?;
    ensure!(status["respect"]["every_packet"].to_string().contains("it sets the DSCP"), "{status}");
    // Policy routing: everything stays with the kernel while it is there, and the health says so.
    await_carried(&daemon, tcp_port(&pair)?, || pair.exchange())?;
    node1.ip("rule add from 172.19.35.2 table 100 priority 1000")?;
    await_left(&daemon, tcp_port(&pair)?, || pair.exchange())?;
    let status = daemon.cli(&["status", "--json"])?;
    ensure!(status["complaints"].to_string().contains("policy routing rules"), "{status}");
    node1.ip("rule del priority 1000")?;
    await_carried(&daemon, tcp_port(&pair)?, || pair.exchange())
}
