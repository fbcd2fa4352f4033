//! `[kernel] import`: what another daemon writes into the kernel, carried in BPF.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::harness::{Config, Container, Daemon, Fabric, Node, Stream, eventually, traffic};

use super::{
    network::{PATIENCE, await_endpoint, await_route, base, forwarded, own_routes, route, used},
    reconcile::{await_complaint, await_health},
    require_root,
};

/// Two nodes with a container each, whose routes somebody else writes.
struct Routed {
    daemon: Daemon,
    c1: Container,
    c3: Container,
    node1: Node,
    node2: Node,
    _fabric: Fabric,
}

impl Routed {
    fn new(config: &Config) -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        let c1 = node1.routed_container("cali1", "172.19.35.2")?;
        let c3 = node2.routed_container("cali3", "172.19.36.2")?;
        node1.ip_batch(
            "route add blackhole 172.19.35.0/24 proto bird metric 32\n\
             route add 172.19.36.0/26 via 10.141.0.2 proto bird metric 32\n",
        )?;
        node2.default_via(node1.address)?;
        let daemon = Daemon::start(&node1, config)?;
        Ok(Self { daemon, c1, c3, node1, node2, _fabric: fabric })
    }

    /// Sees that both containers reach each other, on the first node by BPF alone.
    fn ping_by_bpf(&self) -> Result<()> {
        let kernel = traffic::ip_forw_datagrams(&self.node1)?;
        let bpf = forwarded(&self.daemon)?;
        traffic::ping(&self.c1, self.c3.address, 3)?.all_answered()?;
        traffic::ping(&self.c3, self.c1.address, 3)?.all_answered()?;
        assert_eq!(traffic::ip_forw_datagrams(&self.node1)?, kernel);
        ensure!(forwarded(&self.daemon)? >= bpf + 12, "BPF forwarded too little");
        Ok(())
    }

    fn import(&self) -> Result<Value> {
        Ok(self.daemon.cli(&["status", "--json"])?["import"].take())
    }
}

fn importing(keys: &str) -> Config {
    base().table(&format!("[kernel]\nimport = true\n{keys}"))
}

#[test]
fn routes_and_blackholes_are_followed() -> Result<()> {
    require_root!();
    let network = Routed::new(&importing("protocols = [\"bird\"]"))?;
    let Routed { daemon, c1, c3, node1, .. } = &network;
    network.ping_by_bpf()?;
    let found = route(daemon, c3.address)?;
    assert_eq!((&found["via"], &found["source"]), (&"10.141.0.2".into(), &"kernel".into()), "{found}");
    assert_eq!(own_routes(node1)?, Vec::<String>::new(), "nothing is written back");
    assert_eq!(network.import()?["carried"], 2);

    // An address of the block that nobody has is dropped, and reaches no default route.
    let before = used(daemon, "routes")?;
    traffic::ping_with(c1, "172.19.35.99", 2, &["-W", "0.2"])?.none_answered()?;
    assert_eq!(route(daemon, "172.19.35.99")?["kind"], "block");

    for (change, address, kind) in [
        ("route add 172.19.37.0/24 via 10.141.0.2 proto bird", "172.19.37.1", "next-hop"),
        ("route replace 172.19.37.0/24 via 10.141.0.9 proto bird", "172.19.37.1", "next-hop"),
        ("route replace blackhole 172.19.37.0/24 proto bird", "172.19.37.1", "block"),
        ("route replace unreachable 172.19.37.0/24 proto bird", "172.19.37.1", "kernel"),
        ("route replace 172.19.37.0/24 via 10.141.0.2 proto static", "172.19.37.1", "kernel"),
        ("route replace 172.19.37.0/24 via 10.141.0.9 proto bird", "172.19.37.1", "next-hop"),
    ] {
        node1.ip(change)?;
        let found = await_route(daemon, address, kind).context(change)?;
        if kind == "next-hop" {
            let via = change.split_whitespace().nth(4).unwrap_or_default();
            eventually(PATIENCE, || {
                let found = route(daemon, address)?;
                ensure!(found["via"] == via, "{found} after {change}");
                Ok(())
            })?;
        }
        assert_eq!(found["source"], "kernel");
    }
    node1.ip("route delete 172.19.37.0/24 proto bird")?;
    eventually(PATIENCE, || {
        ensure!(route(daemon, "172.19.37.1")?.is_null(), "the route is still there");
        ensure!(used(daemon, "routes")? == before, "routes are left over");
        Ok(())
    })?;
    network.ping_by_bpf()
}

