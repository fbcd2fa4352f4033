//! What most tests stand on: two nodes on a fabric, with two containers each.
//!
//! ```text
//!  c1 172.19.35.2 ─ cali1┐                                  ┌cali3 ─ 172.19.36.2 c3
//!                        node1 10.141.0.1 ══fabric══ 10.141.0.2 node2
//!  c2 172.19.35.3 ─ cali2┘                                  └cali4 ─ 172.19.36.3 c4
//! ```
//!
//! `c1` and `c3` stand in the nodes' files, `c2` and `c4` are discovered. No node has a default route.

use std::{fmt::Display, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::names::ROUTE_METRIC;
use serde_json::Value;
use tests::harness::{
    Config, Container, ContainerSpec, Daemon, Fabric, Namespace, Node, Process, Stream, eventually, traffic,
};

/// How long the daemon may take to follow a change, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a [`Network`] is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// `tc-attach` of both daemons.
    pub attach: &'static str,
    /// MTU of the fabric, and so of the nodes' `eth0`, in bytes.
    pub fabric_mtu: u32,
    /// MTU of the containers, in bytes.
    pub container_mtu: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self { attach: "auto", fabric_mtu: 1500, container_mtu: 1500 }
    }
}

/// Two nodes with their daemons and containers. Dropped from the top: the daemons first.
pub struct Network {
    pub daemon1: Daemon,
    pub daemon2: Daemon,
    pub c1: Container,
    pub c2: Container,
    pub c3: Container,
    pub c4: Container,
    pub node1: Node,
    pub node2: Node,
    pub fabric: Fabric,
}

impl Network {
    pub fn new() -> Result<Self> {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Result<Self> {
        let fabric = Fabric::with_mtu(setup.fabric_mtu)?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        let pair = |node: &Node, first: (&str, &str), second: (&str, &str)| -> Result<[Container; 2]> {
            let spec = |(interface, address)| {
                anyhow::Ok(ContainerSpec::new(interface, address)?.mtu(setup.container_mtu))
            };
            let made = node.add(&[spec(first)?, spec(second)?.host_route()])?;
            made.try_into().map_err(|_| anyhow::anyhow!("not two containers"))
        };
        let [c1, c2] = pair(&node1, ("cali1", "172.19.35.2"), ("cali2", "172.19.35.3"))?;
        let [c3, c4] = pair(&node2, ("cali3", "172.19.36.2"), ("cali4", "172.19.36.3"))?;
        let attach = format!("\"{}\"", setup.attach);
        let daemon1 = Daemon::start(&node1, &config1().datapath("tc-attach", &attach))?;
        let daemon2 = Daemon::start(&node2, &config2().datapath("tc-attach", &attach))?;
        Ok(Self { daemon1, daemon2, c1, c2, c3, c4, node1, node2, fabric })
    }

    /// Runs the work, and sees that BPF forwarded packets and neither node's kernel did.
    pub fn by_bpf<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let counts = || {
            let kernel = [&self.node1, &self.node2].map(|node| traffic::ip_forw_datagrams(node));
            let [one, two] = kernel;
            anyhow::Ok(([one?, two?], forwarded(&self.daemon1)? + forwarded(&self.daemon2)?))
        };
        let (kernel_before, bpf_before) = counts()?;
        let result = work()?;
        let (kernel, bpf) = counts()?;
        ensure!(
            kernel == kernel_before,
            "the kernels forwarded {kernel_before:?} before and {kernel:?} after"
        );
        ensure!(bpf > bpf_before, "BPF forwarded nothing: {bpf} packets before and after");
        Ok(result)
    }

    /// [`Self::by_bpf`] for a few pings, all of which are answered.
    pub fn ping_by_bpf(&self, from: &Namespace, to: impl Display) -> Result<()> {
        self.by_bpf(|| traffic::ping(from, to, 3)?.all_answered())
    }
}

/// The file of `node1`: `c1` stands in it, `c2` is to be discovered.
pub fn config1() -> Config {
    base().block("172.19.35.0/24").endpoint("172.19.35.2", "cali1").route("172.19.36.0/26", "10.141.0.2")
}

/// The file of `node2`: `c3` stands in it, `c4` is to be discovered.
pub fn config2() -> Config {
    base().block("172.19.36.0/26").endpoint("172.19.36.2", "cali3").route("172.19.35.0/24", "10.141.0.1")
}

