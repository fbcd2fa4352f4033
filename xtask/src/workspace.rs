//! Where things are, and the cargo that works on them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for what it runs; without it the checkout is where it was compiled.
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.parent().unwrap_or(Path::new(".")).to_owned()
}

/// The directory that holds a directory per profile: the one that this program was itself built into, so
/// that whatever setting placed it there holds for the rest.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot tell where xtask itself is")?;
    let target_dir =
        program.ancestors().nth(2).with_context(|| format!("{} is no build", program.display()))?;
    Ok(target_dir.to_owned())
}

/// The cargo that runs this program, hence of the pinned toolchain.
pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// A cargo command in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_program());
    command.current_dir(root());
    command
}
