//! Translations per second: every packet begins one. And the memory that one takes.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::harness::Fabric;
use tests::harness::topology::HOST_MAC;

use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::generator::Generator;
use super::pps::lane::{OUTSIDE, SENDER_MAC, SENDERS, outbound_flows};
use super::sink::Sink;
use super::site::{GATEWAY, port_of, take_redirected};
use super::{Bench, interrupt};

const CASE: &str = "new-flows";

/// Packets of the one flow before (to RFC 5737's TEST-NET-1).
const WARM_UP: u32 = 65_536;
const ELSEWHERE: [u8; 4] = [192, 0, 2, 0];

/// Flows of one measurement, half of what the tables of both are meant for.
const FLOWS: u32 = 1 << 17;

/// Against each baseline that translates.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let mut findings = Vec::new();
    for &path in bench.baselines().iter().filter(|path| **path != Path::Route) {
        match against(bench, &fabric, path) {
            Ok(found) => findings.push(found),
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    findings.push(memory(bench, &fabric)?);
    Ok(findings)
}

fn against(bench: &Bench, fabric: &Fabric, path: Path) -> Result<Finding> {
    let mut samples = Vec::new();
    for pair in 0..bench.pairs {
        let (a, b) = (rate(bench, fabric, Path::Dataplane)?, rate(bench, fabric, path)?);
        samples.push(Sample::pair(a, b));
        bench.progress(CASE, path.name(), pair, &format!("{:.0} / {:.0} k/s", a / 1e3, b / 1e3));
    }
    let variant = "container to uplink, MASQUERADE";
    Ok(Finding::new(CASE, variant, "rate", "flows/s", samples).against(path.name()))
}

/// Flows that begin in a second, on a new site: its tables are empty.
fn rate(bench: &Bench, fabric: &Fabric, path: Path) -> Result<f64> {
    interrupt::check()?;
    let site = bench.site(fabric, path, 1, &[SENDERS])?;
    site.know_neighbour(GATEWAY, SENDER_MAC)?;
    let port = port_of(fabric, &site.node)?;
    take_redirected(&site.node, "eth0")?;
    take_redirected(&site.node, &site.container.interface)?;
    let macs = [site.container.mac("eth0")?, HOST_MAC];
    let rate = {
        let mut generator = Generator::new(&bench.object, &site.container, "eth0", bench.cpu)?;
        let sink = Sink::in_xdp(&bench.object, fabric, &port)?;
        // One flow, so that code and neighbours are warm.
        generator.aim(&outbound_flows(macs, &site, ELSEWHERE, 1))?;
        generator.run(WARM_UP)?;
        generator.aim(&outbound_flows(macs, &site, OUTSIDE, FLOWS))?;
        let before = sink.count()?;
        let run = generator.run(FLOWS)?;
        let arrived = sink.count()? - before;
        ensure!(
            arrived as f64 >= 0.95 * f64::from(FLOWS),
            "of {FLOWS} first packets only {arrived} came out of {}",
            path.name()
        );
        arrived as f64 / run.elapsed.as_secs_f64()
    };
    site.finish()?;
    Ok(rate)
}

/// Bytes of map memory for each flow that the table is meant for, and of connection tracking's own objects for
/// each of its connections.
fn memory(bench: &Bench, fabric: &Fabric) -> Result<Finding> {
    let site = bench.site(fabric, Path::Dataplane, 1, &[SENDERS])?;
    let stats = site.ask(&["nat", "stats"])?.context("the data path has no daemon")?;
    let number = |key: &str| stats[key].as_f64().with_context(|| format!("no {key} in {stats}"));
    let ours = number("table_bytes")? / number("max_flows")?;
    site.finish()?;
    let theirs = conntrack_bytes();
    let sample = Sample { dataplane: ours, baseline: theirs };
    let finding = Finding::new(CASE, "memory of one translation", "memory", "bytes/flow", vec![sample]);
    Ok(if theirs.is_some() { finding.against("conntrack, without its extensions") } else { finding })
}

/// Size of an object of the kernel's cache `nf_conntrack`, where it can be told (slabinfo(5)).
fn conntrack_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("nf_conntrack "))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
