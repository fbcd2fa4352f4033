//! `dataplane run --from-kernel`: no file, nothing written, and what leaves the containers' network translated
//! by the kernel's own rules as before.

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{Container, Daemon, Fabric, Node, Outside, traffic};

use super::{
    network::{await_endpoint, await_route, forwarded, own_routes, route},
    require_root,
};

/// Calico's rule for a pool with `natOutgoing`, and its per-endpoint check that connection tracking knows a packet.
const RULES: &str = "
*nat
-A POSTROUTING -s 172.19.0.0/16 ! -d 172.19.0.0/16 -j MASQUERADE
COMMIT
*filter
-A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
";

struct Site {
    daemon1: Daemon,
    daemon2: Daemon,
    c1: Container,
    c2: Container,
    c3: Container,
    node1: Node,
    node2: Node,
    outside: Outside,
    _fabric: Fabric,
}

impl Site {
    fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        let c1 = node1.routed_container("cali1", "172.19.35.2")?;
        let c2 = node1.routed_container("cali2", "172.19.35.3")?;
        let c3 = node2.routed_container("cali3", "172.19.36.2")?;
        let outside = node1.outside("eth1", "192.168.200.172/24", "192.168.200.1")?;
        node1.ip_batch(
            "route add blackhole 172.19.35.0/24 proto bird\n\
             route add 172.19.36.0/26 via 10.141.0.2 proto bird\n\
             route add default via 10.141.255.254 metric 50\n",
        )?;
        // flannel's host-gw routes bear no protocol of their own.
        node2.ip_batch(
            "route add blackhole 172.19.36.0/26 proto bird\n\
             route add 172.19.35.0/24 via 10.141.0.1\n\
             route add default via 10.141.0.1\n",
        )?;
        node1.run_with_input(["iptables-restore"], RULES).ok()?;
        let daemon1 = Daemon::start_from_kernel(&node1, &["--bypass-netfilter"])?;
        let daemon2 = Daemon::start_from_kernel(&node2, &["--bypass-netfilter"])?;
        Ok(Self { daemon1, daemon2, c1, c2, c3, node1, node2, outside, _fabric: fabric })
    }

    fn kernels_forwarded(&self) -> Result<[u64; 2]> {
        Ok([traffic::ip_forw_datagrams(&self.node1)?, traffic::ip_forw_datagrams(&self.node2)?])
    }
}

#[test]
fn containers_reach_each_other_by_bpf_and_nothing_is_written() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let Site { daemon1, daemon2, c1, c2, c3, node1, node2, .. } = &site;
    for (daemon, container) in [(daemon1, c1), (daemon1, c2), (daemon2, c3)] {
        await_endpoint(daemon, container.address)?;
    }
    let before = (site.kernels_forwarded()?, forwarded(daemon1)?, forwarded(daemon2)?);
    for (from, to) in [(c1, c3), (c3, c1), (c1, c2), (c2, c3)] {
        traffic::ping(from, to.address, 3)?.all_answered()?;
    }
    traffic::tcp_transfer(c1, c3, c3.address, 5_000_000)?;
    traffic::tcp_transfer(c3, c2, c2.address, 5_000_000)?;
    assert_eq!(site.kernels_forwarded()?, before.0);
    ensure!(forwarded(daemon1)? > before.1 + 24 && forwarded(daemon2)? > before.2 + 18);
    for node in [node1, node2] {
        assert_eq!(own_routes(node)?, Vec::<String>::new());
    }

    // The commands that need no file.
    let status = daemon1.cli(&["status", "--json"])?;
    assert_eq!(
        (&status["config_file"], &status["health"]),
        (&serde_json::Value::Null, &"ok".into()),
        "{status}"
    );
    let import = &status["import"];
    assert_eq!((&import["table"], &import["carried"]), (&254.into(), &2.into()), "{status}");
    assert_eq!(import["left"], serde_json::json!([]), "{status}");
    let list = daemon1.cli(&["route", "list", "--json"])?;
    let kind = |prefix: &str| {
        let routes = list.as_array().context("the list is none")?;
        let found = routes.iter().find(|route| route["prefix"] == prefix).context(prefix.to_owned())?;
        Ok::<_, anyhow::Error>(found["kind"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!((kind("172.19.36.0/26")?, kind("172.19.35.0/24")?), ("next-hop".into(), "block".into()));
    assert_eq!((kind("0.0.0.0/0")?, kind("10.141.0.0/16")?), ("kernel".into(), "kernel".into()));
    let trace = daemon1.cli(&["trace", "--in", "cali1", "tcp", "172.19.35.2", "172.19.36.2", "--json"])?;
    assert_eq!(trace["reason"], "forwarded", "{trace}");
    let trace = daemon1.cli(&["trace", "--in", "cali1", "tcp", "172.19.35.2", "203.0.113.5", "--json"])?;
    assert_eq!((&trace["verdict"], &trace["reason"]), (&"pass".into(), &"kernel-route".into()), "{trace}");
    let output = daemon1.cli_output(&["reload"]);
    ensure!(output.stderr.contains("without a file"), "{output:?}");
    Ok(())
}

#[test]
fn masquerade_of_the_kernel_applies_as_before() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let Site { daemon1, c1, c3, node1, node2, outside, .. } = &site;
    let far = outside.add_address("203.0.113.5")?;
    assert_eq!(await_route(daemon1, far, "kernel")?["reason"], "kernel-route");
    // The outside knows no way to the containers: only a translated packet is answered.
    for address in [far, outside.address] {
        traffic::ping(c1, address, 3)?.all_answered()?;
        traffic::tcp_transfer(c1, outside, address, 2_000_000)?;
    }
    // Other nodes, which are in no pool, see the node's address as they did.
    traffic::ping(c1, node2.address, 3)?.all_answered()?;
    traffic::tcp_transfer(c1, node2, node2.address, 2_000_000)?;
    traffic::tcp_transfer(c1, node1, node1.address, 2_000_000)?;
    traffic::ping(c3, c1.address, 3)?.all_answered()
}

#[test]
fn connections_from_outside_pass_the_kernel_in_both_directions() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let Site { daemon1, c1, node1, node2, outside, .. } = &site;
    outside.ip("route add 172.19.35.0/24 via 192.168.200.172")?;
    // Did BPF deliver the request and the kernel get the answer, connection tracking would call that invalid.
    for client in [&**outside, &**node2] {
        let before = traffic::ip_forw_datagrams(node1)?;
        traffic::ping(client, c1.address, 3)?.all_answered()?;
        traffic::tcp_transfer(client, c1, c1.address, 2_000_000)?;
        ensure!(traffic::ip_forw_datagrams(node1)? >= before + 12, "BPF took a part of it");
    }
    ensure!(daemon1.drops(Hook::FromUplink, Reason::KernelRoute)? > 0);
    traffic::tcp_transfer(node1, c1, c1.address, 2_000_000)?;
    assert_eq!(route(daemon1, c1.address)?["kind"], "endpoint");
    Ok(())
}

#[test]
fn a_file_and_from_kernel_exclude_each_other() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let output = site.daemon1.cli_output(&["run", "--from-kernel", "--config", "/etc/dataplane/node.toml"]);
    assert_eq!(output.code(), Some(2), "{output:?}");
    ensure!(output.stderr.contains("cannot be used with"), "{output:?}");
    Ok(())
}
