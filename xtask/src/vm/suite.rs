//! The tests on another kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::image::Image;
use super::kernel::Kernel;
use super::machine::{Accelerator, Machine, Output};
use super::report::Report;
use super::selection::{PROGRAMS, Selection};
use crate::process;
use crate::test::{Built, Counts, Skip, Tally};

/// Where the test programs are on the machine.
const DIRECTORY: &str = "/tests";
/// Where the program with another layout is.
const NEXT_LAYOUT: &str = "/usr/lib/dataplane-next-layout";
/// Packets that the fuzz tests make: the million of a run on the host would take hours.
const FUZZ_PACKETS: u32 = 20_000;

/// What the tests came to.
pub(super) struct Tested {
    pub(super) counts: Counts,
    pub(super) skips: Vec<Skip>,
    pub(super) report: Report,
}

/// Runs the tests on the kernel; `libtest` are further arguments for every test program.
pub(super) fn run(
    kernel: &Kernel,
    machine: &Machine,
    built: &Built,
    selection: Selection,
    libtest: &[String],
    print: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Tested> {
    let small = Small::new()?;
    let script = script(machine, selection, libtest);
    let mut image = Image::whole(kernel, &script, &small.copy(&built.binary)?)?;
    // Of the same name as the binary, so in a directory of its own.
    let others = Small::new()?;
    let next_layout = others.copy(&built.next_layout)?;
    for (package, target) in PROGRAMS {
        image.file(place(target), &small.copy(built.test(package, target)?)?);
    }
    image.file(PathBuf::from(NEXT_LAYOUT), &next_layout);
    image.link()?;
    let mut tally = Tally::default();
    let report = machine.run(
        kernel,
        &image,
        Output::To(&mut |piece| {
            tally.take(piece);
            print(piece)
        }),
    )?;
    let skips = Skip::parse(&report.lines_of("skipped").collect::<Vec<_>>().join("\n"));
    Ok(Tested { counts: tally.counts(), skips, report })
}

fn place(target: &str) -> PathBuf {
    Path::new(DIRECTORY).join(target)
}

/// Runs every program, also after one that failed.
fn script(machine: &Machine, selection: Selection, libtest: &[String]) -> String {
    let patience = match machine.accelerator {
        Accelerator::Kvm => 2,
        Accelerator::Tcg => 10,
    };
    // Each thread is a network with its daemons; more of them only make each other wait.
    let threads = 2 * machine.processors;
    let mut script = format!(
        "#!/usr/bin/sh\n\
         export DATAPLANE_BIN=/usr/bin/dataplane DATAPLANE_SKIP_LOG=/run/report/skipped\n\
         export DATAPLANE_NEXT_LAYOUT_BIN={NEXT_LAYOUT}\n\
         export DATAPLANE_REPORT=/run/report DATAPLANE_FUZZ_PACKETS={FUZZ_PACKETS} DATAPLANE_TEST_PATIENCE={patience}\n\
         mkdir -p /run/report\n\
         status=0\n"
    );
    for (_, target) in PROGRAMS {
        let mut words = vec![place(target).display().to_string(), format!("--test-threads={threads}")];
        // What the user chose comes in the place of our choice, not beside it.
        let filters = if libtest.is_empty() { selection.filters(target) } else { Vec::new() };
        words.extend(filters.iter().map(|filter| process::quote(filter)));
        words.extend(libtest.iter().map(|argument| process::quote(argument)));
        script += &format!("{} || status=1\n", words.join(" "));
    }
    script + "exit $status\n"
}

/// Copies of programs without what only debuggers read: the machine has them in memory.
struct Small(TempDir);

impl Small {
    fn new() -> Result<Self> {
        let directory = crate::workspace::target_dir()?.join("vm");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self(tempfile::tempdir_in(directory)?))
    }

    fn copy(&self, program: &Path) -> Result<PathBuf> {
        let copy = self.0.path().join(program.file_name().context("a program without a name")?);
        let arguments = ["--strip-debug".as_ref(), "-o".as_ref(), copy.as_os_str(), program.as_os_str()];
        process::output(Command::new("strip").args(arguments))?;
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_program_runs_and_one_failure_is_the_script_s() {
        let machine =
            Machine { accelerator: Accelerator::Tcg, processors: 1, memory_mib: 512, limit: Duration::ZERO };
        let script = script(&machine, Selection::Chosen, &["a b".to_owned()]);
        for (_, target) in PROGRAMS {
            assert!(script.contains(&format!("\n/tests/{target} --test-threads=2")), "{script}");
        }
        assert_eq!(script.matches("'a b' || status=1\n").count(), PROGRAMS.len());
        assert!(script.ends_with("exit $status\n"));
    }
}
