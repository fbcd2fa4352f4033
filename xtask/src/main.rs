//! `cargo xtask`: sets up a machine, builds, tests and checks the project.
//!
//! One module and one variant of [`Task`] per command. A module has its `Args` and its `run`, which gives the
//! process's exit status.

mod bench;
mod bpf;
mod build;
mod check;
mod demo;
mod package;
mod process;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the build, the tests, the demo and the benchmarks need and the machine lacks
    Setup(setup::Args),
    /// Build the BPF programs and the `dataplane` binary, and print where it is
    Build(build::Args),
    /// Build, then show two nodes that forward their containers' packets, step by step
    Demo(demo::Args),
    /// Build, then run every tier of tests, or the one named
    Test(test::Args),
    /// Boot another kernel in a virtual machine, and run a command or the tests there
    Vm(vm::Args),
    /// Measure this data path and the kernel's own in turn
    Bench(bench::Args),
    /// Make the Debian package, and install and remove it in a directory of its own
    Package(package::Args),
    /// Format, lints, documentation and house rules: what CI runs before the tests
    Check(check::Args),
}

fn main() -> ExitCode {
    let status = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Build(args) => build::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Package(args) => package::run(&args),
        Task::Check(args) => check::run(&args),
    };
    status.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
