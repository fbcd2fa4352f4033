//! How long translations live: longer than the daemon, as long as the connection, and no longer than that.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::names::{LAYOUT_VERSION, RENEWED_MAPS};
use tests::harness::{
    Capture, eventually,
    packet::{Ipv4, L4, Tcp, Udp, flags},
    traffic::{self, TcpPair, UdpPair},
};

use super::{Egress, FAR, NODE, PATIENCE, RULE, Sender, config, require_root};

/// A daemon that is older than one of these maps left none of it: the next one goes on with all the others.
#[test]
fn translations_outlive_a_daemon_that_had_fewer_maps() -> Result<()> {
    require_root!();
    let mut net = Egress::new()?;
    let udp = UdpPair::new(&net.c1, &net.outside, FAR)?;
    let seen_as = udp.exchange(b"hello")?;
    net.daemon.stop()?;
    let maps = net.daemon.bpf_dir().join(format!("v{LAYOUT_VERSION}/maps"));
    for name in RENEWED_MAPS {
        fs::remove_file(maps.join(name)).with_context(|| format!("no pin of {name}"))?;
    }
    net.daemon.launch()?;
    let flow = net.flow("udp", udp.client.peer_addr()?)?;
    ensure!(flow["translated"] == *seen_as.to_string(), "{flow}");
    ensure!(net.by_bpf(|| udp.exchange(b"still there"))? == seen_as);
    net.finish().map(drop)
}

#[test]
fn translation_goes_on_without_the_daemon() -> Result<()> {
    require_root!();
    let mut net = Egress::new()?;
    let tcp = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    let seen_as = tcp.upload(1000)?.client_seen_as;
    let udp = UdpPair::new(&net.c1, &net.outside, FAR)?;
    let udp_seen_as = udp.exchange(b"hello")?;
    let remote = tcp.server.local_addr()?;
    let before = net.flow("tcp", remote)?;
    for end in ["SIGKILL", "SIGTERM"] {
        if end == "SIGKILL" {
            net.daemon.kill()?
        } else {
            net.daemon.stop()?
        }
        net.by_bpf(|| {
            ensure!(tcp.upload(500_000)?.client_seen_as == seen_as);
            tcp.download(500_000)?;
            ensure!(udp.exchange(b"still there")? == udp_seen_as);
            // New ones, too.
            traffic::ping(&net.c2, FAR, 3)?.all_answered()?;
            TcpPair::connect(&net.c2, &net.outside, FAR)?.exchange()?;
            ensure!(UdpPair::new(&net.c2, &net.outside, FAR)?.exchange(b"new")?.ip() == NODE);
            Ok(())
        })?;
        net.daemon.launch()?;
        let flow = net.flow("tcp", remote)?;
        for member in ["original", "translated", "state"] {
            ensure!(flow[member] == before[member], "after {end}: {flow} and not {before}");
        }
        ensure!(flow["bytes"].as_u64() > before["bytes"].as_u64().map(|bytes| bytes + 1_000_000), "{flow}");
        net.by_bpf(|| {
            tcp.exchange()?;
            ensure!(udp.exchange(b"and now")? == udp_seen_as);
            UdpPair::new(&net.c2, &net.outside, FAR)?.exchange(b"new").map(drop)
        })?;
    }
    net.finish().map(drop)
}

/// What [`Egress::finish`] asserts of every daemon, said once: nothing is left, and the kernel goes on alone.
#[test]
fn detach_removes_the_table() -> Result<()> {
    require_root!();
    let mut net = Egress::new()?;
    traffic::ping(&net.c1, FAR, 2)?.all_answered()?;
    net.daemon.stop()?;
    ensure!(net.daemon.bpf_dir().exists());
    net.daemon.detach()?;
    ensure!(net.daemon.leftovers()?.is_empty(), "{:?}", net.daemon.leftovers()?);
    net.daemon.launch()?;
    ensure!(net.daemon.cli(&["nat", "list", "--json"])?.as_array().is_some_and(Vec::is_empty));
    traffic::ping(&net.c1, FAR, 2)?.all_answered()?;
    net.finish().map(drop)
}

#[test]
fn a_connection_closes() -> Result<()> {
    require_root!();
    let net = Egress::with(config().table(&format!("[timeouts]\ntcp-closed-seconds = 1\n{RULE}")))?;
    let TcpPair { mut client, mut server } = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    let remote = server.local_addr()?;
    ensure!(net.flow("tcp", remote)?["state"] == "tcp-established");
    client.shutdown(std::net::Shutdown::Write)?;
    ensure!(server.read(&mut [0; 10])? == 0);
    ensure!(net.flow("tcp", remote)?["state"] == "tcp-closing");
    // Half-closed, the other half still carries.
    server.write_all(b"last words")?;
    client.read_exact(&mut [0; 10])?;
    drop(server);
    ensure!(client.read(&mut [0; 10])? == 0);
    eventually(PATIENCE, || {
        let flows = net.flows("tcp", remote)?;
        ensure!(flows.iter().all(|flow| flow["state"] == "tcp-closed"), "{flows:?}");
        Ok(())
    })?;
    eventually(Duration::from_secs(30), || {
        ensure!(net.flows("tcp", remote)?.is_empty(), "still there");
        Ok(())
    })?;
    net.finish().map(drop)
}