#[test]
fn what_cannot_be_carried_is_counted_and_left_to_the_kernel() -> Result<()> {
    require_root!();
    let network = Routed::new(&importing(""))?;
    let Routed { daemon, c1, c3, node1, node2, .. } = &network;
    node2.ip("address add 10.141.0.22/16 dev eth0")?;
    node1.ip(
        "route replace 172.19.36.0/26 proto bird metric 32 nexthop via 10.141.0.2 nexthop via 10.141.0.22",
    )?;
    let left = await_route(daemon, c3.address, "kernel")?;
    assert_eq!(left["reason"], "kernel-route");
    let import = network.import()?;
    assert_eq!(import["left"][0]["cause"], "multipath", "{import}");
    assert_eq!(
        (&import["left"][0]["routes"], &import["left"][0]["first"]),
        (&1.into(), &"172.19.36.0/26".into())
    );
    let text = daemon.cli_output(&["status"]).ok()?;
    ensure!(text.contains("1 left to the kernel (multipath: 172.19.36.0/26"), "{text}");
    let before = traffic::ip_forw_datagrams(node1)?;
    traffic::ping(c1, c3.address, 3)?.all_answered()?;
    assert_eq!(traffic::ip_forw_datagrams(node1)?, before + 3, "the kernel carries it");

    node1.ip("route replace 172.19.36.0/26 via 10.141.0.2 proto bird metric 32")?;
    await_route(daemon, c3.address, "next-hop")?;
    network.ping_by_bpf()
}

#[test]
fn another_table_is_followed() -> Result<()> {
    require_root!();
    let network = Routed::new(&importing("table = 100"))?;
    let Routed { daemon, c3, node1, .. } = &network;
    assert_eq!(await_route(daemon, c3.address, "kernel")?["reason"], "kernel-route");
    node1.ip("route add 172.19.36.0/26 via 10.141.0.2 proto bird table 100")?;
    await_route(daemon, c3.address, "next-hop")?;
    network.ping_by_bpf()?;
    node1.ip("route flush table 100")?;
    await_route(daemon, c3.address, "kernel").map(drop)
}

#[test]
fn the_file_goes_before_the_kernel_and_the_kernel_comes_back() -> Result<()> {
    require_root!();
    let network = Routed::new(&importing(""))?;
    let Routed { daemon, c3, .. } = &network;
    let file = importing("").route("172.19.36.0/26", "10.141.0.9");
    daemon.write_config(&file)?;
    daemon.reload()?;
    let answer = daemon.route_get(c3.address)?;
    let (route, others) = (&answer["route"], &answer["other_offers"]);
    assert_eq!((&route["via"], &route["source"]), (&"10.141.0.9".into(), &"config".into()), "{answer}");
    assert_eq!(
        (&others[0]["via"], &others[0]["source"]),
        (&"10.141.0.2".into(), &"kernel".into()),
        "{answer}"
    );
    let text = daemon.cli_output(&["route", "get", &c3.address.to_string()]).ok()?;
    ensure!(text.contains("also offered:"), "{text}");
    daemon.write_config(&importing(""))?;
    daemon.reload()?;
    assert_eq!(route_source(daemon, &network.c3)?, ("kernel".into(), "10.141.0.2".into()));
    network.ping_by_bpf()?;
    daemon.write_config(&base())?;
    daemon.reload()?;
    assert_eq!(await_route(daemon, network.c3.address, "kernel")?["reason"], "kernel-route");
    Ok(())
}

fn route_source(daemon: &Daemon, container: &Container) -> Result<(Value, Value)> {
    let mut route = route(daemon, container.address)?;
    Ok((route["source"].take(), route["via"].take()))
}

