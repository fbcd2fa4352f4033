//! `pps-gateway`: from one uplink to the other, with MASQUERADE, on a head node that has no containers.
//!
//! ```text
//!  generator ─ fabric ─ eth0 10.141.0.N node eth1 198.51.100.N ─ outside: XDP_DROP
//! ```

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::harness::{Config, Daemon, Fabric, Node, Outside};

use super::compare;
use super::lane::{FLOWS, Lane, OUTSIDE, SENDER_MAC, SENDERS, replies};
use crate::bench::Bench;
use crate::bench::baseline::Path;
use crate::bench::finding::{Finding, Sample};
use crate::bench::generator::{Flows, Generator, Vary};
use crate::bench::sink::Sink;
use crate::bench::site::{MASQUERADE, MAX_FLOWS, address, port_of, take_redirected};

const CASE: &str = "pps-gateway";

/// The sender, a container of another node.
pub(in crate::bench) const SENDER: [u8; 4] = [172, 19, SENDERS, 2];

/// The host that the second uplink leads to.
pub(in crate::bench) const NEIGHBOUR: &str = "198.51.100.254";

/// The values of `uplink-hook`.
pub(in crate::bench) const HOOKS: [&str; 3] = ["tc", "xdp", "auto"];

/// What `auto` is compared with.
pub(in crate::bench) const BETTER: &str = "better of tc and xdp";

/// A head node. Dropped from the top.
pub(in crate::bench) struct Gateway {
    daemon: Option<Daemon>,
    /// The host behind the second uplink.
    pub(in crate::bench) outside: Outside,
    /// The node, whose first uplink is a port of the fabric.
    pub(in crate::bench) node: Node,
    /// The address that packets leave with.
    address: [u8; 4],
    /// Its `uplink-hook`, or the baseline's name.
    pub(in crate::bench) name: String,
}

impl Gateway {
    /// One whose packets take that path; `hook` is the data path's `uplink-hook`.
    pub(in crate::bench) fn new(
        bench: &Bench,
        fabric: &Fabric,
        path: Path,
        hook: &str,
        number: u8,
    ) -> Result<Self> {
        let name = if path == Path::Dataplane { hook } else { path.name() };
        let node = Node::new(fabric, &format!("gw-{name}"), address(number))?;
        let own = [198, 51, 100, number];
        let outside = node.outside("eth1", &format!("{}/24", Ipv4Addr::from(own)), NEIGHBOUR)?;
        // Before the daemon looks: XDP sends nothing to a veth whose other end takes no redirected frames.
        let port = port_of(fabric, &node)?;
        for (place, interface) in
            [(&*node, "eth0"), (&*node, "eth1"), (&*outside, "eth0"), (&**fabric, &*port)]
        {
            take_redirected(place, interface)?;
        }
        // The sinks take what the node sends to its neighbours, so their answers to ARP as well.
        for (neighbour, mac, interface) in
            [(&*address(SENDERS), SENDER_MAC, "eth0"), (NEIGHBOUR, outside.mac("eth0")?, "eth1")]
        {
            let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
            node.ip(&format!("neigh replace {neighbour} lladdr {mac} dev {interface} nud permanent"))?;
        }
        path.install(&node, &["cali1"])?;
        let block = format!("172.19.{SENDERS}.0/24");
        let binary = match path {
            Path::Dataplane => Some(&bench.binary),
            Path::Build => bench.against.as_ref(),
            _ => None,
        };
        let daemon = if let Some(binary) = binary {
            let config = Config::new()
                .node("uplinks", r#"["eth0", "eth1"]"#)
                .pool("172.19.0.0/16")
                .route(&block, address(SENDERS))
                .table(&format!("{MASQUERADE}\ninterface = \"eth1\""))
                .datapath("uplink-hook", format!("\"{hook}\""))
                .datapath("max-flows-per-source", MAX_FLOWS);
            let mut daemon = Daemon::prepare_binary(&node, &config, binary.clone())?;
            bench.launch(&mut daemon)?;
            let chosen = chosen(&daemon)?;
            bench.note_mode(&format!("{CASE} with uplink-hook {hook}: {chosen}"));
            Some(daemon)
        } else {
            node.route_via(&block, address(SENDERS))?;
            None
        };
        Ok(Self { daemon, outside, node, address: own, name: name.to_owned() })
    }

    /// Through the node, by connections that were answered.
    fn lane<'a>(&'a self, bench: &Bench, fabric: &'a Fabric) -> Result<Lane<'a>> {
        let port = port_of(fabric, &self.node)?;
        let mut generator = Generator::new(&bench.object, fabric, &port, bench.cpu)?;
        generator.aim(&flows([SENDER_MAC, self.node.mac("eth0")?]))?;
        let mut answering = Generator::new(&bench.object, &self.outside, "eth0", bench.cpu)?;
        let macs = [self.outside.mac("eth0")?, self.node.mac("eth1")?];
        answering.aim(&replies(macs, self.address, FLOWS))?;
        generator.run(2 * FLOWS)?;
        answering.run(2 * FLOWS)?;
        let sink = Sink::in_xdp(&bench.object, &self.outside, "eth0")?;
        Ok(Lane { name: self.name.clone(), generator, sink, warm_up: FLOWS })
    }

    /// Straight into the sink of a node without any path.
    fn direct<'a>(&'a self, bench: &Bench) -> Result<Lane<'a>> {
        let sink = Sink::in_xdp(&bench.object, &self.outside, "eth0")?;
        let mut generator = Generator::new(&bench.object, &self.node, "eth1", bench.cpu)?;
        generator.aim(&flows([self.node.mac("eth1")?, self.outside.mac("eth0")?]))?;
        Ok(Lane { name: "direct".to_owned(), generator, sink, warm_up: FLOWS })
    }

    /// Ends its daemon.
    pub(in crate::bench) fn finish(self) -> Result<()> {
        self.daemon.map_or(Ok(()), Daemon::finish)
    }
}

