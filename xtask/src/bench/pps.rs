//! Packets per second on one CPU: 64-byte UDP, 65,536 flows, between a node's uplink and its container.

pub(super) mod gateway;
pub(super) mod lane;
pub(super) mod scale;
pub(super) mod unknown;

use anyhow::Result;
use tests::harness::Fabric;

use self::lane::{Lane, Load, SENDERS};
use super::Bench;
use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::site::Site;

/// Which way the packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the fabric by the uplink into the container.
    Deliver,
    /// From the container by the uplink, to other nodes' containers: nothing is translated.
    Egress,
    /// From the container by the uplink to the outside, translated.
    Masquerade,
}

impl Way {
    const fn case(self) -> &'static str {
        match self {
            Self::Deliver => "pps-deliver",
            Self::Egress | Self::Masquerade => "pps-egress",
        }
    }

    const fn variant(self) -> &'static str {
        match self {
            Self::Deliver => "uplink to container",
            Self::Egress => "container to uplink, no translation",
            Self::Masquerade => "container to uplink, MASQUERADE",
        }
    }
}

/// The same where the kernel decides by the rules of services and policies, against those rules alone and a flowtable.
pub(super) fn respect(bench: &Bench, way: Way) -> Result<Vec<Finding>> {
    let ground = Ground::with(bench, Path::Respect)?;
    let mut findings = Vec::new();
    let paths = if bench.is_quick { &[Path::Services][..] } else { &[Path::Services, Path::Flowtable] };
    for &path in paths {
        match against(bench, ("respect", way), &ground, path) {
            Ok(found) => findings.extend(found),
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    ground.ours.finish()?;
    Ok(findings)
}

/// The sites of one comparison: ours, and one for the generator without anything between.
struct Ground {
    fabric: Fabric,
    ours: Site,
    plain: Site,
}

impl Ground {
    fn new(bench: &Bench) -> Result<Self> {
        Self::with(bench, Path::Dataplane)
    }

    fn with(bench: &Bench, path: Path) -> Result<Self> {
        let fabric = Fabric::new()?;
        let ours = bench.site(&fabric, path, 1, &[SENDERS])?;
        let plain = bench.site(&fabric, Path::Route, 2, &[SENDERS])?;
        Ok(Self { fabric, ours, plain })
    }
}

/// Against each baseline, with the marginal cost of a packet: what is above the cost of generator and sink.
pub(super) fn run(bench: &Bench, way: Way) -> Result<Vec<Finding>> {
    let ground = Ground::new(bench)?;
    let mut findings = Vec::new();
    for &path in bench.baselines() {
        if way == Way::Masquerade && path == Path::Route {
            continue; // it translates nothing
        }
        match against(bench, (way.case(), way), &ground, path) {
            Ok(found) => findings.extend(found),
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    ground.ours.finish()?;
    Ok(findings)
}

fn against(
    bench: &Bench,
    (case, way): (&'static str, Way),
    ground: &Ground,
    path: Path,
) -> Result<Vec<Finding>> {
    let Ground { fabric, ours, plain } = ground;
    let site = bench.site(fabric, path, 3, &[SENDERS])?;
    let ours = Lane::through(bench, Load::of(way), fabric, ours)?;
    let theirs = Lane::through(bench, Load::of(way), fabric, &site)?;
    let direct = Lane::direct(bench, Load::of(way), fabric, plain)?;
    let found = compare(bench, (case, way.variant()), path.name(), [&ours, &theirs, &direct])?;
    drop(theirs);
    site.finish()?;
    Ok(found)
}

/// Rates through a lane and a baseline's, in pairs, and the marginal costs above the third lane, which has nothing
/// between generator and sink.
pub(super) fn compare(
    bench: &Bench,
    (case, variant): (&'static str, &str),
    baseline: &str,
    [ours, theirs, direct]: [&Lane<'_>; 3],
) -> Result<Vec<Finding>> {
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for pair in 0..bench.pairs {
        let (a, b) = (ours.rate(bench.slot)?, theirs.rate(bench.slot)?);
        let harness = 1e9 / direct.rate(bench.slot)?;
        rates.push(Sample::pair(a, b));
        costs.push(Sample::pair(1e9 / a - harness, 1e9 / b - harness));
        let figures = format!("{:.2} / {:.2} M/s", a / 1e6, b / 1e6);
        bench.progress(&format!("{case}, {variant}"), baseline, pair, &figures);
    }
    let finding =
        |metric, unit, samples| Finding::new(case, variant, metric, unit, samples).against(baseline);
    Ok(vec![finding("rate", "packets/s", rates), finding("marginal-cost", "ns/packet", costs)])
}

/// `direct`: what generator and sink cost without anything between them.
pub(super) fn direct(bench: &Bench) -> Result<Vec<Finding>> {
    let ground = Ground::new(bench)?;
    let mut findings = Vec::new();
    for way in [Way::Deliver, Way::Egress] {
        let through = Lane::through(bench, Load::of(way), &ground.fabric, &ground.ours)?;
        let direct = Lane::direct(bench, Load::of(way), &ground.fabric, &ground.plain)?;
        let mut samples = Vec::new();
        for pair in 0..bench.pairs {
            let (a, b) = (through.rate(bench.slot)?, direct.rate(bench.slot)?);
            samples.push(Sample::pair(a, b));
            bench.progress("direct", way.case(), pair, &format!("{:.2} / {:.2} M/s", a / 1e6, b / 1e6));
        }
        let finding = Finding::new("direct", way.variant(), "rate", "packets/s", samples);
        findings.push(finding.against("direct"));
    }
    ground.ours.finish()?;
    Ok(findings)
}
