//! What TCP between two containers keeps of its rate while packets for nobody come by an uplink of their node, faster
//! than the kernel can drop them.
//!
//! The flood is made on one CPU. On another one a thread of the kernel takes it from the uplink (threaded NAPI), beside
//! both ends of the TCP connection: an ordinary task that has its turn as they have, which is what the kernel makes of a
//! network card's interrupts when there are too many (ksoftirqd).

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use tests::harness::{Fabric, Namespace};

use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::generator::Generator;
use super::netperf;
use super::pps::gateway::HOOKS;
use super::pps::unknown::{self, BLACKHOLES};
use super::sink::Sink;
use super::site::{Site, port_of};
use super::skip::skip;
use super::{Bench, interrupt, machine};
use crate::process;

const CASE: &str = "flood";

/// How much faster than the kernel the packets come.
const TOO_FAST: f64 = 1.25;

/// Frames of one run of the generator, of which most are not due: a quarter of a second or less.
const CHUNK: u32 = 1 << 21;

/// Nanoseconds between packets that disturb nobody.
const CALM: u64 = 10_000_000;

/// How long the flood lasts before a measurement.
const SETTLE: Duration = Duration::from_millis(100);

/// The least that can be done with a packet where it comes in: what no data path can do better than.
const LEAST: &str = "XDP_DROP alone";

/// A node with two containers that talk, and the flood for it.
struct Victim<'a> {
    /// What drops the flood where neither the data path nor the kernel does.
    _sink: Option<Sink<'static>>,
    site: Site,
    number: u8,
    flood: Generator<'a>,
    _server: tests::harness::Process,
}

impl<'a> Victim<'a> {
    fn new(bench: &Bench, fabric: &'a Fabric, path: Path, hook: &str, number: u8) -> Result<Self> {
        let site = unknown::site(bench, fabric, path, hook, number, true)?;
        poll_by_thread(&site.node, bench.cpu)?;
        let server = netperf::serve_among_equals(bench, &site.container)?;
        let port = port_of(fabric, &site.node)?;
        let flood = Generator::new(&bench.object, fabric, &port, other_cpu(bench))?;
        Ok(Self { _sink: None, site, number, flood, _server: server })
    }

    /// One whose uplink drops all that comes.
    fn deaf(bench: &Bench, fabric: &'a Fabric, number: u8) -> Result<Self> {
        let victim = Self::new(bench, fabric, Path::Route, "", number)?;
        let sink = Sink::in_xdp(&bench.object, &victim.site.node, "eth0")?;
        Ok(Self { _sink: Some(sink), ..victim })
    }

    /// Share of the connection's undisturbed rate, in percent, that it keeps while a packet comes every `interval`
    /// nanoseconds.
    fn share(&mut self, bench: &Bench, interval: u64) -> Result<f64> {
        // The generator runs in any case: it takes from the other CPU what both have in common.
        let undisturbed = self.rate_under(bench, CALM)?;
        Ok(100.0 * self.rate_under(bench, interval)? / undisturbed)
    }

    /// The connection's rate meanwhile.
    fn rate_under(&mut self, bench: &Bench, interval: u64) -> Result<f64> {
        interrupt::check()?;
        self.flood.pace(&unknown::flows(&self.site.node, self.number)?, interval)?;
        let address = self.site.container.address.to_string();
        let sender = self.site.second.as_ref().context("the site has one container")?;
        let flood = &self.flood;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flooding = scope.spawn(|| -> Result<f64> {
                let begin = Instant::now();
                while !is_over.load(Ordering::Relaxed) {
                    flood.run(CHUNK)?;
                }
                Ok(flood.sent()? as f64 / begin.elapsed().as_secs_f64())
            });
            thread::sleep(SETTLE);
            let rate = netperf::stream_among_equals(bench, sender, &address);
            is_over.store(true, Ordering::Relaxed);
            let sent = flooding.join().map_err(|_| anyhow!("the flooding thread panicked"))??;
            let wanted = 1e9 / interval as f64;
            ensure!(
                sent > 0.5 * wanted,
                "the flood came to {sent:.0} of {wanted:.0} packets/s: the machine is too busy"
            );
            rate
        })
    }
}

