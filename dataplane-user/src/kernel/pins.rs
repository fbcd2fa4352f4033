//! What outlives the daemon: a directory of the BPF file system with maps, links and filters.
//!
//! ```text
//! BPF-DIR/v1/maps/NAME                 the tables and counters
//!           /slabs/NUMBER              what the array of maps behind the route table holds
//!           /links/HOOK-IFINDEX        a TCX link
//!           /filters/HOOK-IFINDEX-PRIORITY-HANDLE[-q]
//!                                      the program of a clsact filter; `q`: the qdisc is ours, too, and
//!                                      with priority 0 that alone
//! ```
//!
//! `v1` is the layout version: maps of another version are never opened.

use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapInfo;
use dataplane_common::names::{LAYOUT_VERSION, PINNED_MAPS, RENEWED_MAPS};
use tracing::{info, warn};

use super::object::Sizes;

/// `BPF_FS_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of one daemon.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins under `bpf_dir`, whether they exist or not.
    pub fn new(bpf_dir: &Path) -> Self {
        Self { root: bpf_dir.to_path_buf() }
    }

    fn version(&self) -> PathBuf {
        self.root.join(format!("v{LAYOUT_VERSION}"))
    }

    /// Where the maps are pinned.
    pub fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Where the slabs of the route table are pinned.
    pub fn slabs(&self) -> PathBuf {
        self.version().join("slabs")
    }

    /// Where the TCX links are pinned.
    pub fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// Where the programs of clsact filters are pinned.
    pub fn filters(&self) -> PathBuf {
        self.version().join("filters")
    }

    /// Whether an earlier run left something.
    pub fn exist(&self) -> bool {
        self.version().exists()
    }

    /// Makes the directories, on a BPF file system that is mounted if there is none.
    ///
    /// # Errors
    ///
    /// Where the file system cannot be mounted or written, with the path.
    pub fn create(&self) -> Result<()> {
        mount_if_missing(&self.root)?;
        for directory in [self.maps(), self.slabs(), self.links(), self.filters()] {
            fs::create_dir_all(&directory).with_context(|| {
                format!("cannot create {} on the BPF file system (needs root)", directory.display())
            })?;
        }
        Ok(())
    }

    /// Removes pinned maps that this run cannot use: of other sizes than configured, or an incomplete set.
    ///
    /// Programs that are attached keep the old maps and go on forwarding with them until they are replaced.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be read or removed.
    pub fn discard_unusable_maps(&self, sizes: Sizes) -> Result<()> {
        let present = PINNED_MAPS.iter().filter(|name| self.maps().join(name).exists()).count();
        if present == 0 {
            return Ok(());
        }
        let fits = |(name, wanted): (&str, u32)| {
            MapInfo::from_pin(self.maps().join(name)).is_ok_and(|map| map.max_entries() == wanted)
        };
        if present == PINNED_MAPS.len() && sizes.maps().into_iter().all(fits) {
            return Ok(());
        }
        warn!(
            pinned = present,
            wanted = PINNED_MAPS.len(),
            ?sizes,
            "the pinned maps are of another size or incomplete: they are rebuilt"
        );
        self.discard_maps()
    }

    /// Removes every pinned map.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be removed.
    pub fn discard_maps(&self) -> Result<()> {
        // First, so that none is ever there without the array of maps that holds it.
        let slabs = self.slabs();
        for slab in fs::read_dir(&slabs).with_context(|| format!("cannot read {}", slabs.display()))? {
            remove_if_there(&slab?.path())?;
        }
        for name in PINNED_MAPS.iter().chain(RENEWED_MAPS) {
            remove_if_there(&self.maps().join(name))?;
        }
        Ok(())
    }

    /// Removes the whole directory, pins of other layout versions included, and the mount that was made for it.
    ///
    /// # Errors
    ///
    /// Where something in it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.root) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // The directory is itself where the file system was mounted.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                unmount(&self.root)?;
                fs::remove_dir(&self.root).with_context(|| format!("cannot remove {}", self.root.display()))
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot remove the pins in {}", self.root.display()))
            }
        }
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether the path, or its nearest ancestor that exists, lies on a BPF file system.
fn is_on_bpffs(path: &Path) -> Result<bool> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let name = CString::new(existing.as_os_str().as_bytes()).context("a path with a zero byte")?;
    // SAFETY: `statfs` is plain data, for which zero is valid; the call fills it.
    let mut statfs = unsafe { std::mem::zeroed::<libc::statfs>() };
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statfs(name.as_ptr(), &mut statfs) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("statfs {}", existing.display()));
    }
    Ok(statfs.f_type == BPF_FS_MAGIC)
}

/// Mounts a BPF file system where `bpf_dir` needs one: at `/sys/fs/bpf` if it is below, else at itself.
fn mount_if_missing(bpf_dir: &Path) -> Result<()> {
    if is_on_bpffs(bpf_dir)? {
        return Ok(());
    }
    let usual = Path::new("/sys/fs/bpf");
    let target = if bpf_dir.starts_with(usual) { usual } else { bpf_dir };
    if !target.exists() {
        fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    }
    let name = CString::new(target.as_os_str().as_bytes()).context("a path with a zero byte")?;
    // SAFETY: the strings are terminated and live during the call; no data is passed.
    let result = unsafe {
        libc::mount(c"bpf".as_ptr(), name.as_ptr(), c"bpf".as_ptr(), libc::MS_NOSUID, std::ptr::null())
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        bail!(
            "no BPF file system at {} and it cannot be mounted: {error} (as root: mount -t bpf bpf {})",
            target.display(),
            target.display()
        );
    }
    info!(at = %target.display(), "no BPF file system was mounted there: mounted one");
    Ok(())
}

fn unmount(path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_bytes()).context("a path with a zero byte")?;
    // SAFETY: the string is terminated and lives during the call.
    if unsafe { libc::umount(name.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot unmount {}", path.display()));
    }
    Ok(())
}
