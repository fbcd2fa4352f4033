//! `cargo xtask check`: what must hold before the tests are worth running.
//!
//! Every check runs, whatever became of those before it, and the summary names each.

mod rules;

use std::env;
use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::setup::{self, Need};
use crate::{bpf, process, workspace};

/// The packages that build for the BPF target alone.
const BPF_PACKAGES: [&str; 2] = ["dataplane-ebpf", bpf::BENCH_PACKAGE];

/// What to check: everything.
#[derive(clap::Args)]
pub(crate) struct Args {}

struct Check {
    name: &'static str,
    run: fn() -> Result<()>,
}

const CHECKS: [Check; 6] = [
    Check { name: "house rules", run: house_rules },
    Check { name: "fresh machine", run: fresh_machine },
    Check { name: "format", run: format },
    Check { name: "lints, host", run: lints_host },
    Check { name: "lints, BPF", run: lints_bpf },
    Check { name: "documentation", run: documentation },
];

/// Sets up what building needs, runs every check, and sums up.
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build])?;
    let mut results = Vec::new();
    for check in &CHECKS {
        println!("check: {}", check.name);
        let result = (check.run)();
        if let Err(error) = &result {
            eprintln!("error: {}: {error:#}", check.name);
        }
        results.push((check.name, result.is_ok()));
    }
    println!();
    for (name, holds) in &results {
        println!("{name:<16}{}", if *holds { "ok" } else { "FAILED" });
    }
    let all_hold = results.iter().all(|(_, holds)| *holds);
    Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `cargo xtask setup` installs what the BPF programs are built with, so xtask must build without them: the
/// daemon's package, whose build script compiles them, is none of its dependencies.
fn fresh_machine() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["tree", "--locked", "--package", "xtask", "--edges", "normal,build", "--prefix", "none"]);
    let tree = process::output(&mut cargo)?;
    if tree.lines().any(|line| line.starts_with("dataplane-user ")) {
        bail!(
            "xtask depends on dataplane-user: on a machine without the BPF toolchain `setup` does not build"
        );
    }
    Ok(())
}

fn format() -> Result<()> {
    process::run(workspace::cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` mends it")
}

fn lints_host() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--locked"]).args(without_bpf());
    process::run(cargo.args(["--", "--deny", "warnings"]))
}

/// The cargo arguments that leave out what does not build for the host.
fn without_bpf() -> impl Iterator<Item = &'static str> {
    BPF_PACKAGES.into_iter().flat_map(|package| ["--exclude", package])
}

/// In the target directory of the build script's own cargo, with the same flags.
fn lints_bpf() -> Result<()> {
    let toolchain = bpf::toolchain().map_err(|reason| anyhow!("{reason}; run `cargo xtask setup`"))?;
    let linker = bpf::find_linker().context("there is no bpf-linker; run `cargo xtask setup`")?;
    let target_dir = workspace::target_dir()?.join("bpf");
    for package in BPF_PACKAGES {
        let mut cargo = toolchain.cargo("clippy", package, env::consts::ARCH, &linker);
        cargo.current_dir(workspace::root()).arg("--target-dir").arg(&target_dir);
        process::run(cargo.args(["--", "--deny", "warnings"]))?;
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["doc", "--workspace", "--no-deps", "--locked"]).args(without_bpf());
    process::run(cargo.env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Holds every file that git tracks, or would track, against the rules.
fn house_rules() -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = process::output(git.current_dir(workspace::root()))
        .context("the house rules are for the files that git lists")?;
    let mut breaches = 0;
    for file in files.split_terminator('\0') {
        let path = workspace::root().join(file);
        // Removed in the work tree, or a directory behind a link.
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {file}"))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        for breach in rules::breaches(file, &text) {
            println!("{breach}");
            breaches += 1;
        }
    }
    if breaches > 0 {
        bail!("{breaches} breaches");
    }
    Ok(())
}
