//! `cargo xtask bench`: this data path and the kernel's own, measured in turn on the same topology.
//!
//! Each case is a module that gives its findings. What is compared is measured in pairs, A B A B, and the
//! ratios of the pairs are what counts: a machine's speed changes from minute to minute.

mod at_rest;
mod baseline;
mod churn;
mod compare;
mod feed;
mod finding;
mod flaps;
mod flood;
mod generator;
mod interrupt;
#[path = "../bench-ebpf/src/layout.rs"]
mod layout;
mod lookup;
mod lookups;
mod machine;
mod netperf;
mod new_endpoint;
mod new_flows;
mod pps;
#[path = "../bench-ebpf/src/query.rs"]
mod query;
mod report;
mod respect;
mod route_load;
mod sink;
mod site;
mod skip;
mod speaker;
mod target;
mod tcp_gateway;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use clap::ValueEnum;
use serde_json::Value;
use tests::harness::{Config, Daemon, Fabric, Node};

use crate::build::{self, Profile};
use crate::setup::{self, Need};
use crate::{bpf, process, workspace};
use baseline::Path;
use compare::Old;
use finding::Finding;
use interrupt::Interrupted;
use machine::{CpuTime, Machine};
use pps::Way;
use report::Report;
use site::Site;
use skip::{is_skip, skip};

/// Exit status of a program that SIGINT ended, by the shells' convention.
const INTERRUPTED: u8 = 130;

/// Exit status of `dataplane check` for a file with errors.
const REFUSED: i32 = 2;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Three pairs in place of five, shorter measurements, and of the baselines the first alone
    #[arg(long)]
    quick: bool,
    /// The case to run, more than once for several; all of them, without it
    #[arg(long, value_name = "NAME")]
    case: Vec<Case>,
    /// Write the findings to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare the ratios with an older run's, and fail if one got worse beyond the noise
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Measure against another build of `dataplane` in place of the kernel
    #[arg(long, value_name = "BINARY")]
    against: Option<PathBuf>,
    /// Print the rules that the baselines have, and measure nothing
    #[arg(long)]
    show_baselines: bool,
}

/// The cases, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// 64-byte UDP, 65,536 flows, from the fabric into a container, on one CPU
    PpsDeliver,
    /// The same from a container to the outside by MASQUERADE, and to other nodes without
    PpsEgress,
    /// The same from one uplink to another by MASQUERADE, with each `uplink-hook`
    PpsGateway,
    /// Packets to addresses that no container has, which are dropped, against the kernel's blackhole route
    PpsDrop,
    /// What a container's TCP keeps of its rate while such packets flood the uplink
    Flood,
    /// Translations that begin, each by one packet, and the memory that they take
    NewFlows,
    /// The same generator straight into the sink: what the harness itself costs
    Direct,
    /// Bulk transfer between containers, and through MASQUERADE (netperf TCP_STREAM)
    TcpStream,
    /// Requests and answers on one connection (netperf TCP_RR)
    TcpRr,
    /// Connections, each with one request and one answer (netperf TCP_CRR)
    TcpCrr,
    /// More connections in a row to one server outside than the container has ports, through MASQUERADE
    Churn,
    /// Requests and answers by datagrams (netperf UDP_RR)
    UdpRr,
    /// Bulk transfer, and connections with a request each, through a gateway, with each `uplink-hook`
    TcpGateway,
    /// Packets and netperf where the kernel decides (`netfilter = "respect"`)
    Respect,
    /// Cost of a packet with up to a million routes
    ScaleRoutes,
    /// Cost of a packet with up to 262,144 flows
    ScaleFlows,
    /// A route lookup in the data path's table and in BPF_MAP_TYPE_LPM_TRIE, and the memory of both
    Lookup,
    /// From a BGP peer's UPDATEs to the last route that packets take, against BIRD and the kernel
    RouteLoad,
    /// A thousand of a BGP peer's prefixes come and go every second, by the daemon and by BIRD
    Flaps,
    /// From a container's route to its first packet carried by BPF
    NewEndpoint,
    /// What the daemon takes while nothing happens
    AtRest,
}

