//! What the rules say: whose packets are translated, where, to what, and what becomes of all others.

use std::{
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture, eventually,
    packet::{Ipv4, L4, Tcp, Udp, flags},
    traffic::{self, TcpPair, UdpPair},
};

use super::{Egress, FAR, NODE, PATIENCE, RULE, Sender, config, require_root, source_port};

/// A host outside that is not to be translated to.
const EXCLUDED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

#[test]
fn an_excluded_destination_is_reached_untranslated() -> Result<()> {
    require_root!();
    let rule = format!("{RULE}\nexclude = [\"172.19.0.0/16\", \"192.0.2.0/24\"]");
    let net = Egress::with(config().table(&rule))?;
    net.outside.add_address(EXCLUDED)?;
    net.outside.ip("route add 172.19.35.0/24 via 198.51.100.10")?;
    net.by_bpf(|| {
        ensure!(UdpPair::new(&net.c1, &net.outside, EXCLUDED)?.exchange(b"as I am")?.ip() == net.c1.address);
        ensure!(UdpPair::new(&net.c1, &net.outside, FAR)?.exchange(b"as the node")?.ip() == NODE);
        let seen_as = traffic::tcp_download(&net.c1, &net.outside, EXCLUDED, 100_000)?.client_seen_as;
        ensure!(seen_as.ip() == net.c1.address, "{seen_as}");
        Ok(())
    })
}

#[test]
fn another_source_is_not_translated() -> Result<()> {
    require_root!();
    let net = Egress::with(config().table("[[masquerade]]\nsource = \"172.19.35.2/32\""))?;
    net.outside.ip("route add 172.19.35.0/24 via 198.51.100.10")?;
    net.by_bpf(|| {
        ensure!(UdpPair::new(&net.c1, &net.outside, FAR)?.exchange(b"as the node")?.ip() == NODE);
        ensure!(UdpPair::new(&net.c2, &net.outside, FAR)?.exchange(b"as I am")?.ip() == net.c2.address);
        traffic::ping(&net.c2, FAR, 3)?.all_answered()
    })
}

