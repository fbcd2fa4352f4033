//! Who has the directory of the pins: one process at a time, by a lock on the directory itself.
//!
//! The lock of the state directory keeps two daemons apart that share it; this one also those that do not, as in
//! containers with a /run of their own and the node's BPF file system.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fs::{fstatfs, major, minor},
    mount::{MountFlags, mount},
    process::getppid,
};
use tracing::{info, warn};

use super::Pins;
use crate::kernel::ownership::check_owner;

/// What the daemon's mounts are called in `/proc/self/mountinfo`: those are taken away again.
pub(super) const MOUNT_SOURCE: &str = "dataplane";

/// The pins belong to this process as long as this lives; the kernel lets them go however it ends.
#[derive(Debug)]
pub struct Claim(File);

impl Claim {
    /// Whether it is of the directory that is there now: somebody may have removed it, and another may have made it anew.
    pub fn is_of(&self, pins: &Pins) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(&pins.root).map(identity);
        matches!((self.0.metadata().map(identity), there), (Ok(held), Ok(there)) if held == there)
    }
}

impl Pins {
    /// Takes the directory, which is made where it is missing, on a BPF file system that is mounted if there is none.
    ///
    /// # Errors
    ///
    /// Where another daemon has it, it is somebody else's, or it cannot be made.
    pub fn claim(&self) -> Result<Claim> {
        loop {
            mount_if_missing(&self.root)?;
            DirBuilder::new().recursive(true).mode(0o700).create(&self.root).with_context(|| {
                format!("cannot create {} on the BPF file system (needs root)", self.root.display())
            })?;
            if let Some(claim) = self.claim_existing()? {
                return Ok(claim);
            }
        }
    }

    /// Takes the directory if it is there.
    ///
    /// # Errors
    ///
    /// Where another daemon has it, it is somebody else's, or on no BPF file system.
    pub fn claim_existing(&self) -> Result<Option<Claim>> {
        let path = &self.root;
        loop {
            let Some(directory) = open_directory(path)? else { return Ok(None) };
            ensure!(
                is_bpffs(&directory)?,
                "{} is on no BPF file system, so that no dataplane pins anything there: look at `bpf-dir`",
                path.display()
            );
            let metadata = directory.metadata()?;
            check_owner(path, &metadata)?;
            match directory.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => bail!(
                    "the pins in {} are in use by another daemon{}: stop that one (`dataplane detach --state-dir DIR`, \
                     with its directory, takes its data path away), or give this one a `node.bpf-dir` of its own",
                    path.display(),
                    holder(&metadata).map_or_else(String::new, |pid| format!(" (pid {pid})"))
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // Whoever had it before may have removed it meanwhile.
            let claim = Claim(directory);
            if claim.is_of(self) {
                if metadata.mode() & 0o077 != 0 && self.is_all_ours()? {
                    // As older versions made it: any user could hold the lock.
                    let _ = claim.0.set_permissions(Permissions::from_mode(0o700));
                }
                return Ok(Some(claim));
            }
        }
    }

    /// Whether nothing is in the directory but sets of ours, and it is no mount of somebody else's.
    fn is_all_ours(&self) -> Result<bool> {
        let (entries, sets) = (fs::read_dir(&self.root)?.count(), self.sets()?.len());
        Ok(entries == sets && !matches!(mount_source(&self.root)?, Some(source) if source != MOUNT_SOURCE))
    }
}

/// The directory, without following a link; none where there is none.
fn open_directory(path: &Path) -> Result<Option<File>> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
            bail!("{} is no directory (links are not followed): look at `bpf-dir`", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
}

fn is_bpffs(directory: &File) -> Result<bool> {
    Ok(fstatfs(directory).context("fstatfs")?.f_type == libc::BPF_FS_MAGIC)
}

/// The process that holds the lock on that file, as `/proc/locks` has it (proc_locks(5)).
fn holder(file: &fs::Metadata) -> Option<u32> {
    let device = file.dev();
    let wanted = format!("{:02x}:{:02x}:{}", major(device), minor(device), file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line =
        lines.find(|words| words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&wanted.as_str()))?;
    line.get(4)?.parse().ok()
}

/// What is mounted at the path itself, if something is (proc_pid_mountinfo(5)): the last one hides the others.
pub(super) fn mount_source(path: &Path) -> Result<Option<String>> {
    let escaped: String = path.to_string_lossy().chars().map(escape).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let at_path = mounts.lines().rev().find(|line| line.split(' ').nth(4) == Some(&escaped));
    let source = at_path.and_then(|line| line.split_once(" - ")?.1.split(' ').nth(1));
    Ok(source.map(str::to_owned))
}

fn escape(character: char) -> String {
    match character {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(character)),
        other => other.to_string(),
    }
}

/// Whether the path, or its nearest ancestor that exists, lies on a BPF file system.
fn is_on_bpffs(path: &Path) -> Result<bool> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let directory = File::open(existing).with_context(|| format!("cannot open {}", existing.display()))?;
    is_bpffs(&directory)
}

/// Whether the first process, and the one that started this one, see this process's mounts; where that cannot be told, they
/// are taken to.
fn shares_mounts() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
    let Ok(own) = namespace("self") else { return true };
    let parent = getppid().map_or("1".to_owned(), |parent| parent.as_raw_pid().to_string());
    ["1", &parent].into_iter().all(|other| namespace(other).map_or(true, |other| other == own))
}

/// Mounts a BPF file system where `bpf_dir` needs one: at `/sys/fs/bpf` if it is below, else at itself.
fn mount_if_missing(bpf_dir: &Path) -> Result<()> {
    if is_on_bpffs(bpf_dir)? {
        return Ok(());
    }
    let usual = Path::new("/sys/fs/bpf");
    let target = if bpf_dir.starts_with(usual) { usual } else { bpf_dir };
    match open_directory(target)? {
        Some(directory) => {
            check_owner(target, &directory.metadata()?)?;
            ensure!(
                fs::read_dir(target)?.next().is_none(),
                "{} holds files and is on no BPF file system: name another directory with `bpf-dir`",
                target.display()
            );
        }
        None => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(target)
            .with_context(|| format!("cannot create {}", target.display()))?,
    }
    if let Err(error) = mount(MOUNT_SOURCE, target, "bpf", MountFlags::NOSUID, c"mode=0700") {
        bail!(
            "no BPF file system at {} and it cannot be mounted: {error} (as root: mount -t bpf bpf {})",
            target.display(),
            target.display()
        );
    }
    info!(at = %target.display(), "no BPF file system was mounted there: mounted one");
    if !shares_mounts() {
        warn!(
            "this process has a mount namespace of its own (as `ip netns exec` makes one): the BPF file system that was \
             mounted at {} goes with it, and with that the data path; mount one where the namespace sees it, or use \
             `nsenter --net=/run/netns/NAME`",
            target.display()
        );
    }
    Ok(())
}
