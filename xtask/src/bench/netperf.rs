//! netperf between containers, and from a container to the outside; client and server on one CPU.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Fabric, Namespace, Process, eventually};

use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::site::{self, GATEWAY, Site};
use super::skip::skip;
use super::{Bench, interrupt, machine};
use crate::process;

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(5);

/// netserver's port, unless told otherwise.
const PORT: u16 = 12_865;

/// A netperf test.
pub(super) struct Test {
    /// Name of the case.
    pub(super) case: &'static str,
    /// netperf's own name.
    name: &'static str,
    pub(super) unit: &'static str,
    /// Whether there are requests whose latency can be told.
    has_latency: bool,
    /// What ends a measurement, and a short one, as netperf's `-l` takes it: seconds, or the negative number of
    /// transactions or bytes. Latencies are measured within the 0.95 s in a row that the kernel gives real-time
    /// processes, so that its break is not among them.
    lengths: [i64; 2],
}

/// Connections, each with one request and one answer.
pub(super) const CRR: Test = Test {
    case: "tcp-crr",
    name: "TCP_CRR",
    unit: "connections/s",
    has_latency: true,
    lengths: [-8_000, -4_000],
};

/// Requests and answers of one byte on one connection.
pub(super) const RR: Test = Test {
    case: "tcp-rr",
    name: "TCP_RR",
    unit: "transactions/s",
    has_latency: true,
    lengths: [-24_000, -8_000],
};

/// The same by datagrams.
pub(super) const UDP_RR: Test = Test {
    case: "udp-rr",
    name: "UDP_RR",
    unit: "transactions/s",
    has_latency: true,
    lengths: [-24_000, -8_000],
};

/// One connection that sends as much as it can.
pub(super) const STREAM: Test = Test {
    case: "tcp-stream",
    name: "TCP_STREAM",
    unit: "Mbit/s",
    has_latency: false,
    lengths: [3, -300_000_000],
};

/// netperf's names of the latencies, in microseconds, and ours.
const LATENCIES: [(&str, &str); 4] = [
    ("P50_LATENCY", "latency-p50"),
    ("P90_LATENCY", "latency-p90"),
    ("P99_LATENCY", "latency-p99"),
    ("MAX_LATENCY", "latency-max"),
];

/// Between whom.
#[derive(Clone, Copy, PartialEq)]
enum Variant {
    OneHost,
    AcrossNodes,
    Masquerade,
}

impl Variant {
    const ALL: [Self; 3] = [Self::AcrossNodes, Self::OneHost, Self::Masquerade];

    const fn name(self) -> &'static str {
        match self {
            Self::OneHost => "on one host",
            Self::AcrossNodes => "across nodes",
            Self::Masquerade => "to the outside, MASQUERADE",
        }
    }
}

/// Sites of one path with a client, and the address of a server.
struct Link {
    sites: Vec<Site>,
    server: Option<Process>,
    address: String,
}

impl Link {
    fn new(bench: &Bench, fabric: &Fabric, path: Path, variant: Variant, first: u8) -> Result<Self> {
        let (sites, address) = match variant {
            Variant::AcrossNodes => {
                let from = bench.site(fabric, path, first, &[first + 1])?;
                let to = bench.site(fabric, path, first + 1, &[first])?;
                let address = to.container.address.to_string();
                (vec![from, to], address)
            }
            Variant::OneHost => {
                let site = Site::of_two(bench, fabric, path, first)?;
                let second = site.second.as_ref().context("the site has one container")?;
                let address = second.address.to_string();
                (vec![site], address)
            }
            Variant::Masquerade => (vec![bench.site(fabric, path, first, &[])?], GATEWAY.to_owned()),
        };
        let place: Option<&Namespace> = match variant {
            Variant::AcrossNodes => Some(&sites[1].container),
            Variant::OneHost => sites[0].second.as_deref(),
            Variant::Masquerade => None,
        };
        let server = place.map(|place| serve(bench, place)).transpose()?;
        Ok(Self { sites, server, address })
    }

