//! `cargo xtask build`: the BPF object and the `dataplane` binary that embeds it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{process, workspace};

/// What to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimized, as it is installed (target/release/dataplane); without it a debug build
    /// (target/debug/dataplane)
    #[arg(long)]
    release: bool,
}

/// The host's cargo profile.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Quick to compile.
    Debug,
    /// What is installed, tested and measured.
    Release,
}

impl Profile {
    fn directory(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Sets up what is missing, builds, and prints the binary's path on standard output.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build])?;
    let profile = if args.release { Profile::Release } else { Profile::Debug };
    println!("{}", binary(profile)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the `dataplane` binary with the BPF programs in it, and gives its path.
pub(crate) fn binary(profile: Profile) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "dataplane-user", "--bin", "dataplane"]);
    if matches!(profile, Profile::Release) {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    Ok(workspace::target_dir()?.join(profile.directory()).join("dataplane"))
}
