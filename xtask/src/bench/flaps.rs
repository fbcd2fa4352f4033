//! Prefixes of a BGP peer that come and go without end: what that costs, what it leaves, and whether anything is lost.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::finding::{Finding, Sample};
use super::lookup::PREFIXES;
use super::lookups::Lookup;
use super::speaker::{Learner, Network, Session};
use super::{Bench, interrupt, machine};

const CASE: &str = "flaps";
const BASELINE: &str = "BIRD";

/// Prefixes that stay.
const STAYING: u32 = 10_000;
/// Prefixes that come and go, those after them: each once a second, half of which it is away.
const FLAPPING: u32 = 1_000;
/// Flaps in a second, each one UPDATE that withdraws and one that announces.
const RATE: u32 = 1_000;
/// Routers by which a prefix comes back, in turn.
const ROUTERS: u32 = 250;

/// Which part of the time is over when memory is looked at for the first time: buffers have their sizes then.
const WARM_UP: u32 = 6;
/// How long what was told last may take to be there.
const LIMIT: Duration = Duration::from_secs(10);

/// What a learner made of it.
struct Flapped {
    /// Flaps a second that it took.
    rate: f64,
    /// Milliseconds of a CPU in each second.
    cpu: f64,
    /// Bytes that it occupies at the end.
    resident: f64,
    /// Bytes that it occupies more than after the warm-up.
    growth: f64,
    /// Prefixes that in the end are not as they were told.
    lost: u32,
}

/// The daemon with and without the kernel's table, and BIRD.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let alone = flap(bench, "data path", |network| Ok(Learner::Daemon(network.daemon(bench, false)?)))?;
    let both =
        flap(bench, "with kernel-routes", |network| Ok(Learner::Daemon(network.daemon(bench, true)?)))?;
    let bird = flap(bench, BASELINE, |network| Ok(Learner::Bird(network.bird()?)))?;
    let mut findings = Vec::new();
    for (variant, ours) in [("data path", &alone), ("with kernel-routes", &both)] {
        let mut add = |metric, unit, figure| {
            let samples = vec![Sample::alone(figure)];
            findings.push(Finding::new(CASE, variant, metric, unit, samples));
        };
        add("rate", "flaps/s", ours.rate);
        add("lost", "prefixes", f64::from(ours.lost));
        add("growth", "kB", ours.growth / 1e3);
        let cpu = vec![Sample::pair(ours.cpu, bird.cpu)];
        findings.push(Finding::new(CASE, variant, "cpu-time", "ms/s", cpu).against(BASELINE));
        let resident = vec![Sample::pair(ours.resident / 1e6, bird.resident / 1e6)];
        findings.push(Finding::new(CASE, variant, "resident-memory", "MB", resident).against(BASELINE));
    }
    Ok(findings)
}

fn flap(bench: &Bench, who: &str, learner: impl FnOnce(&Network) -> Result<Learner>) -> Result<Flapped> {
    let network = Network::new()?;
    let learner = learner(&network)?;
    let kernel = Lookup::EachInKernel(network.node.ifindex("eth0")?);
    // Where every prefix must be.
    let tables = match who {
        BASELINE => vec![kernel],
        "data path" => vec![Lookup::EachInTrie],
        _ => vec![Lookup::EachInTrie, kernel],
    };
    let pid = match &learner {
        Learner::Daemon(daemon) => daemon.process(),
        Learner::Bird(bird) => bird.process(),
    };
    let pid = pid.context("nobody runs")?.pid();
    let mut session = Session::new(bench, &network, learner)?;
    session.load(STAYING + FLAPPING)?;

    bench.say(CASE, &format!("{who}: {RATE} flaps a second for {} s", bench.flapping.as_secs()));
    let flaps = RATE * u32::try_from(bench.flapping.as_secs())?;
    let (begin, mut warm) = (Instant::now(), None);
    for number in 0..flaps {
        let due = Duration::from_secs(1) * number / RATE;
        if let Some(early) = due.checked_sub(begin.elapsed()) {
            interrupt::check()?;
            thread::sleep(early);
        }
        if number == flaps / WARM_UP {
            warm = Some((Instant::now(), session.resident()?, machine::cpu_time(pid)?));
        }
        session.feed.say(&withdrawal(number % FLAPPING))?;
        if let Some(back) = number.checked_sub(FLAPPING / 2) {
            session.feed.say(&announcement(back))?;
        }
    }
    let rate = f64::from(flaps) / begin.elapsed().as_secs_f64();
    let (since, resident_before, cpu_before) = warm.context("no time to warm up")?;
    let cpu = (machine::cpu_time(pid)? - cpu_before).as_secs_f64() * 1e3 / since.elapsed().as_secs_f64();
    let lost = lost(&mut session, &tables, flaps)?;
    let resident = session.resident()?;
    session.finish()?;
    let growth = resident - resident_before;
    bench.say(
        CASE,
        &format!("{who}: {rate:.0} flaps/s, {cpu:.0} ms/s, {:.0} kB more, {lost} lost", growth / 1e3),
    );
    Ok(Flapped { rate, cpu, resident, growth, lost })
}

fn withdrawal(flapping: u32) -> Vec<u8> {
    PREFIXES.withdrawal(STAYING + flapping..STAYING + flapping + 1)
}

/// The prefix of that flap comes back, by another router each time.
fn announcement(flap: u32) -> Vec<u8> {
    let prefix = STAYING + flap % FLAPPING;
    let router = [10, 141, 1, 1 + (flap % (ROUTERS - 1)) as u8];
    PREFIXES.announcement(prefix..prefix + 1, router.into())
}

/// Waits until all prefixes are as they were told: those of the last half second are away. How many are not.
fn lost(session: &mut Session<'_>, tables: &[Lookup], flaps: u32) -> Result<u32> {
    ensure!(flaps.is_multiple_of(FLAPPING), "no whole rounds");
    let lookups = session.table().0;
    let begin = Instant::now();
    loop {
        interrupt::check()?;
        let mut wrong = 0;
        for &table in tables {
            wrong += STAYING - lookups.present(table, STAYING)?;
            for number in 0..FLAPPING {
                let is_there = lookups.is_present(table, STAYING + number)?;
                wrong += u32::from(is_there != (number < FLAPPING / 2));
            }
        }
        if wrong == 0 || begin.elapsed() > LIMIT {
            return Ok(wrong);
        }
    }
}