    /// The rate, and the latencies if there are any.
    fn measure(&self, bench: &Bench, test: &Test) -> Result<Vec<f64>> {
        measure(bench, test, &self.sites[0].container, &self.address)
    }

    fn finish(self) -> Result<()> {
        if let Some(server) = self.server {
            server.kill();
        }
        self.sites.into_iter().try_for_each(Site::finish)
    }
}

/// The rate from that place to a server's address, and the latencies if there are any.
pub(super) fn measure(bench: &Bench, test: &Test, place: &Namespace, address: &str) -> Result<Vec<f64>> {
    interrupt::check()?;
    let mut words = machine::on_cpu(bench.cpu);
    let length = test.lengths[usize::from(bench.is_quick)];
    let wanted: Vec<&str> = std::iter::once("THROUGHPUT")
        .chain(LATENCIES.iter().map(|(theirs, _)| *theirs).filter(|_| test.has_latency))
        .collect();
    // -j: latencies are kept.
    let (length, keys) = (length.to_string(), wanted.join(","));
    let netperf = ["netperf", "-4", "-H", address, "-t", test.name, "-l", &length, "-P", "0"];
    words.extend(netperf.iter().map(|word| (*word).to_owned()));
    words.extend(test.has_latency.then(|| "-j".to_owned()));
    words.extend(["--", "-k", &keys].map(str::to_owned));
    figures(&place.run(words).ok()?, &wanted)
}

/// The figures with these names in netperf's lines `NAME=FIGURE`.
fn figures(text: &str, names: &[&str]) -> Result<Vec<f64>> {
    names
        .iter()
        .map(|name| {
            let figure = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
            figure
                .and_then(|figure| figure.parse().ok())
                .with_context(|| format!("netperf said no {name}: {text}"))
        })
        .collect()
}

/// Megabits per second of a connection to a server's address, which shares its CPU with its equals.
pub(super) fn stream_among_equals(bench: &Bench, place: &Namespace, address: &str) -> Result<f64> {
    interrupt::check()?;
    let mut words = machine::among_equals(bench.cpu);
    let length = if bench.is_quick { "-100000000" } else { "3" };
    let netperf = ["netperf", "-4", "-H", address, "-t", STREAM.name, "-l", length, "-P", "0"];
    words.extend(netperf.iter().chain(&["--", "-k", "THROUGHPUT"]).map(|word| (*word).to_owned()));
    Ok(figures(&place.run(words).ok()?, &["THROUGHPUT"])?[0])
}

/// Starts a server on the measuring CPU that shares it with its equals.
pub(super) fn serve_among_equals(bench: &Bench, place: &Namespace) -> Result<Process> {
    serve_as(machine::among_equals(bench.cpu), place)
}

/// Starts a server that listens when this returns.
pub(super) fn serve(bench: &Bench, place: &Namespace) -> Result<Process> {
    serve_as(machine::on_cpu(bench.cpu), place)
}

fn serve_as(mut words: Vec<String>, place: &Namespace) -> Result<Process> {
    words.extend(["netserver", "-D", "-4"].map(str::to_owned));
    let server = place.spawn(words)?;
    eventually(START_LIMIT, || {
        ensure!(listens(place)?, "netserver does not listen");
        Ok(())
    })?;
    Ok(server)
}

/// Whether somebody listens at netserver's port (proc_pid_net(5), tcp: local address, state 0A).
fn listens(place: &Namespace) -> Result<bool> {
    let sockets = place.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/tcp")?))?;
    Ok(sockets.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let is_port = columns.next().is_some_and(|local| local.ends_with(&format!(":{PORT:04X}")));
        is_port && columns.nth(1) == Some("0A")
    }))
}

/// A skip where there is no netperf.
pub(super) fn require() -> Result<()> {
    if process::find("netperf").is_none() || process::find("netserver").is_none() {
        return Err(skip("netperf is not installed: `cargo xtask setup` installs it"));
    }
    Ok(())
}

