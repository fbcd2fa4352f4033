//! netperf between containers of two nodes, client and server on one CPU.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Fabric, Namespace, Process, eventually};

use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::site::Site;
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
    unit: &'static str,
}

/// Connections, each with one request and one answer.
pub(super) const CRR: Test = Test { case: "tcp-crr", name: "TCP_CRR", unit: "connections/s" };

/// Requests and answers of one byte on one connection.
pub(super) const RR: Test = Test { case: "tcp-rr", name: "TCP_RR", unit: "transactions/s" };

/// One connection that sends as much as it can.
pub(super) const STREAM: Test = Test { case: "tcp-stream", name: "TCP_STREAM", unit: "Mbit/s" };

/// Two sites of one path, a server in the second one's container.
struct Link {
    server: Process,
    from: Site,
    to: Site,
}

impl Link {
    fn new(bench: &Bench, fabric: &Fabric, path: Path, first: u8) -> Result<Self> {
        let from = bench.site(fabric, path, first, &[first + 1])?;
        let to = bench.site(fabric, path, first + 1, &[first])?;
        let mut words = machine::on_cpu(bench.cpu);
        words.extend(["netserver", "-D", "-4"].map(str::to_owned));
        let server = to.container.spawn(words)?;
        eventually(START_LIMIT, || {
            ensure!(listens(&to.container)?, "netserver does not listen");
            Ok(())
        })?;
        Ok(Self { server, from, to })
    }

    fn measure(&self, bench: &Bench, test: &Test) -> Result<f64> {
        interrupt::check()?;
        let mut words = machine::on_cpu(bench.cpu);
        let (address, seconds) = (self.to.container.address.to_string(), bench.netperf_seconds.to_string());
        let netperf = ["netperf", "-4", "-H", &address, "-t", test.name, "-l", &seconds, "-P", "0"];
        words.extend(netperf.iter().chain(&["--", "-k", "THROUGHPUT"]).map(|word| (*word).to_owned()));
        let text = self.from.container.run(words).ok()?;
        let figure = text.lines().find_map(|line| line.trim().strip_prefix("THROUGHPUT="));
        figure.and_then(|figure| figure.parse().ok()).with_context(|| format!("netperf said: {text}"))
    }

    fn finish(self) -> Result<()> {
        self.server.kill();
        self.from.finish()?;
        self.to.finish()
    }
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

/// Runs the test against each baseline.
pub(super) fn run(bench: &Bench, test: &Test) -> Result<Vec<Finding>> {
    if process::find("netperf").is_none() || process::find("netserver").is_none() {
        return Err(skip("netperf is not installed: `cargo xtask setup` installs it"));
    }
    let fabric = Fabric::new()?;
    let ours = Link::new(bench, &fabric, Path::Dataplane, 1)?;
    let mut findings = Vec::new();
    for path in bench.baselines() {
        match against(bench, test, &fabric, &ours, path) {
            Ok(finding) => findings.push(finding),
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    ours.finish()?;
    Ok(findings)
}

fn against(bench: &Bench, test: &Test, fabric: &Fabric, ours: &Link, path: Path) -> Result<Finding> {
    let theirs = Link::new(bench, fabric, path, 3)?;
    let mut samples = Vec::new();
    for pair in 0..bench.pairs {
        let (a, b) = (ours.measure(bench, test)?, theirs.measure(bench, test)?);
        samples.push(Sample::pair(a, b));
        bench.progress(test.case, path.name(), pair, &format!("{a:.0} / {b:.0} {}", test.unit));
    }
    Ok(Finding::new(test.case, "across nodes", "rate", test.unit, samples).against(path.name()))
}