#[test]
fn address_and_ports_are_the_rule_s() -> Result<()> {
    require_root!();
    let rule = format!("{RULE}\naddress = \"198.51.100.77\"\nports = \"62000-62009\"");
    let prepare = |node: &tests::harness::Node| node.ip("address add 198.51.100.77/32 dev eth1").map(drop);
    let net = Egress::build(config().table(&rule), prepare)?;
    let other: Ipv4Addr = "198.51.100.77".parse()?;
    for _ in 0..8 {
        let seen_as = UdpPair::new(&net.c1, &net.outside, FAR)?.exchange(b"question")?;
        ensure!(seen_as.ip() == other && (62_000..=62_009).contains(&seen_as.port()), "{seen_as}");
    }
    traffic::ping(&net.c1, FAR, 2)?.all_answered()?;
    let packets = net.finish()?;
    let sent: Vec<&Ipv4> = packets.iter().filter(|packet| packet.destination == FAR).collect();
    ensure!(sent.len() == 10 && sent.iter().all(|packet| packet.source == other), "{sent:?}");
    ensure!(
        sent.iter().all(|packet| (Some(62_000)..=Some(62_009)).contains(&source_port(packet))),
        "{sent:?}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_translated_is_dropped() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let sender = Sender::of(&net.c1)?;
    let send = |packet: Ipv4| sender.send(&packet);
    let packet = |payload: L4| Ipv4::new(net.c1.address, FAR, payload);
    net.by_bpf(|| {
        // GRE, ESP, SCTP, and ICMP that is neither echo nor error: a timestamp (13).
        for (count, payload) in [
            L4::Raw(47, vec![0; 16]),
            L4::Raw(50, vec![0; 16]),
            L4::Raw(132, vec![0; 16]),
            tests::harness::packet::Icmp::error(13, 0, [0; 4], &[0; 12]).into(),
        ]
        .into_iter()
        .enumerate()
        {
            send(packet(payload))?;
            net.await_count(Hook::FromContainer, Reason::NatUnsupported, count as u64 + 1)?;
        }
        let with_options = Ipv4 { options: vec![1, 1, 1, 0], ..packet(Udp::new(1, 2, "options").into()) };
        send(with_options)?;
        net.await_count(Hook::FromContainer, Reason::NatUnsupported, 5)?;
        // The end of a connection that nobody knows.
        for flags in [flags::RST, flags::FIN | flags::ACK] {
            send(packet(Tcp::new(5000, 5001, flags).into()))?;
        }
        net.await_count(Hook::FromContainer, Reason::NatNoFlow, 2)?;
        for identifier in [0, 1] {
            send(packet(tests::harness::packet::Icmp::echo_reply(identifier, 1, "nobody asked").into()))?;
        }
        net.await_count(Hook::FromContainer, Reason::NatNoFlow, 4)?;
        // A transport header that is cut short.
        for payload in [L4::Raw(6, vec![0; 19]), L4::Raw(17, vec![0; 7]), L4::Raw(1, vec![8; 7])] {
            send(packet(payload))?;
        }
        net.await_count(Hook::FromContainer, Reason::Malformed, 3)
    })?;
    // None of it harmed what goes on.
    traffic::ping(&net.c1, FAR, 3)?.all_answered()?;
    net.finish().map(drop)
}

#[test]
fn the_address_changes() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let old = UdpPair::new(&net.c1, &net.outside, FAR)?;
    ensure!(old.exchange(b"before")?.ip() == NODE);
    let tcp = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    tcp.exchange()?;

    net.node.ip_batch(
        "address delete 198.51.100.10/24 dev eth1\nroute replace default via 198.51.100.1 dev eth1 onlink\n",
    )?;
    let rule = |wanted: Option<&str>| -> Result<()> {
        eventually(PATIENCE, || {
            let stats = net.daemon.cli(&["nat", "stats", "--json"])?;
            let rules = stats["rules"].as_array().context("stats without rules")?;
            let rule = rules.iter().find(|rule| rule["interface"] == "eth1").context("no rule for eth1")?;
            ensure!(rule["address"].as_str() == wanted, "{rule}");
            Ok(())
        })
    };
    rule(None)?;
    let before = net.daemon.drops(Hook::FromContainer, Reason::NatNoAddress)?;
    traffic::ping(&net.c1, FAR, 2)?.all_refused()?;
    net.await_count(Hook::FromContainer, Reason::NatNoAddress, before + 2)?;

    net.node.ip_batch("address add 198.51.100.20/24 dev eth1\nroute replace default via 198.51.100.1\n")?;
    rule(Some("198.51.100.20"))?;
    traffic::ping(&net.c1, FAR, 2)?.all_answered()?;
    let new: Ipv4Addr = "198.51.100.20".parse()?;
    ensure!(UdpPair::new(&net.c1, &net.outside, FAR)?.exchange(b"after")?.ip() == new);
    // A flow of before has ended; its next packet begins another, with the address that holds.
    ensure!(old.exchange(b"after")?.ip() == new);
    let flow = net.flow("udp", old.server.local_addr()?)?;
    ensure!(flow["translated"].as_str().is_some_and(|at| at.starts_with("198.51.100.20:")), "{flow}");
    // The other end of a connection knows the old address alone, and the container learns at once.
    (&tcp.client).write_all(b"still there?")?;
    let told = (&tcp.client).read(&mut [0; 10]).expect_err("no connection survives a change of its address");
    assert_eq!(told.kind(), io::ErrorKind::ConnectionReset);
    net.finish().map(drop)
}

#[test]
fn a_reload_adds_changes_and_removes_a_rule() -> Result<()> {
    require_root!();
    // One rule stays all the time: with none at all there is no table.
    const OTHER: &str = "[[masquerade]]\nsource = \"172.19.99.0/24\"";
    let net = Egress::with(config().table(OTHER))?;
    net.outside.ip("route add 172.19.35.0/24 via 198.51.100.10")?;
    let reload = |rule: &str| -> Result<()> {
        net.daemon.write_config(&config().table(OTHER).table(rule))?;
        net.daemon.reload()
    };
    let seen_as = |text: &str| UdpPair::new(&net.c1, &net.outside, FAR)?.exchange(text.as_bytes());
    ensure!(seen_as("no rule")?.ip() == net.c1.address);
    reload(RULE)?;
    ensure!(seen_as("a rule")?.ip() == NODE);
    let kept = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    let port = kept.upload(100)?.client_seen_as.port();

    let few = "ports = \"62000-62009\"";
    reload(&format!("{RULE}\n{few}"))?;
    ensure!((62_000..=62_009).contains(&seen_as("other ports")?.port()));
    // What was there keeps its port: the rule still translates to its address.
    ensure!(kept.upload(100)?.client_seen_as.port() == port);

    // A file with a fault changes nothing, nor does one that takes the table away.
    ensure!(reload(&format!("{RULE}\nports = \"62009-62000\"")).is_err());
    net.daemon.write_config(&config())?;
    ensure!(net.daemon.reload().is_err());
    ensure!((62_000..=62_009).contains(&seen_as("a fault")?.port()));
    kept.exchange()?;

    reload("")?;
    ensure!(seen_as("no rule")?.ip() == net.c1.address);
    ensure!(net.daemon.cli(&["nat", "list", "--json"])?.as_array().is_some_and(Vec::is_empty));
    let stats = net.daemon.cli(&["nat", "stats", "--json"])?;
    ensure!(stats["revoked"].as_u64() >= Some(1), "{stats}");
    Ok(())
}