/// The tests where the kernel decides by the rules of services and policies, against those rules alone.
pub(super) fn respect(bench: &Bench) -> Result<Vec<Finding>> {
    require()?;
    let mut findings = Vec::new();
    for test in [STREAM, RR, CRR] {
        for variant in [Variant::AcrossNodes, Variant::Masquerade] {
            let name = format!("{}, {}", test.case, variant.name());
            let comparison =
                Comparison { case: "respect", name: &name, ours: Path::Respect, theirs: &[Path::Services] };
            match in_variant(bench, &test, variant, comparison) {
                Ok(found) => findings.extend(found),
                Err(error) => bench.leave_out(&format!("respect, {name}"), error)?,
            }
        }
    }
    Ok(findings)
}

/// What is compared with what, and the name of that.
#[derive(Clone, Copy)]
struct Comparison<'a> {
    case: &'static str,
    name: &'a str,
    ours: Path,
    theirs: &'a [Path],
}

/// Runs the test in each variant.
pub(super) fn run(bench: &Bench, test: &Test) -> Result<Vec<Finding>> {
    require()?;
    let mut findings = Vec::new();
    for variant in Variant::ALL {
        let comparison = Comparison {
            case: test.case,
            name: variant.name(),
            ours: Path::Dataplane,
            theirs: bench.baselines(),
        };
        match in_variant(bench, test, variant, comparison) {
            Ok(found) => findings.extend(found),
            Err(error) => bench.leave_out(&format!("{}, {}", test.case, variant.name()), error)?,
        }
    }
    Ok(findings)
}

fn in_variant(
    bench: &Bench,
    test: &Test,
    variant: Variant,
    comparison: Comparison<'_>,
) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let outside = Namespace::new("outside")?;
    fabric.plug(&outside, "eth0", Some(&format!("{GATEWAY}/{}", site::FABRIC_LENGTH)))?;
    let _server = if variant == Variant::Masquerade { Some(serve(bench, &outside)?) } else { None };
    let ours = Link::new(bench, &fabric, comparison.ours, variant, 1)?;
    let mut findings = Vec::new();
    for &path in comparison.theirs {
        // Without translation nobody outside knows the way back.
        if variant == Variant::Masquerade && path == Path::Route {
            continue;
        }
        match against(bench, test, variant, comparison, &fabric, &ours, path) {
            Ok(found) => findings.extend(found),
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    ours.finish()?;
    Ok(findings)
}

fn against(
    bench: &Bench,
    test: &Test,
    variant: Variant,
    comparison: Comparison<'_>,
    fabric: &Fabric,
    ours: &Link,
    path: Path,
) -> Result<Vec<Finding>> {
    let theirs = Link::new(bench, fabric, path, variant, 3)?;
    let metrics = std::iter::once(("rate", test.unit)).chain(LATENCIES.map(|(_, ours)| (ours, "us")));
    let mut samples: Vec<(_, Vec<Sample>)> = metrics.map(|metric| (metric, Vec::new())).collect();
    for pair in 0..bench.pairs {
        let (a, b) = (ours.measure(bench, test)?, theirs.measure(bench, test)?);
        for ((_, samples), (a, b)) in samples.iter_mut().zip(a.iter().zip(&b)) {
            samples.push(Sample::pair(*a, *b));
        }
        let (case, a, b) = (format!("{}, {}", comparison.case, comparison.name), a[0], b[0]);
        bench.progress(&case, path.name(), pair, &format!("{a:.0} / {b:.0} {}", test.unit));
    }
    theirs.finish()?;
    let measured = samples.into_iter().filter(|(_, samples)| !samples.is_empty());
    let findings = measured.map(|((metric, unit), samples)| {
        Finding::new(comparison.case, comparison.name, metric, unit, samples).against(path.name())
    });
    Ok(findings.collect())
}

#[cfg(test)]
mod units {
    use super::*;

    #[test]
    fn netperf_s_lines_are_read_by_name() -> Result<()> {
        let text = "P50_LATENCY=14\n THROUGHPUT=12566.00\n";
        assert_eq!(figures(text, &["THROUGHPUT", "P50_LATENCY"])?, [12566.0, 14.0]);
        assert!(figures(text, &["P99_LATENCY"]).is_err());
        Ok(())
    }
}
