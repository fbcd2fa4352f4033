//! The compiler for BPF, as the build script of `dataplane-user` finds and calls it.

#[path = "../../dataplane-user/build/bpf_toolchain.rs"]
mod bpf_toolchain;

use std::env;
use std::ffi::OsString;

pub(crate) use bpf_toolchain::{BpfToolchain, find_linker};

use crate::workspace;

/// The compiler that the next build will use, or what it will miss.
pub(crate) fn toolchain() -> Result<BpfToolchain, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    BpfToolchain::find(&workspace::cargo_program(), &rustc)
}
