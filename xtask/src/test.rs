//! `cargo xtask test`: every tier of tests, and what they came to.
//!
//! Everything is compiled in the release profile, by one cargo call with one set of features: the binary under
//! test is what is installed, and on two cores compiling the dependencies twice would be the longest part of
//! a run. (The profile checks for overflow, as the tests' own would.)

mod build;
mod counts;
mod skips;
mod summary;
mod tier;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Need};
use crate::{process, vm, workspace};
use build::TestProgram;
pub(crate) use build::{Built, build};
pub(crate) use counts::{Counts, Tally};
pub(crate) use skips::Skip;
pub(crate) use summary::{Outcome, close};
use tier::{Run, Tier};

/// Which tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tier to run; all that there are, without it
    tier: Option<Tier>,
    /// In the tier `vm` every test of `prog` and `netns`, which takes an hour, and not only the chosen ones
    #[arg(long)]
    all: bool,
    /// Arguments for the test programs, such as a part of the tests' names
    #[arg(last = true)]
    libtest: Vec<String>,
}

/// Sets up, builds, runs the tiers, and closes with the counts.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tiers: Vec<Tier> = args.tier.map_or_else(|| Tier::EVERY.to_vec(), |tier| vec![tier]);
    demand_root(&tiers)?;
    let interop = tiers.contains(&Tier::Interop).then_some(Need::Interop);
    setup::ensure(&[Need::Build, Need::Test].into_iter().chain(interop).collect::<Vec<_>>())?;
    let built = build()?;
    let mut outcomes = Vec::new();
    for tier in tiers {
        if tier == Tier::Vm {
            println!("tier vm");
            outcomes.extend(vm::outcomes(&built, args.all, &args.libtest)?);
        } else {
            outcomes.push(run_tier(tier, &built, &args.libtest)?);
        }
    }
    Ok(close(&outcomes))
}

/// Said before minutes of compiling, not after.
fn demand_root(tiers: &[Tier]) -> Result<()> {
    let needing: Vec<String> =
        tiers.iter().filter(|tier| tier.needs_root()).map(|tier| tier.name()).collect();
    if needing.is_empty() || process::is_root() {
        return Ok(());
    }
    bail!(
        "these tiers load BPF programs and make network namespaces, which needs root: {}; run `{}`, or `cargo \
         xtask test unit` for what needs none",
        needing.join(", "),
        setup::as_root("test")
    )
}

fn run_tier(tier: Tier, built: &Built, libtest: &[String]) -> Result<Outcome> {
    println!("tier {}", tier.name());
    let log = skips::Log::new(&workspace::target_dir()?.join("xtask"), &tier.name())?;
    let begin = Instant::now();
    let mut tally = Tally::default();
    let mut succeeded = true;
    for run in tier.runs() {
        for (package, target) in run.programs {
            for program in built.programs(package, target)? {
                succeeded &= pass_through(&mut tests(program, run, built, libtest, log.path()), &mut tally)?;
            }
        }
    }
    Ok(Outcome::new(tier.name(), tally.counts(), log.read()?, succeeded, begin.elapsed()))
}

/// The call of a test program, as cargo would make it.
fn tests(program: &TestProgram, run: &Run, built: &Built, libtest: &[String], skips: &Path) -> Command {
    println!("{}: {}", program.package, program.target);
    // An argument `--test-threads` prevails.
    let threads = run.threads_of_a_processor * thread::available_parallelism().map_or(1, usize::from);
    let mut tests = Command::new(&program.path);
    tests
        // Names that are given stand for those of the run.
        .args(run.libtest.iter().filter(|argument| libtest.is_empty() || argument.starts_with("--")))
        .args(libtest)
        .env("RUST_TEST_THREADS", threads.to_string())
        .envs(run.environment.iter().copied())
        .current_dir(workspace::root().join(&program.package))
        .env("DATAPLANE_BIN", &built.binary)
        .env("DATAPLANE_NEXT_LAYOUT_BIN", &built.next_layout)
        .env(skips::LOG_VARIABLE, skips);
    tests
}

/// Runs the tests with their output on ours as it comes, and counts along.
fn pass_through(tests: &mut Command, tally: &mut Tally) -> Result<bool> {
    let shown = process::show(tests);
    let mut child = tests
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let mut output = child.stdout.take().context("cargo has no standard output")?;
    let mut chunk = [0; 8192];
    loop {
        let length = output.read(&mut chunk).with_context(|| format!("cannot read from `{shown}`"))?;
        if length == 0 {
            break;
        }
        tally.take(&chunk[..length]);
        // Flushed, so that a test that hangs has its name on the screen.
        let mut ours = std::io::stdout().lock();
        ours.write_all(&chunk[..length])
            .and_then(|()| ours.flush())
            .context("cannot write to standard output")?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    Ok(status.success())
}
