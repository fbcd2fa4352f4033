//! `cargo xtask vm`: a command, a shell or the tests on another kernel, and what every supported kernel makes of them.

mod archive;
mod debian;
mod image;
mod kernel;
mod machine;
mod matrix;
mod report;
mod selection;
mod suite;
mod support;
mod tier;
mod verified;
mod version;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Need};
use crate::{process, test};
pub(crate) use debian::try_package;
use image::Image;
use kernel::Kernel;
use machine::{Accelerator, Machine, Output};
use selection::Selection;
pub(crate) use tier::outcomes;

/// How long a command may take where the user does not say.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);
/// How long a shell.
const SHELL_LIMIT: Duration = Duration::from_secs(12 * 3600);
/// How long the tests of a kernel.
const TESTS_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// Which kernel, and what to do on it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Version of one of Debian's kernels (`6.1`, `6.12.107`, `newest`), which is fetched once, or path of a kernel
    #[arg(long, value_name = "VERSION|PATH", required_unless_present = "matrix", conflicts_with = "matrix")]
    kernel: Option<String>,
    /// The tests of the tier `vm` on every supported kernel at the same time; then docs/kernel-support.md is written
    #[arg(long, conflicts_with_all = ["shell", "command", "record"])]
    matrix: bool,
    /// With `--matrix`: every test of the tiers `prog` and `netns`
    #[arg(long, requires = "matrix")]
    all: bool,
    /// A shell on the machine; `exit` ends it
    #[arg(long, conflicts_with_all = ["command", "record"])]
    shell: bool,
    /// Accept what the verifier looks at on this kernel: write it to tests/verified.txt
    #[arg(long, conflicts_with = "command")]
    record: bool,
    /// Ask Debian's archive whether there is a newer kernel of that version
    #[arg(long)]
    update: bool,
    /// Seconds after which a machine is stopped [default: 600; two hours for the tests, twelve for a shell]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    time_limit: Option<u64>,
    /// KVM, or QEMU's translator [default: KVM where it works]
    #[arg(long, value_name = "ACCELERATOR")]
    accel: Option<Accelerator>,
    /// Processors of a machine
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    processors: u32,
    /// Memory of a machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(512..))]
    memory: u32,
    /// The command to run with its arguments, `dataplane` or a program that the tests use; without it every test
    #[arg(last = true)]
    command: Vec<String>,
}

/// Sets up, builds, boots, and ends with the command's own status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build, Need::Test, Need::Vm])?;
    let Some(wanted) = &args.kernel else { return matrix(args) };
    let kernel = Kernel::find(wanted, args.update)?;
    let built = test::build()?;
    if args.record {
        return verified::record(&kernel, &args.machine(&kernel, TESTS_LIMIT)?, &built);
    }
    if args.command.is_empty() && !args.shell {
        let machine = args.machine(&kernel, TESTS_LIMIT)?;
        let outcome = tier::outcome(&kernel, &machine, &built, Selection::Everything, &[], &mut print)?.0;
        return Ok(test::close(&[outcome]));
    }
    let mut image = Image::whole(&kernel, &script(&args.command, args.shell), &built.binary)?;
    image.link()?;
    if let Some(program) = args.command.first().filter(|program| !image.has(program)) {
        bail!(
            "there is no {program} on the machine: it has `dataplane`, busybox, and the programs of the packages for \
             tests in xtask/src/setup/packages.rs"
        );
    }
    let machine = args.machine(&kernel, if args.shell { SHELL_LIMIT } else { COMMAND_LIMIT })?;
    eprintln!("vm: booting Linux {}", kernel.release);
    let report = if args.shell {
        machine.run(&kernel, &image, Output::Terminal)?
    } else {
        machine.run(&kernel, &image, Output::To(&mut print))?
    };
    Ok(ExitCode::from(report.status.unwrap_or(1)))
}

/// The tests on every kernel at the same time, and the page that tells of it.
fn matrix(args: &Args) -> Result<ExitCode> {
    let selection = if args.all { Selection::Everything } else { Selection::Chosen };
    let kernels: Vec<Kernel> =
        matrix::KERNELS.iter().map(|wanted| Kernel::find(wanted, args.update)).collect::<Result<_>>()?;
    let built = test::build()?;
    let first = kernels.first().context("no kernel is supported")?;
    let machine = Machine { processors: tier::share(kernels.len())?, ..args.machine(first, TESTS_LIMIT)? };
    let runs = tier::together(&kernels, &machine, &built, selection, &[])?;
    let rows = kernels
        .iter()
        .zip(&runs)
        .map(|(kernel, (outcome, report))| support::Row::new(kernel, outcome, report));
    let path = support::write(&rows.collect::<Vec<_>>(), selection)?;
    println!("vm: wrote {}", path.display());
    Ok(test::close(&runs.into_iter().map(|(outcome, _)| outcome).collect::<Vec<_>>()))
}

impl Args {
    fn machine(&self, kernel: &Kernel, limit: Duration) -> Result<Machine> {
        Ok(Machine {
            accelerator: self.accel.map_or_else(|| Accelerator::find(kernel), Ok)?,
            processors: self.processors,
            memory_mib: self.memory,
            limit: self.time_limit.map_or(limit, Duration::from_secs),
        })
    }
}

/// What the first process runs.
fn script(command: &[String], shell: bool) -> String {
    let words: Vec<String> = command.iter().map(|word| process::quote(word)).collect();
    let line = if shell { "exec bash -i".to_owned() } else { format!("exec {}", words.join(" ")) };
    format!("#!/usr/bin/sh\n{line}\n")
}

fn print(piece: &[u8]) -> Result<()> {
    let mut ours = std::io::stdout().lock();
    // Flushed, so that what hangs has its name on the screen.
    ours.write_all(piece).and_then(|()| ours.flush()).context("cannot write to standard output")
}
