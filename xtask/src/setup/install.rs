//! Carries out, or prints, what installs the missing parts.

use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use super::packages::Package;
use super::{apt, cargo_deb, linker};
use crate::process;

/// Debian's compiler with a ready `core` for BPF, and its linter for `cargo xtask check`: for machines that
/// cannot get the component `rust-src`.
const DEBIAN_RUST: [&str; 5] =
    ["rustc-web", "cargo-web", "libstd-rust-web-dev", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// One thing to install.
pub(super) enum Step {
    /// These Debian packages.
    Apt(Vec<&'static Package>),
    /// The source of `core`, or Debian's compiled one.
    RustSource,
    /// `bpf-linker`, after the packages that it is built with.
    Linker,
    /// `cargo-deb`.
    CargoDeb,
}

/// Carries the steps out, saying each command.
pub(super) fn run(steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| match step {
        Step::Apt(packages) => apt::install(packages),
        Step::RustSource => install_rust_source(),
        Step::Linker => {
            println!("setup: compiling bpf-linker, about half a minute");
            say_and_run(&mut linker::install_command()?).context(
                "bpf-linker does not build; a ready one by `cargo binstall bpf-linker` serves as well",
            )
        }
        Step::CargoDeb => {
            println!("setup: compiling cargo-deb, some minutes");
            say_and_run(&mut cargo_deb::install_command()).context("cargo-deb does not build")
        }
    })
}

impl Step {
    /// The commands that a user types for this step.
    pub(super) fn shown_for_user(&self) -> String {
        match self {
            Self::Apt(packages) => {
                let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
                let mut line = format!("sudo apt-get update && sudo apt-get install {}", names.join(" "));
                for package in packages {
                    if let Some(component) = package.component {
                        line +=
                            &format!("   # {}: in some releases in the component {component}", package.name);
                    }
                }
                let services: Vec<&str> = packages.iter().filter_map(|package| package.service).collect();
                if !services.is_empty() {
                    line += &format!("\nsudo systemctl disable --now {}", services.join(" "));
                }
                line
            }
            Self::RustSource => {
                format!(
                    "rustup component add rust-src   # or: sudo apt-get install {}",
                    DEBIAN_RUST.join(" ")
                )
            }
            Self::CargoDeb => process::show(&cargo_deb::install_command()),
            Self::Linker => linker::install_line().unwrap_or_else(|error| format!("# bpf-linker: {error:#}")),
        }
    }
}

/// Says the command, and runs it.
pub(super) fn say_and_run(command: &mut Command) -> Result<()> {
    println!("setup: {}", process::show(command));
    process::run(command)
}

fn install_rust_source() -> Result<()> {
    let by_rustup = match linker::toolchain_name()? {
        Some(toolchain) => say_and_run(
            Command::new("rustup").args(["component", "add", "rust-src", "--toolchain"]).arg(toolchain),
        ),
        None => Err(anyhow!("this Rust did not come by rustup")),
    };
    let Err(error) = by_rustup else { return Ok(()) };
    println!("setup: no rust-src ({error:#}); Debian's compiler for BPF instead");
    if process::find("apt-get").is_none() {
        bail!("there is no apt-get here either: install the component rust-src of the Rust in use");
    }
    apt::install_names(&DEBIAN_RUST)
}
