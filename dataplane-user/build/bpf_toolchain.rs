//! Which compiler builds the BPF programs, and how it is called.
//!
//! `build.rs` and `cargo xtask` both include this file, so that what `setup` looks for, what `check` lints
//! with and what the build runs cannot differ.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rust's name for little-endian BPF without an operating system below it.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The cargo profile of the programs, in the workspace's `Cargo.toml`.
pub(crate) const PROFILE: &str = "bpf";

/// What every BPF compilation is given. The linker generates the code, so some of it is for the linker:
///
/// * `--btf` keeps the type information that the kernel and `bpftool` show.
/// * v3 is the newest instruction set that Linux 5.1 and later all run: 32-bit arithmetic and jumps.
/// * Without `allows-misaligned-mem-access` a 4-byte load of a packet field is assembled from four 1-byte
///   loads, since the 14-byte Ethernet header leaves everything behind it misaligned. The verifier takes
///   misaligned packet and map-value access where the CPU does it natively (x86-64 and arm64 do:
///   `check_ptr_alignment` in kernel/bpf/verifier.c); it never takes it on the stack, so no `repr(packed)` value may
///   live there.
const FLAGS: [&str; 3] =
    ["-Ctarget-cpu=v3", "-Clink-arg=--btf", "-Clink-arg=--cpu-features=+allows-misaligned-mem-access"];

/// A compiler with a `core` for BPF.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BpfToolchain {
    /// The toolchain that builds the host's half: it compiles `core` from its `rust-src` component.
    SameAsHost {
        /// The cargo to call.
        cargo: OsString,
    },
    /// Debian's `rustc-web`, whose `libstd-rust-web-dev-bpf` brings a compiled `core`: for machines where
    /// `rust-src` cannot be had.
    Debian,
}

impl BpfToolchain {
    /// Finds the compiler: the host's own with `rust-src`, else Debian's. The error says what is missing.
    pub(crate) fn find(cargo: &OsStr, rustc: &OsStr) -> Result<Self, String> {
        let sysroot = print(rustc, &["--print", "sysroot"])?;
        if Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
            return Ok(Self::SameAsHost { cargo: cargo.into() });
        }
        if debian_has_core() {
            return Ok(Self::Debian);
        }
        Err(format!(
            "no `core` for {TARGET}: neither the component rust-src in {sysroot} nor Debian's \
             libstd-rust-web-dev-bpf is installed"
        ))
    }

    /// `cargo SUBCOMMAND` on a package of BPF programs, for a host of the architecture `host_arch`, with the
    /// linker at `linker`; the caller adds its own arguments. It works whether or not another cargo started us.
    pub(crate) fn cargo(&self, subcommand: &str, package: &str, host_arch: &str, linker: &Path) -> Command {
        let mut command = match self {
            Self::SameAsHost { cargo } => {
                let mut command = Command::new(cargo);
                command.args([subcommand, "-Zbuild-std=core"]).env_remove("RUSTC");
                command
            }
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                let path = env::var_os("PATH").unwrap_or_default();
                let mut first = OsString::from("/usr/bin:");
                first.push(path);
                command.arg(subcommand).env("RUSTC", "/usr/bin/rustc").env("PATH", first);
                command
            }
        };
        let arch = format!("--cfg=bpf_target_arch=\"{host_arch}\"");
        let flags: Vec<&str> = FLAGS.into_iter().chain([arch.as_str()]).collect();
        command
            .args(["--locked", "--package", package, "--target", TARGET, "--profile", PROFILE])
            // The unstable parts of a stable compiler, as the kernel's own Rust build uses them.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
            // Under `cargo clippy` a build script inherits the linter as its compiler.
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CLIPPY_ARGS");
        command
    }
}

/// The `bpf-linker` on PATH, or where `cargo install` puts it.
pub(crate) fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|file| file.is_file())
}

fn debian_has_core() -> bool {
    let Ok(directory) =
        print(OsStr::new("/usr/bin/rustc"), &["--print", "target-libdir", "--target", TARGET])
    else {
        return false;
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    Path::new("/usr/bin/cargo").is_file()
        && entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// What the program prints, without the line's end.
fn print(program: &OsStr, arguments: &[&str]) -> Result<String, String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run `{}`: {error}", shown()))?;
    if !output.status.success() {
        return Err(format!("`{}` failed: {}", shown(), String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