/// Routes to the outside are carried whoever wrote them: the kernel would not translate on the way.
#[test]
fn a_static_route_by_an_uplink_is_followed() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    net.node.ip_batch(
        "route delete default\nroute add 203.0.113.0/24 via 198.51.100.1\n\
         route add unreachable 192.0.2.0/24\n",
    )?;
    let kind = |to: Ipv4Addr, kind: &str| {
        eventually(PATIENCE, || {
            let route = net.daemon.route_get(to)?;
            ensure!(route["route"]["kind"] == kind, "{route}");
            Ok(())
        })
    };
    kind(FAR, "next-hop")?;
    net.by_bpf(|| {
        ensure!(UdpPair::new(&net.c1, &net.outside, FAR)?.exchange(b"as the node")?.ip() == NODE);
        traffic::ping(&net.c1, FAR, 2)?.all_answered()
    })?;
    kind(EXCLUDED, "kernel")?;
    traffic::ping(&net.c1, EXCLUDED, 1)?.all_refused()?;
    net.await_count(Hook::FromContainer, Reason::NatKernelRoute, 1)?;
    net.finish().map(drop)
}

/// What leaves by an interface that is no uplink has no rule, once it is excluded: it is the kernel's.
#[test]
fn an_excluded_network_behind_another_interface_is_the_kernel_s() -> Result<()> {
    require_root!();
    let rule = format!("{RULE}\nexclude = [\"172.19.0.0/16\", \"192.0.2.0/24\"]");
    let net = Egress::with(config().table(&rule))?;
    let behind = tests::harness::Namespace::new("behind")?;
    net.node.ip_batch(&format!(
        "link add vpn0 type veth peer name eth0 netns {}\naddress add 192.0.2.1/24 dev vpn0\n\
         link set vpn0 up\n",
        behind.name()
    ))?;
    behind
        .ip_batch("address add 192.0.2.7/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.1\n")?;
    net.node.await_links()?;
    behind.await_links()?;
    eventually(PATIENCE, || {
        let route = net.daemon.route_get(EXCLUDED)?;
        ensure!(route["route"]["kind"] == "kernel", "{route}");
        Ok(())
    })?;
    ensure!(UdpPair::new(&net.c1, &behind, EXCLUDED)?.exchange(b"as I am")?.ip() == net.c1.address);
    Ok(())
}

/// Where the kernel's route is one that BPF does not carry, the kernel would send the packet on untranslated.
#[test]
fn nothing_is_left_to_the_kernel_that_must_be_translated() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let at_node = Capture::start(&net.node, "eth1", "src net 172.19.0.0/16")?;
    net.node.ip("route add 203.0.113.0/24 nexthop via 198.51.100.1 nexthop via 198.51.100.2")?;
    eventually(PATIENCE, || {
        let route = net.daemon.route_get(FAR)?;
        ensure!(route["route"]["kind"] == "kernel", "{route}");
        Ok(())
    })?;
    net.by_bpf(|| {
        traffic::ping(&net.c1, FAR, 2)?.all_refused()?;
        net.await_count(Hook::FromContainer, Reason::NatKernelRoute, 2)
    })?;
    assert_eq!(at_node.stop()?.len(), 0);
    Ok(())
}

/// Nor where the data path knows no route, and the kernel finds one by a rule of its own (ip-rule(8)).
#[test]
fn nothing_leaves_by_a_policy_route() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    net.node.ip_batch(
        "route delete default\nroute add default via 198.51.100.1 table 100\nrule add pref 100 lookup 100\n",
    )?;
    eventually(PATIENCE, || {
        let route = net.daemon.route_get(FAR)?;
        ensure!(route["route"].is_null(), "{route}");
        Ok(())
    })?;
    // The kernel would forward it.
    net.node.ip(&format!("route get {FAR}"))?;
    net.by_bpf(|| {
        traffic::ping(&net.c1, FAR, 2)?.all_refused()?;
        net.await_count(Hook::FromContainer, Reason::NatKernelRoute, 2)
    })?;
    // The host's own is not concerned.
    traffic::ping(&net.node, FAR, 1)?.all_answered()?;
    net.finish().map(drop)
}