fn flows(macs: [[u8; 6]; 2]) -> Flows {
    Flows { macs, addresses: [SENDER, OUTSIDE], vary: Vary::Destination, flows: FLOWS, spread: None }
}

/// Where the uplinks' programs run, as the daemon says.
pub(super) fn chosen(daemon: &Daemon) -> Result<String> {
    let status: Value = daemon.cli(&["status", "--json"])?;
    let uplinks = status["uplinks"].as_array().context("the daemon's status shows no uplinks")?;
    let said = uplinks.iter().map(|uplink| {
        let text = |key: &str| uplink[key].as_str().unwrap_or("?").to_owned();
        format!("{} {} ({})", text("interface"), text("uplink_hook"), text("why"))
    });
    Ok(said.collect::<Vec<_>>().join(", "))
}

/// Each `uplink-hook` against the baselines, XDP against tc, and `auto` against the better of both.
pub(in crate::bench) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let plain = Gateway::new(bench, &fabric, Path::Route, "", 10)?;
    let mut ours = Vec::new();
    for (hook, number) in HOOKS.into_iter().zip(1..) {
        match Gateway::new(bench, &fabric, Path::Dataplane, hook, number) {
            Ok(gateway) => ours.push(gateway),
            Err(error) => bench.leave_out(&format!("{CASE}, {hook}"), error)?,
        }
    }
    let mut findings = Vec::new();
    {
        let direct = plain.direct(bench)?;
        let lanes: Vec<Lane<'_>> =
            ours.iter().map(|gateway| gateway.lane(bench, &fabric)).collect::<Result<_>>()?;
        for &path in bench.baselines() {
            if path == Path::Route {
                continue; // the first translates nothing
            }
            match against(bench, &fabric, path, &lanes, &direct) {
                Ok(found) => findings.extend(found),
                Err(error) => bench.leave_out(path.name(), error)?,
            }
        }
        findings.extend(among(bench, &lanes)?);
    }
    ours.into_iter().try_for_each(Gateway::finish)?;
    Ok(findings)
}

fn variant(lane: &Lane<'_>) -> String {
    format!("uplink to uplink, MASQUERADE, {}", lane.name)
}

fn against(
    bench: &Bench,
    fabric: &Fabric,
    path: Path,
    lanes: &[Lane<'_>],
    direct: &Lane<'_>,
) -> Result<Vec<Finding>> {
    let gateway = Gateway::new(bench, fabric, path, "auto", 20)?;
    let theirs = gateway.lane(bench, fabric)?;
    let mut findings = Vec::new();
    for lane in lanes {
        findings.extend(compare(bench, (CASE, &variant(lane)), path.name(), [lane, &theirs, direct])?);
    }
    drop(theirs);
    gateway.finish()?;
    Ok(findings)
}

/// The data path's own ways, compared with each other.
fn among(bench: &Bench, lanes: &[Lane<'_>]) -> Result<Vec<Finding>> {
    let [tc, xdp, auto] = HOOKS.map(|hook| lanes.iter().find(|lane| lane.name == hook));
    let (Some(tc), Some(xdp)) = (tc, xdp) else { return Ok(Vec::new()) };
    let (mut hooks, mut choices) = (Vec::new(), Vec::new());
    for pair in 0..bench.pairs {
        let (x, t) = (xdp.rate(bench.slot)?, tc.rate(bench.slot)?);
        hooks.push(Sample::pair(x, t));
        let mut text = format!("xdp {:.2} / tc {:.2} M/s", x / 1e6, t / 1e6);
        if let Some(auto) = auto {
            let a = auto.rate(bench.slot)?;
            choices.push(Sample::pair(a, x.max(t)));
            text += &format!(" / auto {:.2} M/s", a / 1e6);
        }
        bench.progress(CASE, "among the hooks", pair, &text);
    }
    let finding = |lane: &Lane<'_>, samples, baseline| {
        Finding::new(CASE, variant(lane), "rate", "packets/s", samples).against(baseline)
    };
    let mut findings = vec![finding(xdp, hooks, "tc")];
    findings.extend(auto.map(|auto| finding(auto, choices, BETTER)));
    Ok(findings)
}
