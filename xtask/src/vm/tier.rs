//! The tier `vm`: the chosen tests on the oldest and the newest kernel, at the same time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use super::machine::{Accelerator, Machine};
use super::report::Report;
use super::selection::Selection;
use super::{TESTS_LIMIT, matrix, suite, version};
use crate::setup::{self, Need};
use crate::test::{Built, Counts, Outcome};

/// How long the chosen tests may take on a kernel.
const CHOSEN_LIMIT: Duration = Duration::from_secs(1800);
/// Memory of each machine.
const MEMORY_MIB: u32 = 2048;

/// Runs the tier. A kernel that cannot be had here is skipped, with the reason.
pub(crate) fn outcomes(built: &Built, everything: bool, libtest: &[String]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut kernels = Vec::new();
    for wanted in matrix::TIER {
        match setup::ensure(&[Need::Vm]).and_then(|()| Kernel::find(wanted, false)) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => outcomes.push(Outcome::skipped(format!("vm {wanted}"), &format!("{error:#}"))),
        }
    }
    let Some(first) = kernels.first() else { return Ok(outcomes) };
    let accelerator = Accelerator::find(first)?;
    let selection = if everything { Selection::Everything } else { Selection::of_the_tier(accelerator) };
    let machine = Machine {
        accelerator,
        processors: share(kernels.len())?,
        memory_mib: MEMORY_MIB,
        limit: if everything { TESTS_LIMIT } else { CHOSEN_LIMIT },
    };
    let runs = together(&kernels, &machine, built, selection, libtest)?;
    Ok(outcomes.into_iter().chain(runs.into_iter().map(|(outcome, _)| outcome)).collect())
}

/// Of this machine's processors, the share of one of so many that run at the same time.
pub(super) fn share(machines: usize) -> Result<u32> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    Ok(u32::try_from((processors / machines.max(1)).max(1))?)
}

/// Runs the tests on all of the kernels at the same time: [`outcome`] for each.
pub(super) fn together(
    kernels: &[Kernel],
    machine: &Machine,
    built: &Built,
    selection: Selection,
    libtest: &[String],
) -> Result<Vec<(Outcome, Report)>> {
    thread::scope(|scope| {
        let run = |kernel: &Kernel| {
            let mut lines = Prefixed::new(format!("{} | ", version::series(&kernel.release)));
            outcome(kernel, machine, built, selection, libtest, &mut |piece| lines.print(piece))
        };
        let runs: Vec<_> = kernels.iter().map(|kernel| scope.spawn(move || run(kernel))).collect();
        let join =
            |run: thread::ScopedJoinHandle<'_, _>| run.join().ok().context("a machine's thread panicked")?;
        runs.into_iter().map(join).collect()
    })
}

/// Runs the tests on a kernel: what they came to, and what was reported. A machine that does not come to its end is a
/// failure, and so is a skip that nothing excuses.
pub(super) fn outcome(
    kernel: &Kernel,
    machine: &Machine,
    built: &Built,
    selection: Selection,
    libtest: &[String],
    print: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<(Outcome, Report)> {
    let name = format!("vm {}", version::series(&kernel.release));
    eprintln!("vm: the tests on Linux {} ({} processors)", kernel.release, machine.processors);
    let begin = Instant::now();
    let tested = match suite::run(kernel, machine, built, selection, libtest, print) {
        Ok(tested) => tested,
        Err(error) => {
            eprintln!("vm: {error:#}");
            let outcome = Outcome::new(name, Counts::default(), Vec::new(), false, begin.elapsed());
            return Ok((outcome, Report::default()));
        }
    };
    let mut counts = tested.counts;
    for skip in tested.skips.iter().filter(|skip| !matrix::excuses(&kernel.release, skip)) {
        eprintln!("vm: Linux {} could run {}, which was skipped: {}", kernel.release, skip.test, skip.reason);
        counts.failed += 1;
    }
    let succeeded = tested.report.status == Some(0) && counts.failed == 0;
    Ok((Outcome::new(name, counts, tested.skips, succeeded, begin.elapsed()), tested.report))
}

/// Prints whole lines behind a prefix, so that two machines' do not mix.
struct Prefixed {
    prefix: String,
    /// The line that has begun.
    line: Vec<u8>,
}

impl Prefixed {
    fn new(prefix: String) -> Self {
        Self { prefix, line: Vec::new() }
    }

    fn print(&mut self, piece: &[u8]) -> Result<()> {
        for line in self.take(piece) {
            super::print(&line)?;
        }
        Ok(())
    }

    /// The lines that are complete now.
    fn take(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for &byte in piece {
            self.line.push(byte);
            if byte == b'\n' {
                lines.push([self.prefix.as_bytes(), &self.line].concat());
                self.line.clear();
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_printed_when_it_is_whole() {
        let mut lines = Prefixed::new("6.1 | ".to_owned());
        assert_eq!(lines.take(b"test a ... "), Vec::<Vec<u8>>::new());
        assert_eq!(lines.take(b"ok\n\ntest"), [b"6.1 | test a ... ok\n".to_vec(), b"6.1 | \n".to_vec()]);
    }
}