/// A RST shortens a flow's life, and data revives it (RFC 7857, section 2.2): a forged one does no harm.
#[test]
fn a_forged_reset_does_not_end_a_connection() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    let seen_as = pair.upload(100)?.client_seen_as;
    let remote = pair.server.local_addr()?;
    // Far outside the window: no end accepts it (RFC 5961).
    let reset = Tcp { sequence: 0x1234_5678, ..Tcp::new(remote.port(), seen_as.port(), flags::RST) };
    net.back()?.send(&Ipv4::new(FAR, NODE, reset))?;
    eventually(PATIENCE, || {
        let flow = net.flow("tcp", remote)?;
        ensure!(flow["state"] == "tcp-reset" && flow["expires_seconds"].as_u64() <= Some(240), "{flow}");
        Ok(())
    })?;
    pair.exchange()?;
    let flow = net.flow("tcp", remote)?;
    ensure!(flow["state"] == "tcp-established" && flow["expires_seconds"].as_u64() > Some(3600), "{flow}");
    net.finish().map(drop)
}

#[test]
fn both_ends_open_at_once() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    // The container's stack knows nothing of this connection.
    net.c1.run("iptables -A OUTPUT -p tcp --tcp-flags RST RST -j DROP".split(' ')).ok()?;
    let at_c1 = Capture::start(&net.c1, "eth0", "tcp and dst host 172.19.35.2")?;
    let (out, back) = (Sender::of(&net.c1)?, net.back()?);
    let silent = [203, 0, 113, 77];
    let sent = |flags| Ipv4::new(net.c1.address, silent, Tcp::new(5000, 5001, flags));
    out.send(&sent(flags::SYN))?;
    let seen = net.arrives(|packet| packet.destination.octets() == silent)?;
    let port = super::source_port(&seen).context("no port")?;
    let state = || net.flow("tcp", (silent, 5001)).map(|flow| flow["state"].clone());
    for (answer, number) in [(flags::SYN, 1), (flags::ACK, 2)] {
        back.send(&Ipv4 { id: number, ..Ipv4::new(silent, NODE, Tcp::new(5001, port, answer)) })?;
        let got = at_c1.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.id == number))?;
        let expected = Ipv4::new(silent, net.c1.address, Tcp::new(5001, 5000, answer));
        assert_eq!(got.ipv4(), Some(&Ipv4 { id: number, ttl: 63, ..expected }));
        ensure!(state()? == "tcp-answered");
        out.send(&Ipv4 { id: number, ..sent(flags::ACK | if number == 1 { flags::SYN } else { 0 }) })?;
        net.arrives(|packet| packet.destination.octets() == silent && packet.id == number)?;
    }
    ensure!(state()? == "tcp-established");
    net.finish().map(drop)
}

/// The node connects from the address that its containers are translated to: neither gets the other's packets.
#[test]
fn the_host_s_own_connections() -> Result<()> {
    require_root!();
    let net = Egress::with(config().table(&format!("[timeouts]\nudp-unreplied-seconds = 600\n{RULE}")))?;
    let sender = Sender::of(&net.c1)?;
    for number in 0..16_000 {
        let udp = Udp::new(1 + number / 4, 5001 + number % 4, "flow");
        sender.send(&Ipv4::new(net.c1.address, FAR, udp))?;
    }
    let live = net.daemon.cli(&["nat", "stats", "--json"])?;
    ensure!(live["flows"].as_u64() >= Some(16_000), "{live}");
    for _ in 0..50 {
        let own = TcpPair::connect(&net.node, &net.outside, FAR)?;
        let theirs = TcpPair::connect(&net.c1, &net.outside, FAR)?;
        ensure!(own.upload(1000)?.client_seen_as == own.client.local_addr()?);
        ensure!(theirs.upload(1000)?.client_seen_as.port() >= 16_384);
        own.download(1000)?;
        theirs.download(1000)?;
        let udp = UdpPair::new(&net.node, &net.outside, FAR)?;
        ensure!(udp.exchange(b"own")?.port() == udp.client.local_addr()?.port());
    }
    traffic::ping(&net.node, FAR, 5)?.all_answered()?;
    // And it is reached from outside.
    TcpPair::connect(&net.outside, &net.node, NODE)?.exchange()?;
    net.finish().map(drop)
}

/// The host's stack answers what no translation wants; no container hears of it.
#[test]
fn a_reply_after_the_translation_is_gone() -> Result<()> {
    require_root!();
    let timeouts = "[timeouts]\ntcp-established-seconds = 1\nudp-replied-seconds = 1";
    let net = Egress::with(config().table(&format!("{timeouts}\n{RULE}")))?;
    let tcp = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    let udp = UdpPair::new(&net.c1, &net.outside, FAR)?;
    tcp.exchange()?;
    let udp_seen_as = udp.exchange(b"hello")?;
    eventually(Duration::from_secs(30), || {
        let list = net.daemon.cli(&["nat", "list", "--json"])?;
        ensure!(list.as_array().is_some_and(Vec::is_empty), "{list}");
        Ok(())
    })?;
    let at_c1 = Capture::start(&net.c1, "eth0", "dst host 172.19.35.2")?;
    let mut server: &TcpStream = &tcp.server;
    server.write_all(b"are you there?")?;
    net.arrives(|packet| {
        packet.source == NODE
            && matches!(&packet.payload, L4::Tcp(segment) if segment.flags & flags::RST != 0)
    })?;
    udp.server.send_to(b"are you there?", udp_seen_as)?;
    net.arrives(|packet| {
        packet.source == NODE
            && matches!(&packet.payload, L4::Icmp(message) if (message.kind, message.code) == (3, 3))
    })?;
    let got = at_c1.stop()?;
    ensure!(got.iter().all(|frame| frame.ipv4().is_none()), "{got:?}");
    net.finish().map(drop)
}
