//! `bpf-linker`, which turns the compiler's output into a BPF object.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{bpf, process, workspace};

/// The release that the build was tried with, and the least that is taken.
const VERSION: &str = "0.13.0";

/// The feature of `bpf-linker` that chooses the LLVM of the pinned rustc.
const LLVM_FEATURE: &str = "llvm-22";

/// Where Debian puts that LLVM. Without it the linker's build looks for it where Fedora does.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Why there is no usable linker, if there is none.
pub(super) fn problem() -> Option<String> {
    let Some(program) = bpf::find_linker() else {
        return Some(format!("bpf-linker {VERSION} is missing (links the BPF programs)"));
    };
    let shown = match process::output(Command::new(&program).arg("--version")) {
        Ok(shown) => shown,
        // For example since the LLVM library that it was linked with is gone.
        Err(error) => return Some(format!("{error:#}")),
    };
    let version = shown.split_whitespace().nth(1).unwrap_or_default();
    match (parse(version), parse(VERSION)) {
        (Some(there), Some(least)) if there >= least => None,
        _ => Some(format!("{} is bpf-linker {version:?}; {VERSION} is needed", program.display())),
    }
}

/// `cargo install` of the linker, compiled by the toolchain that compiles the project.
pub(super) fn install_command() -> Result<Command> {
    let toolchain = toolchain_name()?;
    let mut command = Command::new("cargo");
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", LLVM_FEATURE])
        .env("LLVM_PREFIX", LLVM_PREFIX)
        // Neither flags nor a target meant for the project are meant for its tools.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    if let Some(toolchain) = toolchain {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    Ok(command)
}

/// How a user writes that command in a shell.
pub(super) fn install_line() -> Result<String> {
    let command = install_command()?;
    let set = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}={}", name.display(), process::quote(&value.to_string_lossy())))
    });
    Ok(set.chain([process::show(&command)]).collect::<Vec<_>>().join(" "))
}

/// The toolchain that rustup chose for this workspace; `None` where Rust did not come by rustup.
pub(super) fn toolchain_name() -> Result<Option<OsString>> {
    if let Some(name) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        return Ok(Some(name));
    }
    if process::find("rustup").is_none() {
        return Ok(None);
    }
    let mut rustup = Command::new("rustup");
    let shown = process::output(rustup.args(["show", "active-toolchain"]).current_dir(workspace::root()))?;
    let name = shown.split_whitespace().next().context("`rustup show active-toolchain` printed nothing")?;
    Ok(Some(name.into()))
}

/// The numbers of `MAJOR.MINOR.PATCH`.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse("0.13.0"), Some((0, 13, 0)));
        assert!(parse("0.9.15") < parse("0.13.0"));
        for wrong in ["", "0.13", "0.13.0.1", "0.13.x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_linker_has_the_llvm_of_the_pinned_compiler() {
        let pin = std::fs::read_to_string(workspace::root().join("rust-toolchain.toml")).unwrap();
        // `rustc -vV` of 1.95 prints LLVM 22. Another compiler means looking at LLVM_FEATURE, LLVM_PREFIX and
        // the rows of LLVM's packages.
        assert!(pin.contains("channel = \"1.95.0\""), "{pin}");
        assert!(LLVM_PREFIX.ends_with(LLVM_FEATURE));
    }
}