#[test]
fn more_changes_than_the_kernel_keeps_are_read_anew() -> Result<()> {
    require_root!();
    const ROUTES: u32 = 150_000;
    let anything = Config::new().node("uplinks", r#"["eth0"]"#).table("[kernel]\nimport = true");
    let network = Routed::new(&anything)?;
    let Routed { daemon, node1, .. } = &network;
    let before = used(daemon, "routes")?;
    let process = daemon.process().context("no daemon")?;
    // The daemon reads nothing meanwhile, and its 64 MiB of unread events overflow.
    process.signal(libc::SIGSTOP)?;
    let lines = |verb: &str, via: &str, step: usize| -> String {
        let prefix =
            |number: u32| format!("{}.{}.{}.0/24", 60 + (number >> 16), number >> 8 & 255, number & 255);
        let numbers = (0..ROUTES).step_by(step);
        numbers.map(|number| format!("route {verb} {} {via} proto bird\n", prefix(number))).collect()
    };
    node1.ip_batch(&lines("add", "via 10.141.0.2", 1))?;
    node1.ip_batch(&lines("delete", "", 3))?;
    process.signal(libc::SIGCONT)?;
    eventually(PATIENCE, || {
        let now = used(daemon, "routes")?;
        ensure!(now == before + u64::from(ROUTES) / 3 * 2, "{now} routes, {before} before");
        Ok(())
    })?;
    let log = process.output(Stream::Stdout) + &process.output(Stream::Stderr);
    ensure!(log.contains("reading everything again"), "no overrun: {log}");
    ensure!(route(daemon, "60.0.3.1")?.is_null() && route(daemon, "60.0.4.1")?["kind"] == "next-hop");
    network.ping_by_bpf()
}

#[test]
fn a_burst_and_a_restart_lose_nothing() -> Result<()> {
    require_root!();
    // Without a pool, other networks are taken over, too.
    let anything = Config::new().node("uplinks", r#"["eth0"]"#).table("[kernel]\nimport = true");
    let mut network = Routed::new(&anything)?;
    let Routed { daemon, node1, .. } = &network;
    let before = used(daemon, "routes")?;
    let lines = |verb: &str, via: &str| -> String {
        let prefix =
            |number: u32| format!("{}.{}.{}.0/24", 60 + (number >> 16), number >> 8 & 255, number & 255);
        (0..10_000).map(|number| format!("route {verb} {} {via} proto bird\n", prefix(number))).collect()
    };
    let has = |count: u64| {
        eventually(PATIENCE, || {
            let now = used(daemon, "routes")?;
            ensure!(now == before + count, "{now} routes, not {before} and {count}");
            Ok(())
        })
    };
    node1.ip_batch(&lines("add", "via 10.141.0.2"))?;
    has(10_000)?;
    node1.ip_batch(&lines("replace", "via 10.141.0.9"))?;
    eventually(PATIENCE, || {
        let last = route(daemon, "60.0.39.15")?;
        ensure!(last["via"] == "10.141.0.9" && last["prefix"] == "60.0.39.0/24", "{last}");
        Ok(())
    })?;
    has(10_000)?;
    // What changes while no daemon runs is seen by the next one.
    let daemon = &mut network.daemon;
    daemon.stop()?;
    network.node1.ip_batch(&lines("delete", ""))?;
    daemon.launch()?;
    assert_eq!(used(daemon, "routes")?, before);
    network.ping_by_bpf()
}

#[test]
fn a_nexthop_object_takes_its_routes_along() -> Result<()> {
    require_root!();
    let network = Routed::new(&importing(""))?;
    let Routed { daemon, c3, node1, node2, .. } = &network;
    let await_via = |router: &str| {
        eventually(PATIENCE, || {
            let found = route(daemon, c3.address)?;
            ensure!(found["via"] == router && found["prefix"] == "172.19.36.0/26", "{found}");
            Ok(())
        })
    };
    node2.ip("address add 10.141.0.22/16 dev eth0")?;
    for compatible in ["1", "0"] {
        node1.sysctl("net.ipv4.nexthop_compat_mode", compatible)?;
        node1.ip_batch(
            "nexthop add id 5 via 10.141.0.22 dev eth0 proto zebra\n\
             route replace 172.19.36.0/26 nhid 5 proto bird metric 32\n",
        )?;
        await_via("10.141.0.22")?;
        network.ping_by_bpf()?;
        node1.ip("nexthop replace id 5 via 10.141.0.2 dev eth0 proto zebra")?;
        await_via("10.141.0.2")?;
        network.ping_by_bpf()?;
        assert_eq!(network.import()?["left"], serde_json::json!([]));
        node1.ip("nexthop replace id 5 blackhole proto zebra")?;
        await_route(daemon, c3.address, "block")?;
        node1.ip("nexthop delete id 5")?;
        eventually(PATIENCE, || {
            let found = route(daemon, c3.address)?;
            ensure!(found.is_null(), "{found}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Somebody fills the table with routes: a container that comes finds room, and `status` says whose routes do not.
#[test]
fn learned_routes_leave_room_for_the_node_s_own() -> Result<()> {
    require_root!();
    let network = Routed::new(&importing("").datapath("max-routes", 96))?;
    await_route(&network.daemon, network.c3.address, "next-hop")?;
    let routes = |verb: &str| -> String {
        let route =
            |number| format!("route {verb} 10.99.{number}.0/24 via 10.141.0.2 proto bird metric 32\n");
        (0..200).map(route).collect()
    };
    network.node1.ip_batch(&routes("add"))?;
    await_complaint(&network.daemon, &["taken over from the kernel's table", "raise `datapath.max-routes`"])?;
    let c9 = network.node1.routed_container("cali9", "172.19.35.9")?;
    await_endpoint(&network.daemon, c9.address)?;
    await_route(&network.daemon, c9.address, "endpoint")?;
    network.ping_by_bpf()?;
    network.node1.ip_batch(&routes("delete"))?;
    await_health(&network.daemon)?;
    network.ping_by_bpf()
}
