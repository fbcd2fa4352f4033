//! Where the binary is, and where the pins go.

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    io,
    mem::MaybeUninit,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::harness::skip::skip;

/// The mount of the BPF file system.
pub const BPF_ROOT: &str = "/sys/fs/bpf";

/// Names the program under test.
const BINARY_VARIABLE: &str = "DATAPLANE_BIN";

/// Names the same program, built with another layout.
const NEXT_LAYOUT_VARIABLE: &str = "DATAPLANE_NEXT_LAYOUT_BIN";

/// The directory of a daemon's configuration and state.
#[derive(Debug)]
pub(super) enum Directory {
    /// Made for one daemon, and gone with its guard.
    Temporary(TempDir),
    /// The caller's.
    Given(PathBuf),
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Given(directory) => directory,
        }
    }

    /// Leaves it in place when this is dropped.
    pub(super) fn keep(&mut self) {
        if let Self::Temporary(directory) = self {
            directory.disable_cleanup(true);
        }
    }
}

/// The program under test: what `DATAPLANE_BIN` names, or the release or else the debug build.
///
/// # Errors
/// If there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        return fs::canonicalize(&path)
            .with_context(|| format!("{BINARY_VARIABLE} names {}, which is not there", path.display()));
    }
    let candidates = ["release/dataplane", "debug/dataplane"].map(|path| target().join(path));
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(fs::canonicalize(path)?),
        None => bail!(
            "neither {} nor the debug build is there: run `cargo xtask build`, or set {BINARY_VARIABLE}",
            candidates[0].display()
        ),
    }
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

/// The build of the program with another layout of its tables: what `DATAPLANE_NEXT_LAYOUT_BIN` names, or what `cargo
/// xtask test` has made. A test without it is reported as skipped, with `None`.
pub fn next_layout_binary(test: &str) -> Option<PathBuf> {
    let made = || target().join("next-layout/dataplane");
    let path = env::var_os(NEXT_LAYOUT_VARIABLE).map_or_else(made, PathBuf::from);
    if !path.is_file() {
        skip(test, "there is no build with another layout: `cargo xtask test` makes it");
        return None;
    }
    Some(path)
}

/// Mounts the BPF file system if it is not.
///
/// The daemon does so, too. But of two daemons that start at the same moment, one would mount over the
/// other's pins: here it is done under a lock.
pub fn mount_bpf_file_system() -> Result<()> {
    let directory = File::open(BPF_ROOT).with_context(|| format!("cannot open {BPF_ROOT}"))?;
    directory.lock().with_context(|| format!("cannot lock {BPF_ROOT}"))?;
    if is_bpf_file_system()? {
        return Ok(());
    }
    let (root, kind) = (CString::new(BPF_ROOT)?, c"bpf");
    // SAFETY: all the strings live until after the call; this file system takes no data.
    let result = unsafe { libc::mount(kind.as_ptr(), root.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if result != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot mount {BPF_ROOT}"));
    }
    Ok(())
}

fn is_bpf_file_system() -> Result<bool> {
    let root = CString::new(BPF_ROOT)?;
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string, and the kernel writes at most one `statfs` to where there is room.
    if unsafe { libc::statfs(root.as_ptr(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot examine {BPF_ROOT}"));
    }
    // SAFETY: the call succeeded, so it is filled in.
    let status = unsafe { status.assume_init() };
    Ok(status.f_type == libc::BPF_FS_MAGIC)
}

/// Removes a `bpf-dir` and all in it, if it is there.
pub(super) fn remove_pins(bpf_dir: &Path) -> Result<()> {
    match fs::remove_dir_all(bpf_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", bpf_dir.display()))
        }
        _ => Ok(()),
    }
}
