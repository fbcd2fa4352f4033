//! Packets per second on one CPU: 64-byte UDP, 65,536 flows, from the fabric by a node's uplink into its
//! container.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::{Fabric, topology::HOST_MAC};

use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::generator::{Flows, Generator, Vary};
use super::layout::MAX_FLOWS;
use super::sink::RawDrop;
use super::site::{Site, port_of, take_redirected};
use super::{Bench, interrupt};

/// Frames before each measurement: every flow twice, so that connection tracking knows it and caches are as
/// they stay.
const WARM_UP: u32 = 2 * MAX_FLOWS;

/// Another node's container, whose last byte is the flow's.
const SENDER: [u8; 4] = [172, 19, 200, 0];

/// MAC of a machine on the fabric that is not there.
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A generator and the sink that its packets end in.
struct Lane<'a> {
    path: &'static str,
    generator: Generator<'a>,
    sink: RawDrop<'a>,
}

impl<'a> Lane<'a> {
    /// From the fabric through the site's node into its container.
    fn through(bench: &Bench, fabric: &'a Fabric, site: &'a Site) -> Result<Self> {
        take_redirected(&site.node, "eth0")?;
        let mut generator = Generator::new(&bench.object, fabric, &port_of(fabric, &site.node)?, bench.cpu)?;
        let macs = [SENDER_MAC, site.node.mac("eth0")?];
        generator.aim(&flows(macs, site))?;
        Ok(Self { path: site.path.name(), generator, sink: RawDrop::new(&site.container)? })
    }

    /// Straight into the site's container.
    fn direct(bench: &Bench, site: &'a Site) -> Result<Self> {
        take_redirected(&site.container, "eth0")?;
        let mut generator = Generator::new(&bench.object, &site.node, &site.container.interface, bench.cpu)?;
        generator.aim(&flows([HOST_MAC, site.container.mac("eth0")?], site))?;
        Ok(Self { path: "direct", generator, sink: RawDrop::new(&site.container)? })
    }

    /// Packets that arrive in a second.
    fn rate(&self, time: Duration) -> Result<f64> {
        interrupt::check()?;
        let warm_up = self.generator.run(WARM_UP)?;
        let expected = f64::from(WARM_UP) / warm_up.elapsed.as_secs_f64();
        let before = self.sink.count()?;
        let run = self.generator.run((expected * time.as_secs_f64()) as u32 + 1)?;
        let arrived = self.sink.count()? - before;
        ensure!(
            arrived as f64 >= 0.95 * f64::from(run.sent),
            "of {} packets only {arrived} came out of {}: a rate of the rest would mean nothing",
            run.sent,
            self.path
        );
        Ok(arrived as f64 / run.elapsed.as_secs_f64())
    }
}

fn flows(macs: [[u8; 6]; 2], site: &Site) -> Flows {
    let addresses = [SENDER, site.container.address.octets()];
    Flows { macs, addresses, vary: Vary::Source, flows: MAX_FLOWS }
}

/// `pps-deliver`: against each baseline, with the marginal cost of a packet.
pub(super) fn deliver(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let ours = bench.site(&fabric, Path::Dataplane, 1, &[])?;
    let plain = bench.site(&fabric, Path::Route, 2, &[])?;
    let mut findings = Vec::new();
    for path in Path::BASELINES {
        match against(bench, &fabric, &ours, &plain, path) {
            Ok(found) => findings.extend(found),
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    ours.finish()?;
    Ok(findings)
}

fn against(bench: &Bench, fabric: &Fabric, ours: &Site, plain: &Site, path: Path) -> Result<Vec<Finding>> {
    let site = bench.site(fabric, path, 3, &[])?;
    let (ours, theirs) = (Lane::through(bench, fabric, ours)?, Lane::through(bench, fabric, &site)?);
    let direct = Lane::direct(bench, plain)?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for pair in 0..bench.pairs {
        let (a, b) = (ours.rate(bench.slot)?, theirs.rate(bench.slot)?);
        let harness = 1e9 / direct.rate(bench.slot)?;
        rates.push(Sample::pair(a, b));
        costs.push(Sample::pair(1e9 / a - harness, 1e9 / b - harness));
        bench.progress("pps-deliver", path.name(), pair, &format!("{:.2} / {:.2} M/s", a / 1e6, b / 1e6));
    }
    let finding = |metric, unit, samples| Finding {
        case: "pps-deliver",
        variant: "uplink to container".to_owned(),
        metric,
        unit,
        baseline_name: Some(path.name().to_owned()),
        samples,
    };
    Ok(vec![finding("rate", "packets/s", rates), finding("marginal-cost", "ns/packet", costs)])
}

/// `direct`: what generator and sink cost without anything between them.
pub(super) fn direct(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let ours = bench.site(&fabric, Path::Dataplane, 1, &[])?;
    let plain = bench.site(&fabric, Path::Route, 2, &[])?;
    let samples = {
        let (through, direct) = (Lane::through(bench, &fabric, &ours)?, Lane::direct(bench, &plain)?);
        let mut samples = Vec::new();
        for pair in 0..bench.pairs {
            let (a, b) = (through.rate(bench.slot)?, direct.rate(bench.slot)?);
            samples.push(Sample::pair(a, b));
            bench.progress("direct", "direct", pair, &format!("{:.2} / {:.2} M/s", a / 1e6, b / 1e6));
        }
        samples
    };
    ours.finish()?;
    Ok(vec![Finding {
        case: "direct",
        variant: "generator into container".to_owned(),
        metric: "rate",
        unit: "packets/s",
        baseline_name: Some("direct".to_owned()),
        samples,
    }])
}
