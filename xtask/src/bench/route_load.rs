//! From the first UPDATE of a BGP peer to the last route that packets take, against BIRD and the kernel's table.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::finding::{Finding, Sample, Spread};
use super::lookup::PREFIXES;
use super::speaker::{Learner, Network, Session};
use super::{Bench, interrupt};

const CASE: &str = "route-load";
const BASELINE: &str = "BIRD";

/// How many prefixes the peer has.
const SIZES: [u32; 3] = [10_000, 100_000, 1_000_000];

/// Who learns.
#[derive(Clone, Copy)]
enum Who {
    Ours,
    Bird,
}

/// What one of them made of it.
struct Loaded {
    time: Duration,
    /// Bytes that the learner occupied more than before, for each prefix.
    memory: f64,
    /// Milliseconds that a single change took, the median of some.
    change: f64,
}

/// For each number of prefixes.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for size in SIZES {
        if bench.is_quick && size == SIZES[0] {
            continue;
        }
        let at = u64::from(size);
        // Of a million, one pair is most of a short run.
        let pairs = if bench.is_quick && size == SIZES[2] { 1 } else { bench.pairs };
        let (mut times, mut rates, mut memories, mut changes) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs {
            let (a, b) = (load(bench, Who::Ours, size)?, load(bench, Who::Bird, size)?);
            let rate = |loaded: &Loaded| f64::from(size) / loaded.time.as_secs_f64();
            times.push(Sample::pair(a.time.as_secs_f64(), b.time.as_secs_f64()));
            rates.push(Sample::pair(rate(&a), rate(&b)));
            memories.push(Sample::pair(a.memory, b.memory));
            changes.push(Sample::pair(a.change, b.change));
            let text = format!(
                "{size} prefixes, {} of {pairs}: {:.3} / {:.3} s",
                pair + 1,
                a.time.as_secs_f64(),
                b.time.as_secs_f64()
            );
            bench.say(CASE, &text);
        }
        let finding = |variant, metric, unit, samples| {
            Finding::new(CASE, variant, metric, unit, samples).against(BASELINE).at(at)
        };
        findings.push(finding("all at once", "time", "s", times));
        findings.push(finding("all at once", "rate", "prefixes/s", rates));
        findings.push(finding("all at once", "memory", "bytes/prefix", memories));
        findings.push(finding("one change", "time-to-packets", "ms", changes));
    }
    Ok(findings)
}

fn load(bench: &Bench, who: Who, size: u32) -> Result<Loaded> {
    interrupt::check()?;
    let network = Network::new()?;
    let learner = match who {
        Who::Ours => Learner::Daemon(network.daemon(bench, false)?),
        Who::Bird => Learner::Bird(network.bird()?),
    };
    let mut session = Session::new(bench, &network, learner)?;
    let before = session.resident()?;
    let time = session.load(size)?;
    let memory = (session.resident()? - before) / f64::from(size);
    // One more than all comes, and goes.
    let announcement = PREFIXES.announcement(size..size + 1, session.feed.address);
    let withdrawal = PREFIXES.withdrawal(size..size + 1);
    let mut changes = Vec::new();
    for _ in 0..bench.changes {
        changes.push(session.change(&announcement, size, true)?.as_secs_f64() * 1e3);
        changes.push(session.change(&withdrawal, size, false)?.as_secs_f64() * 1e3);
    }
    session.finish()?;
    let change = Spread::of(changes).context("no route was changed")?.median;
    Ok(Loaded { time, memory, change })
}
