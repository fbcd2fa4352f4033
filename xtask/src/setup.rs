//! `cargo xtask setup`: installs what the machine lacks, and nothing else.
//!
//! What is needed is the table in [`packages`]; whether it is there is asked of the machine (a program on
//! PATH, a file), not of the package manager, so that parts installed in another way count.

mod apt;
mod cargo_deb;
mod install;
mod linker;
mod packages;
mod services;

use std::process::ExitCode;

use anyhow::{Result, bail};

pub(crate) use apt::{archives, own_codename};
pub(crate) use packages::{Need, needed};

use crate::{bpf, process};
use install::Step;
use packages::Package;

/// What to set up for: everything.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Installs what is missing for every command, and says so.
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let missing = Missing::of(&Need::EVERY);
    if missing.is_empty() {
        println!("setup: everything is there");
    }
    missing.install()?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing for `needs`; silent if nothing is.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    Missing::of(needs).install()
}

/// What the machine lacks.
struct Missing {
    packages: Vec<&'static Package>,
    /// Why there is no compiler for BPF, if there is none.
    toolchain: Option<String>,
    /// Why the BPF linker is not usable, if it is not.
    linker: Option<String>,
    /// Why there is no usable cargo-deb, if there is none.
    cargo_deb: Option<String>,
}

impl Missing {
    fn of(needs: &[Need]) -> Self {
        let builds = needs.contains(&Need::Build);
        let linker = if builds { linker::problem() } else { None };
        let mut needs = needs.to_vec();
        if linker.is_some() {
            needs.push(Need::Linker);
        }
        Self {
            packages: packages::needed(&needs).filter(|package| !package.is_there()).collect(),
            toolchain: if builds { bpf::toolchain().err() } else { None },
            linker,
            cargo_deb: if needs.contains(&Need::Package) { cargo_deb::problem() } else { None },
        }
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty()
            && self.toolchain.is_none()
            && self.linker.is_none()
            && self.cargo_deb.is_none()
    }

    fn install(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.say();
        let has_apt = process::find("apt-get").is_some();
        if !self.packages.is_empty() && !has_apt {
            bail!(
                "there is no apt-get here: install the packages named above by this system's own means, then \
                 run `cargo xtask setup` again"
            );
        }
        if !process::is_root() {
            println!("setup: without root nothing is installed; these commands do it:");
            for step in self.steps() {
                println!("  {}", step.shown_for_user());
            }
            bail!("the parts named above are missing: run these commands, or `{}`", as_root("setup"));
        }
        install::run(&self.steps())?;
        self.confirm()
    }

    fn say(&self) {
        for package in &self.packages {
            println!("setup: {} is missing ({}: {})", package.name, package.proof, package.purpose);
        }
        for reason in self.toolchain.iter().chain(&self.linker).chain(&self.cargo_deb) {
            println!("setup: {reason}");
        }
    }

    /// What installs the missing parts, in order.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.packages.is_empty() {
            steps.push(Step::Apt(self.packages.clone()));
        }
        if self.toolchain.is_some() {
            steps.push(Step::RustSource);
        }
        if self.linker.is_some() {
            steps.push(Step::Linker);
        }
        if self.cargo_deb.is_some() {
            steps.push(Step::CargoDeb);
        }
        steps
    }

    /// An installer that reports success is not yet a part that works.
    fn confirm(&self) -> Result<()> {
        for package in &self.packages {
            if !package.is_there() {
                bail!("{} is installed and yet there is no {}", package.name, package.proof);
            }
        }
        if let Some(reason) = self.toolchain.as_ref().and_then(|_| bpf::toolchain().err()) {
            bail!("after the installation still: {reason}");
        }
        if let Some(reason) = self.linker.as_ref().and_then(|_| linker::problem()) {
            bail!("after the installation still: {reason}");
        }
        if let Some(reason) = self.cargo_deb.as_ref().and_then(|_| cargo_deb::problem()) {
            bail!("after the installation still: {reason}");
        }
        println!("setup: done");
        Ok(())
    }
}

/// How a user runs an xtask command as root with the user's own Rust.
pub(crate) fn as_root(command: &str) -> String {
    format!("sudo -E env \"PATH=$PATH\" cargo xtask {command}")
}
