//! `cargo xtask package`: the Debian package, and what is in it.

mod tryout;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    process,
    setup::{self, Need},
    vm, workspace,
};

/// Shells with completions in the package.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What to do with the package of this tree.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Boot a fresh Debian in a virtual machine, install it there, run it under systemd, and purge it
    #[arg(long)]
    boot: bool,
    /// With `--boot`: version of one of Debian's kernels, or path of a kernel
    #[arg(long, value_name = "VERSION|PATH", default_value = "6.1", requires = "boot")]
    kernel: String,
}

/// Builds the package, installs and removes it in a directory of its own, and prints where it is.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build, Need::Package])?;
    let binary = build::binary(Profile::Release)?;
    // Where cargo-deb looks for it: beside the binary.
    describe(&binary, &binary.with_file_name("package"))?;
    let package = pack(&workspace::target_dir()?.join("dist"))?;
    tryout::run(&package)?;
    if args.boot {
        vm::try_package(&package, &args.kernel)?;
    }
    println!("{}", package.display());
    Ok(ExitCode::SUCCESS)
}

/// Has the program write its manual pages and completions.
fn describe(binary: &Path, directory: &Path) -> Result<()> {
    let (manual, completions) = (directory.join("man"), directory.join("completions"));
    for directory in [&manual, &completions] {
        // Pages of commands that are no more are not to stay.
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    process::run(Command::new(binary).arg("manual").arg(&manual))?;
    let pages = fs::read_dir(&manual)?.map(|page| Ok(page?.path())).collect::<Result<Vec<_>>>()?;
    // As Debian wants them, without a time in them.
    process::run(Command::new("gzip").args(["--best", "--no-name"]).args(pages))?;
    for shell in SHELLS {
        let (text, file) =
            (process::output(Command::new(binary).args(["completions", shell]))?, completions.join(shell));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The package as `dataplane-user/Cargo.toml` describes it, made by cargo-deb of what is built already.
fn pack(dist: &Path) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["deb", "--package", "dataplane-user", "--no-build", "--strip", "--locked", "--output"])
        .arg(dist);
    let shown = process::output(&mut cargo)?;
    let path = shown.lines().last().context("cargo-deb does not say what it made")?;
    Ok(PathBuf::from(path.trim()))
}
