//! Nanoseconds per route lookup, and the table's memory, by number of routes.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::feed::Prefixes;
use super::finding::{Finding, Sample};
use super::lookups::{self, Lookup};
use super::speaker::{Learner, Network, Session};
use super::{Bench, interrupt};

const CASE: &str = "lookup";
const BASELINE: &str = "LPM_TRIE";

/// How many prefixes there are, one number after the other.
const SIZES: [u32; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Calico's blocks, in a row.
pub(super) const PREFIXES: Prefixes = Prefixes { first: Ipv4Addr::new(64, 0, 0, 0), length: 26 };

/// The daemon's own table, filled by a BGP peer, against the kernel's trie with the same prefixes.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let network = Network::new()?;
    let mut session = Session::new(bench, &network, Learner::Daemon(network.daemon(bench, false)?))?;
    let mut findings = Vec::new();
    let mut known = 0;
    for size in SIZES {
        if bench.is_quick && SIZES[2..5].contains(&size) {
            continue;
        }
        session.feed.say(&PREFIXES.announcement(known..size, session.feed.address))?;
        let (lookups, daemon) = session.table();
        lookups.fill_lpm(known..size)?;
        known = size;
        lookups.await_all(Lookup::EachInTrie, size)?;
        let mut samples = Vec::new();
        for _ in 0..bench.pairs {
            interrupt::check()?;
            let mut time = |lookup| lookups.time(lookup, size, bench.lookups_in_a_row, bench.cpu);
            let (trie, lpm, loop_itself) = (time(Lookup::Trie)?, time(Lookup::Lpm)?, time(Lookup::Nothing)?);
            samples.push(Sample::pair(trie - loop_itself, lpm - loop_itself));
        }
        let finding = Finding::new(CASE, "random hits", "time", "ns/lookup", samples).against(BASELINE);
        if let (Some(a), Some(b)) = (finding.dataplane(), finding.baseline()) {
            bench.say(CASE, &format!("{size} prefixes: {:.1} / {:.1} ns", a.median, b.median));
        }
        findings.push(finding.at(size.into()));
        let table = lookups::table_bytes(daemon.context("no daemon")?)? / 1e6;
        let sample = Sample::pair(table, lookups.lpm_bytes()? / 1e6);
        let finding = Finding::new(CASE, "the table", "memory", "MB", vec![sample]);
        findings.push(finding.against(BASELINE).at(size.into()));
    }
    session.finish()?;
    Ok(findings)
}