/// What the files of all nodes say.
pub fn base() -> Config {
    Config::new().node("uplinks", r#"["eth0"]"#).pool("172.19.0.0/16")
}

/// Packets that BPF carried or answered, of all hooks.
pub fn forwarded(daemon: &Daemon) -> Result<u64> {
    let status = daemon.cli(&["status", "--json"])?;
    status["packets"]["forwarded"].as_u64().context("status without forwarded packets")
}

/// Entries of a table that are in use.
pub fn used(daemon: &Daemon, table: &str) -> Result<u64> {
    let status = daemon.cli(&["status", "--json"])?;
    let tables = status["tables"].as_array().context("status without tables")?;
    let found = tables.iter().find(|entry| entry["table"] == table);
    found.and_then(|entry| entry["used"].as_u64()).with_context(|| format!("status without table {table}"))
}

/// The line of `dataplane endpoint list` for that address, if there is one.
pub fn endpoint(daemon: &Daemon, address: impl Display) -> Result<Option<Value>> {
    let address = address.to_string();
    let list = daemon.cli(&["endpoint", "list", "--json"])?;
    let found = list.as_array().context("the list is none")?.iter().find(|line| line["address"] == *address);
    Ok(found.cloned())
}

/// Waits until an endpoint with that address is there, and gives its line of the list.
pub fn await_endpoint(daemon: &Daemon, address: impl Display) -> Result<Value> {
    eventually(PATIENCE, || endpoint(daemon, &address)?.with_context(|| format!("no endpoint {address}")))
}

/// The route that the programs find for that address.
pub fn route(daemon: &Daemon, address: impl Display) -> Result<Value> {
    Ok(daemon.route_get(address)?["route"].take())
}

/// Waits until the programs find a route of that kind for the address.
pub fn await_route(daemon: &Daemon, address: impl Display, kind: &str) -> Result<Value> {
    eventually(PATIENCE, || {
        let route = route(daemon, &address)?;
        ensure!(route["kind"] == kind, "the route of {address} is {route}, not of kind {kind}");
        Ok(route)
    })
}

/// The data path's own routes in the kernel's table, one a line, in the order of their text, without the metric that
/// all have.
pub fn own_routes(node: &Node) -> Result<Vec<String>> {
    let text = node.ip("route show table main proto 171")?;
    let metric = format!(" metric {ROUTE_METRIC}");
    let mut routes: Vec<String> = text.lines().map(|line| line.trim().replace(&metric, "")).collect();
    routes.sort();
    Ok(routes)
}

/// A ping every ten milliseconds, until it is asked what was lost.
pub struct SteadyPing {
    process: Process,
}

impl SteadyPing {
    /// Starts it and waits for the first answer.
    pub fn start(from: &Namespace, to: impl Display) -> Result<Self> {
        let process = from.spawn(["stdbuf", "-oL", "ping", "-n", "-i", "0.01", &to.to_string()])?;
        process.wait_for_line(Stream::Stdout, |line| line.contains("icmp_seq="), PATIENCE)?;
        Ok(Self { process })
    }

    /// How many were answered so far.
    fn answers(&self) -> Vec<u64> {
        let text = self.process.output(Stream::Stdout);
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let number = |line: &str| {
            let rest = line.split_once("bytes from")?.1.split_once("icmp_seq=")?.1;
            rest.split(' ').next()?.parse().ok()
        };
        complete.lines().filter_map(number).collect()
    }

    /// Waits for that many further answers: what was lost on the way there shows then as a gap.
    pub fn continues(&self, count: usize) -> Result<()> {
        let before = self.answers().len();
        eventually(PATIENCE, || {
            let now = self.answers().len();
            ensure!(now >= before + count, "only {} answers, not {count}: {}", now - before, self.text());
            Ok(())
        })
    }

    /// Sees that it goes on, with no more than so many requests unanswered.
    pub fn lost_at_most(self, most: usize) -> Result<()> {
        self.continues(10)?;
        let answers = self.answers();
        let sent = *answers.last().context("no answer")? as usize;
        ensure!(sent <= answers.len() + most, "{} of {sent} were answered: {}", answers.len(), self.text());
        Ok(())
    }

    /// Sees that every request up to the last one answered was answered exactly once, and in order.
    pub fn nothing_lost(self) -> Result<()> {
        self.continues(10)?;
        let answers = self.answers();
        let wanted: Vec<u64> = (1..=answers.len() as u64).collect();
        ensure!(answers == wanted, "not every request was answered once: {}", self.text());
        Ok(())
    }

    fn text(&self) -> String {
        self.process.output(Stream::Stdout)
    }
}
