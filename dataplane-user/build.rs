//! Compiles the BPF programs from source and leaves the object in `OUT_DIR/dataplane-ebpf.o`, where the
//! library embeds it.

#[path = "build/bpf_toolchain.rs"]
mod bpf_toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bpf_toolchain::{BpfToolchain, PROFILE, TARGET};

/// The package of the programs, and the name of its binary.
const PACKAGE: &str = "dataplane-ebpf";

/// What the object is made of, relative to the workspace. Cargo follows directories into their files.
const SOURCES: [&str; 5] =
    ["dataplane-ebpf", "dataplane-common", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Cargo indents and labels these lines; a multi-line reason is one directive a line.
            for line in reason.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    // As it is now, and not when this script was compiled: a target directory may come from another checkout.
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let endian = variable("CARGO_CFG_TARGET_ENDIAN")?;
    if endian != "little" {
        return Err(format!("the BPF programs are little-endian; the target is {endian}-endian"));
    }

    let toolchain = BpfToolchain::find(variable("CARGO")?.as_ref(), variable("RUSTC")?.as_ref())
        .map_err(|reason| format!("{reason}; run `cargo xtask setup`"))?;
    let linker = bpf_toolchain::find_linker()
        .ok_or("bpf-linker is neither on PATH nor where `cargo install` puts it; run `cargo xtask setup`")?;

    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = shared_target_dir(&out_dir)?;
    let features: &[&str] =
        if env::var_os("CARGO_FEATURE_NEXT_LAYOUT").is_some() { &["--features", "next-layout"] } else { &[] };
    run(toolchain
        .cargo("build", PACKAGE, &variable("CARGO_CFG_TARGET_ARCH")?, &linker)
        .args(features)
        .arg("--quiet")
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&workspace))?;

    let object = target_dir.join(TARGET).join(PROFILE).join(PACKAGE);
    let embedded = out_dir.join("dataplane-ebpf.o");
    fs::copy(&object, &embedded)
        .map(drop)
        .map_err(|error| format!("cannot copy {} to {}: {error}", object.display(), embedded.display()))
}

/// `bpf` beside the profiles' directories: debug and release builds of the host share one BPF build. It is
/// not the host's own target directory, whose lock the cargo that runs this script holds.
fn shared_target_dir(out_dir: &Path) -> Result<PathBuf, String> {
    // TARGET_DIR/PROFILE/build/PACKAGE-HASH/out
    let target_dir = out_dir.ancestors().nth(4);
    target_dir
        .map(|directory| directory.join("bpf"))
        .ok_or_else(|| format!("no target directory above OUT_DIR={}", out_dir.display()))
}

/// Runs the inner cargo, and passes its warnings on as this script's.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the BPF programs do not build ({}):\n{messages}", output.status));
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("cargo's variable {name}: {error}"))
}