impl Case {
    fn run(self, bench: &Bench) -> Result<Vec<Finding>> {
        match self {
            Self::PpsDeliver => pps::run(bench, Way::Deliver),
            Self::PpsEgress => {
                let found = pps::run(bench, Way::Masquerade)?;
                Ok([found, pps::run(bench, Way::Egress)?].concat())
            }
            Self::PpsGateway => pps::gateway::run(bench),
            Self::PpsDrop => pps::unknown::run(bench),
            Self::Flood => flood::run(bench),
            Self::NewFlows => new_flows::run(bench),
            Self::UdpRr => netperf::run(bench, &netperf::UDP_RR),
            Self::Direct => pps::direct(bench),
            Self::TcpStream => netperf::run(bench, &netperf::STREAM),
            Self::TcpRr => netperf::run(bench, &netperf::RR),
            Self::TcpCrr => netperf::run(bench, &netperf::CRR),
            Self::Churn => churn::run(bench),
            Self::TcpGateway => tcp_gateway::run(bench),
            Self::Respect => respect::run(bench),
            Self::ScaleRoutes => pps::scale::routes(bench),
            Self::ScaleFlows => pps::scale::flows(bench),
            Self::Lookup => lookup::run(bench),
            Self::RouteLoad => route_load::run(bench),
            Self::Flaps => flaps::run(bench),
            Self::NewEndpoint => new_endpoint::run(bench),
            Self::AtRest => at_rest::run(bench),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What every case is given.
struct Bench {
    /// The `dataplane` that is measured.
    binary: PathBuf,
    /// The build that it is compared with, in place of the kernel's ways.
    against: Option<PathBuf>,
    /// The generator's object.
    object: PathBuf,
    /// The object with the route lookups.
    lookups: PathBuf,
    /// Where everything that is compared runs.
    cpu: usize,
    /// Whether a short run was asked for.
    is_quick: bool,
    /// Pairs of measurements.
    pairs: usize,
    /// How long the generator runs for one figure. With what comes before it this stays below the 0.95 s in
    /// a row that the kernel gives real-time processes.
    slot: Duration,
    /// Lookups that are timed together.
    lookups_in_a_row: u32,
    /// Single routes that come and go.
    changes: usize,
    /// Containers that come up one after another: below 250.
    containers: u8,
    /// How long prefixes come and go.
    flapping: Duration,
    /// How long the idle daemon is watched.
    rest: Duration,
    attach_mode: RefCell<Option<String>>,
    modes: RefCell<Vec<String>>,
    skipped: RefCell<Vec<String>>,
    failed: RefCell<Vec<String>>,
    rules: RefCell<Vec<(String, String)>>,
}

/// Sets up, builds, measures and reports.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.show_baselines {
        show_baselines();
        return Ok(ExitCode::SUCCESS);
    }
    if !process::is_root() {
        bail!(
            "the benchmarks load BPF programs and make network namespaces, which needs root: run `{}`",
            setup::as_root("bench")
        );
    }
    setup::ensure(&[Need::Build])?;
    if let Err(error) = setup::ensure(&[Need::Bench]) {
        eprintln!("warning: {error:#}; what needs it is left out");
    }
    let old = args.compare.as_deref().map(Old::read).transpose()?;
    let bench = Bench::new(args, machine::measuring_cpu()?)?;
    let machine = Machine::look()?;
    interrupt::catch()?;
    let begin = CpuTime::now()?;
    let findings = bench.run(&args.case);
    let report = Report {
        cpu: bench.cpu,
        machine,
        command: command_line(),
        attach_mode: bench.attach_mode.take(),
        modes: bench.modes.take(),
        stolen: CpuTime::now()?.stolen_since(begin),
        findings,
        skipped: bench.skipped.take(),
        failed: bench.failed.take(),
        rules: bench.rules.take(),
    };
    report.print();
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    println!("{}", report.write_page(&workspace::target_dir()?.join("bench"))?.display());
    if interrupt::came() {
        eprintln!("interrupted: what was measured until then is above, and everything is taken down");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let mut is_failure = report.findings.is_empty() || !report.failed.is_empty();
    if let Some(old) = old {
        let comparison = old.compare(&report.machine, &report.findings);
        comparison.lines.iter().for_each(|line| println!("{line}"));
        is_failure |= comparison.is_failure;
    }
    Ok(if is_failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The command as it was typed.
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| process::quote(&word));
    ["cargo xtask".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

impl Bench {
    fn new(args: &Args, cpu: usize) -> Result<Self> {
        let quick = args.quick;
        let canonical =
            |path: &PathBuf| fs::canonicalize(path).with_context(|| format!("no {}", path.display()));
        let objects = bpf::build_bench_objects()?;
        Ok(Self {
            binary: build::binary(Profile::Release)?,
            against: args.against.as_ref().map(canonical).transpose()?,
            object: objects.join(bpf::BENCH_PACKAGE),
            lookups: objects.join("lookup"),
            cpu,
            is_quick: quick,
            changes: if quick { 10 } else { 50 },
            pairs: if quick { 3 } else { 5 },
            slot: Duration::from_millis(if quick { 120 } else { 600 }),
            lookups_in_a_row: if quick { 1 << 18 } else { 1 << 20 },
            containers: if quick { 20 } else { 50 },
            flapping: Duration::from_secs(if quick { 1 } else { 60 }),
            rest: Duration::from_secs(if quick { 2 } else { 10 }),
            attach_mode: RefCell::default(),
            modes: RefCell::default(),
            skipped: RefCell::default(),
            failed: RefCell::default(),
            rules: RefCell::default(),
        })
    }

    /// Runs the cases, all of them if none is named; one that fails is reported, and the rest still runs.
    fn run(&self, cases: &[Case]) -> Vec<Finding> {
        let cases = if cases.is_empty() { Case::value_variants() } else { cases };
        let mut findings = Vec::new();
        for case in cases {
            match case.run(self) {
                Ok(found) => findings.extend(found),
                Err(error) => {
                    if self.leave_out(&case.name(), error).is_err() {
                        break;
                    }
                }
            }
        }
        findings
    }

    /// Notes what did not run; an error only where the user gave up the whole run.
    fn leave_out(&self, what: &str, error: Error) -> Result<()> {
        if interrupt::came() {
            bail!(Interrupted);
        }
        let (list, word) =
            if is_skip(&error) { (&self.skipped, "skipped") } else { (&self.failed, "failed") };
        let line = format!("{what}: {error:#}");
        eprintln!("{word}: {line}");
        // What several cases lack is told once.
        if !list.borrow().contains(&line) {
            list.borrow_mut().push(line);
        }
        Ok(())
    }

    /// What the data path is compared with.
    fn baselines(&self) -> &'static [Path] {
        if self.against.is_some() {
            &[Path::Build]
        } else if self.is_quick {
            // The one that counts.
            &Path::KERNEL[..1]
        } else {
            &Path::KERNEL
        }
    }

    fn daemon(&self, binary: &std::path::Path, node: &Node, config: &Config) -> Result<Daemon> {
        let mut daemon = Daemon::prepare_binary(node, config, binary.to_owned())?;
        self.launch(&mut daemon)?;
        Ok(daemon)
    }

    /// Starts the daemon, and notes how its programs are attached to tc.
    ///
    /// A file that it refuses is a skip: an older program, or a kernel that cannot do what is asked.
    fn launch(&self, daemon: &mut Daemon) -> Result<()> {
        if let Err(error) = daemon.launch() {
            let file = daemon.config_file();
            let check = daemon.cli_output(&["check", "--config", &file.to_string_lossy()]);
            let said = check.stderr.lines().chain(check.stdout.lines()).next().unwrap_or_default();
            return Err(if check.code() == Some(REFUSED) {
                skip(format!("the daemon refuses its file: {said}"))
            } else {
                error
            });
        }
        let status: Value = daemon.cli(&["status", "--json"])?;
        let modes = status["hooks"].as_array().into_iter().flatten().filter_map(|hook| hook["mode"].as_str());
        if let Some(mode) = modes.into_iter().find(|mode| *mode != "xdp") {
            self.attach_mode.replace(Some(mode.to_owned()));
        }
        Ok(())
    }

    fn site(&self, fabric: &Fabric, path: Path, number: u8, others: &[u8]) -> Result<Site> {
        let site = Site::new(self, fabric, path, number, others)?;
        if !self.rules.borrow().iter().any(|(name, _)| name == path.name())
            && let Some(rules) = path.installed(&site.node)?
        {
            self.rules.borrow_mut().push((path.name().to_owned(), rules));
        }
        Ok(site)
    }

    /// Notes where a case's programs ran.
    fn note_mode(&self, line: &str) {
        self.modes.borrow_mut().push(line.to_owned());
    }

    /// Says that a pair is measured.
    fn progress(&self, case: &str, baseline: &str, pair: usize, figures: &str) {
        self.say(case, &format!("{baseline} {} of {}: {figures}", pair + 1, self.pairs));
    }

    fn say(&self, case: &str, text: &str) {
        eprintln!("{case}: {text}");
    }
}

fn show_baselines() {
    for path in Path::KERNEL {
        println!("# {}", path.name());
        match path.rules(&["cali1"]) {
            rules if rules.is_empty() => println!("# the kernel's routes alone\n"),
            rules => println!("{rules}"),
        }
    }
}
