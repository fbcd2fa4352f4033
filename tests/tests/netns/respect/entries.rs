//! Entries of connection tracking: kept fresh, and followed when they go.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{
    traffic::{TcpPair, UdpPair},
    wait::eventually,
};

use super::{REMOTE_SERVICE, Rules, SERVICE, Site, await_carried, flows, has_flow, tcp_port};
use crate::netns::require_root;

/// Seconds that the entry of that client's port has left.
fn timeout(site: &Site, port: u16) -> Result<u64> {
    let entries = site.node1.run(["conntrack", "-L", "-p", "tcp", "--sport", &port.to_string()]).ok()?;
    let entry = entries.lines().find(|line| line.contains("ESTABLISHED")).with_context(|| entries.clone())?;
    Ok(entry.split_whitespace().nth(2).context("an entry without a timeout")?.parse()?)
}

/// While data is not acknowledged, conntrack gives a connection five minutes in place of five days (`tcp_packet()` in
/// net/netfilter/nf_conntrack_proto_tcp.c), and it does not see the acknowledgements that BPF carries.
#[test]
fn an_entry_lives_as_long_as_one_that_the_kernel_keeps() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let daemon = site.start()?;
    let pair = TcpPair::connect(&site.c1, &site.outside, "192.168.200.1")?;
    let port = tcp_port(&pair)?;
    await_carried(&daemon, port, || pair.upload(100_000).map(drop))?;
    eventually(Duration::from_secs(60), || {
        pair.upload(100_000)?;
        ensure!(has_flow(&daemon, port)?, "it is not carried any more");
        let left = timeout(&site, port)?;
        ensure!(left > 400_000, "it has {left} s left");
        Ok(())
    })
}

/// Conntrack tells nobody of the end of an entry that is older than the first listener.
#[test]
fn an_entry_older_than_the_daemon_may_go() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let datagrams = UdpPair::new(&site.c1, &site.c2, SERVICE)?;
    datagrams.exchange(b"before the daemon")?;
    let daemon = site.start()?;
    let port = datagrams.client.local_addr()?.port();
    await_carried(&daemon, port, || datagrams.exchange(b"more").map(drop))?;
    site.node1.run(["conntrack", "-D", "-p", "udp", "--orig-dst", SERVICE]).ok()?;
    // Sooner than silence alone would end it, after a minute.
    eventually(Duration::from_secs(40), || {
        ensure!(!has_flow(&daemon, port)?, "still a flow");
        Ok(())
    })
}

#[test]
fn every_entry_may_go_at_once() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Nftables)?;
    let daemon = site.start()?;
    let pairs: Vec<UdpPair> =
        (0..20).map(|_| UdpPair::new(&site.c1, &site.c3, REMOTE_SERVICE)).collect::<Result<_>>()?;
    for pair in &pairs {
        await_carried(&daemon, pair.client.local_addr()?.port(), || pair.exchange(b"some").map(drop))?;
    }
    site.node1.run(["conntrack", "-F"]).ok()?;
    eventually(Duration::from_secs(10), || {
        ensure!(flows(&daemon)?.is_empty(), "still {:?}", flows(&daemon)?);
        Ok(())
    })?;
    // A rule that came meanwhile judges what goes on.
    site.node1
        .run(["nft", "insert", "rule", "ip", "everything", "forward", "ip", "daddr", "172.19.36.2", "drop"])
        .ok()?;
    let refused = pairs[0].exchange(b"anew");
    ensure!(refused.is_err(), "it was not judged anew");
    Ok(())
}
