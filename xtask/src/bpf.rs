//! The compiler for BPF, as the build script of `dataplane-user` finds and calls it.

#[path = "../../dataplane-user/build/bpf_toolchain.rs"]
mod bpf_toolchain;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};

pub(crate) use bpf_toolchain::{BpfToolchain, find_linker};

use crate::{process, workspace};

/// The package of the benchmarks' programs, and the name of the one with the packet generator.
pub(crate) const BENCH_PACKAGE: &str = "bench-ebpf";

/// The compiler that the next build will use, or what it will miss.
pub(crate) fn toolchain() -> Result<BpfToolchain, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    BpfToolchain::find(&workspace::cargo_program(), &rustc)
}

/// Builds the benchmarks' BPF objects, in the target directory of the data path's own, and gives their directory.
pub(crate) fn build_bench_objects() -> Result<PathBuf> {
    let toolchain = toolchain().map_err(|reason| anyhow!("{reason}; run `cargo xtask setup`"))?;
    let linker = find_linker().context("there is no bpf-linker; run `cargo xtask setup`")?;
    let target_dir = workspace::target_dir()?.join("bpf");
    let mut cargo = toolchain.cargo("build", BENCH_PACKAGE, env::consts::ARCH, &linker);
    process::run(cargo.current_dir(workspace::root()).arg("--quiet").arg("--target-dir").arg(&target_dir))?;
    Ok(target_dir.join(bpf_toolchain::TARGET).join(bpf_toolchain::PROFILE))
}