/// With `uplink-hook` tc and xdp, against the kernel's ways.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    if bench.against.is_some() {
        return Err(skip("it compares with the kernel alone, and not with another build"));
    }
    if bench.cpu == 0 {
        return Err(skip("the flood needs a CPU of its own beside that of the node: this machine has one"));
    }
    netperf::require()?;
    let fabric = Fabric::new()?;
    let limit = capacity(bench, &fabric)?;
    let interval = (1e9 / (limit * TOO_FAST)) as u64;
    bench.say(
        CASE,
        &format!("the kernel drops {:.2} M packets/s; {:.2} M come", limit / 1e6, 1e3 / interval as f64),
    );
    let mut ours = Vec::new();
    for (hook, number) in HOOKS.into_iter().zip(1..).filter(|(hook, _)| *hook != "auto") {
        match Victim::new(bench, &fabric, Path::Dataplane, hook, number) {
            Ok(victim) => ours.push((hook, victim)),
            Err(error) => bench.leave_out(&format!("{CASE}, {hook}"), error)?,
        }
    }
    let mut findings = Vec::new();
    // What is lost whatever a program does: the uplink's thread takes each packet and gives its memory back.
    let least = Victim::deaf(bench, &fabric, 23);
    match least.and_then(|least| compare(bench, LEAST, &mut ours, least, interval)) {
        Ok(found) => findings.extend(found),
        Err(error) => bench.leave_out(&format!("{CASE} against {LEAST}"), error)?,
    }
    for (path, baseline) in BLACKHOLES {
        if bench.is_quick && path == Path::Iptables {
            continue;
        }
        let theirs = Victim::new(bench, &fabric, path, "", 20);
        match theirs.and_then(|theirs| compare(bench, baseline, &mut ours, theirs, interval)) {
            Ok(found) => findings.extend(found),
            Err(error) => bench.leave_out(&format!("{CASE} against {baseline}"), error)?,
        }
    }
    ours.into_iter().try_for_each(|(_, victim)| victim.site.finish())?;
    Ok(findings)
}

fn compare(
    bench: &Bench,
    baseline: &str,
    ours: &mut [(&str, Victim<'_>)],
    mut theirs: Victim<'_>,
    interval: u64,
) -> Result<Vec<Finding>> {
    let mut samples = vec![Vec::new(); ours.len()];
    for pair in 0..bench.pairs {
        let shares: Vec<f64> =
            ours.iter_mut().map(|(_, victim)| victim.share(bench, interval)).collect::<Result<_>>()?;
        let theirs = theirs.share(bench, interval)?;
        let mut text = String::new();
        for ((samples, share), (hook, _)) in samples.iter_mut().zip(shares).zip(&*ours) {
            samples.push(Sample::pair(share, theirs));
            text += &format!("{hook} {share:.0} / ");
        }
        bench.progress(CASE, baseline, pair, &format!("{text}{theirs:.0} % kept"));
    }
    theirs.site.finish()?;
    let findings = ours.iter().zip(samples).map(|((hook, _), samples)| {
        Finding::new(CASE, format!("TCP between containers, {hook}"), "share", "%", samples).against(baseline)
    });
    Ok(findings.collect())
}

/// Packets for nobody that the kernel's blackhole route can take in a second, if nothing else is to be done.
fn capacity(bench: &Bench, fabric: &Fabric) -> Result<f64> {
    let (path, name) = BLACKHOLES[0];
    let site = unknown::site(bench, fabric, path, "", 21, false)?;
    let plain = bench.site(fabric, Path::Route, 22, &[])?;
    let all = unknown::lane(bench, fabric, &site, 21, name)?.rate(bench.slot)?;
    let harness = unknown::direct(bench, fabric, &plain, 22)?.rate(bench.slot)?;
    let cost = 1.0 / all - 1.0 / harness;
    ensure!(cost > 0.0, "dropping costs less than nothing: the machine is too busy");
    Ok(1.0 / cost)
}

/// A CPU for the flood.
fn other_cpu(bench: &Bench) -> usize {
    bench.cpu - 1
}

/// Has the node's uplink polled by a thread of the kernel (Documentation/networking/napi.rst), on that CPU.
fn poll_by_thread(node: &Namespace, cpu: usize) -> Result<()> {
    let before = pollers()?;
    // `ip netns exec` shows the namespace's own /sys/class/net.
    let name = node.name();
    let command = "echo 1 > /sys/class/net/eth0/threaded";
    process::run(Command::new("ip").args(["netns", "exec", name, "sh", "-c", command]))
        .map_err(|error| skip(format!("this kernel does not poll by a thread (Linux 5.12): {error:#}")))?;
    let after = pollers()?;
    let new: Vec<u32> = after.into_iter().filter(|pid| !before.contains(pid)).collect();
    ensure!(!new.is_empty(), "no thread polls the uplink of {name}");
    new.into_iter().try_for_each(|pid| machine::put_among_equals(pid, cpu))
}

/// The kernel's threads that poll interfaces of that name in any namespace.
fn pollers() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end meanwhile.
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
        if name.starts_with("napi/eth0-") {
            found.push(pid);
        }
    }
    Ok(found)
}
