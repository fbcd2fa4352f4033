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
//! `v1` is a set of tables with the programs that use them, and its layout version. There are more sets while one takes
//! the place of another, which each step leaves such that the next daemon can go on from it:
//!
//! | sets | what forwards | what comes next |
//! | --- | --- | --- |
//! | `v1`, or `v2-old` (other sizes) | those | `v2` is made, its tables are filled |
//! | the same and `v2` | those: `v2` is of no use yet | the other becomes `retired` |
//! | `retired` and `v2` | what `retired` was | its links and filters go to `v2`, the rest is removed |
//! | `v2` | those programs, until each hook has got the ones of `v2` | |

mod held;

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

pub use self::held::Held;
use super::object::{self, Shape, Sizes};

/// `BPF_FS_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of one daemon.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    set: String,
}

/// What follows the version in the name of a set that has other sizes than configured.
const OLD: &str = "-old";

/// The name of a set whose flows are in another one.
const RETIRED: &str = "retired";

/// The layout version in the name of a set, and whether it was set aside for its sizes.
fn parse_set(name: &str) -> Option<(u32, bool)> {
    let name = name.strip_prefix('v')?;
    let version = name.strip_suffix(OLD);
    Some((version.unwrap_or(name).parse().ok()?, version.is_some()))
}

impl Pins {
    /// The pins under `bpf_dir`, whether they exist or not.
    pub fn new(bpf_dir: &Path) -> Self {
        Self { root: bpf_dir.to_path_buf(), set: format!("v{LAYOUT_VERSION}") }
    }

    /// Those of another set.
    fn of(&self, set: &str) -> Self {
        Self { root: self.root.clone(), set: set.to_owned() }
    }

    fn directory(&self) -> PathBuf {
        self.root.join(&self.set)
    }

    /// Where the maps are pinned.
    pub fn maps(&self) -> PathBuf {
        self.directory().join("maps")
    }

    /// Where the slabs of the route table are pinned.
    pub fn slabs(&self) -> PathBuf {
        self.directory().join("slabs")
    }

    /// Where the TCX links are pinned.
    pub fn links(&self) -> PathBuf {
        self.directory().join("links")
    }

    /// Where the programs of clsact filters are pinned.
    pub fn filters(&self) -> PathBuf {
        self.directory().join("filters")
    }

    /// Whether an earlier run left something.
    pub fn exist(&self) -> bool {
        fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Makes the directories, on a BPF file system that is mounted if there is none.
    ///
    /// # Errors
    ///
    /// Where the file system cannot be mounted or written, with the path; or a newer dataplane made the pins.
    pub fn create(&self) -> Result<()> {
        mount_if_missing(&self.root)?;
        self.refuse_newer()?;
        for directory in [self.maps(), self.slabs(), self.links(), self.filters()] {
            fs::create_dir_all(&directory).with_context(|| {
                format!("cannot create {} on the BPF file system (needs root)", directory.display())
            })?;
        }
        Ok(())
    }

    /// Whether every directory of this set is there.
    pub fn are_whole(&self) -> bool {
        [self.maps(), self.slabs(), self.links(), self.filters()].iter().all(|directory| directory.is_dir())
    }

    /// Finds the set whose place this run's is to take, with its layout version; `None` where ours is the one, with maps
    /// that can be used or without any.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be read, renamed or removed.
    pub fn previous(&self, sizes: Sizes) -> Result<Option<(Self, u32)>> {
        self.clear_retired()?;
        if let Some(previous) = self.other()? {
            // Ours is what a run left that was about to take its place: nothing uses it.
            self.discard_maps()?;
            return Ok(Some(previous));
        }
        let present = PINNED_MAPS.iter().filter(|name| self.maps().join(name).exists()).count();
        let fits = |(name, wanted): (&str, u32)| {
            MapInfo::from_pin(self.maps().join(name)).is_ok_and(|map| map.max_entries() == wanted)
        };
        if let Some(foreign) = self.foreign()? {
            warn!("{} is no map that this program makes: the tables are rebuilt", foreign.display());
            self.discard_maps()?;
            return Ok(None);
        }
        if present == 0 || (present == PINNED_MAPS.len() && sizes.maps().into_iter().all(fits)) {
            return Ok(None);
        }
        if present != PINNED_MAPS.len() {
            warn!(present, wanted = PINNED_MAPS.len(), "pinned maps are missing: all are rebuilt");
            self.discard_maps()?;
            return Ok(None);
        }
        info!(?sizes, "the pinned maps are of other sizes: they are made anew, and filled from those");
        let old = self.of(&format!("{}{OLD}", self.set));
        rename(&self.directory(), &old.directory())?;
        self.create()?;
        Ok(Some((old, LAYOUT_VERSION)))
    }

    /// A pin in the place of a map that is none of ours.
    fn foreign(&self) -> Result<Option<PathBuf>> {
        let is_ours = |path: &Path, shape: Shape| {
            MapInfo::from_pin(path).is_ok_and(|map| {
                let kind = map.map_type().map_or(0, |kind| kind as u32);
                Shape { kind, key: map.key_size(), value: map.value_size() } == shape
            })
        };
        let pins = object::shapes()?.into_iter().map(|(name, shape)| (self.maps().join(name), shape));
        let foreign = pins.filter(|(path, _)| path.exists()).find(|(path, shape)| !is_ours(path, *shape));
        Ok(foreign.map(|(path, _)| path))
    }

    fn refuse_newer(&self) -> Result<()> {
        for set in self.sets()? {
            if let Some((version, _)) = parse_set(&set.set).filter(|(version, _)| *version > LAYOUT_VERSION) {
                bail!(
                    "{} is of layout {version}, which a newer dataplane made; this one knows layouts up to \
                     {LAYOUT_VERSION}: start the newer one, or take its data path away with `dataplane detach`, which \
                     ends the translations",
                    set.directory().display()
                );
            }
        }
        Ok(())
    }

    /// The set of another daemon, or of other sizes, that is forwarding.
    fn other(&self) -> Result<Option<(Self, u32)>> {
        let sets = self.sets()?;
        let versions = sets.iter().filter_map(|set| Some((set, parse_set(&set.set)?)));
        let others = versions.filter(|(set, _)| set.set != self.set);
        let newest = others.max_by_key(|(_, version)| *version);
        Ok(newest.map(|(set, (version, _))| (set.clone(), version)))
    }

    /// Every set that is there.
    fn sets(&self) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read {}", self.root.display()))?,
        };
        let mut sets = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("cannot read {}", self.root.display()))?.file_name();
            let name = name.to_str().filter(|name| *name == RETIRED || parse_set(name).is_some());
            sets.extend(name.map(|name| self.of(name)));
        }
        Ok(sets)
    }

    /// Makes this set the one that counts, in the place of `previous`, whose hooks it takes over.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be moved.
    pub fn replace(&self, previous: &Self) -> Result<()> {
        rename(&previous.directory(), &self.of(RETIRED).directory())?;
        self.clear_retired()
    }

    /// Goes on where a set was retired: no other one counts any more.
    fn clear_retired(&self) -> Result<()> {
        if !self.of(RETIRED).directory().exists() {
            return Ok(());
        }
        self.gather()?;
        for other in self.sets()?.iter().filter(|other| other.set != self.set) {
            let directory = other.directory();
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        Ok(())
    }

    /// Takes the links and filters of every other set into this one.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be moved.
    pub fn gather(&self) -> Result<()> {
        for other in self.sets()?.iter().filter(|other| other.set != self.set) {
            for (from, to) in [(other.links(), self.links()), (other.filters(), self.filters())] {
                let Ok(pins) = fs::read_dir(&from) else { continue };
                fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
                for pin in pins {
                    let name = pin.with_context(|| format!("cannot read {}", from.display()))?.file_name();
                    rename(&from.join(&name), &to.join(&name))?;
                }
            }
        }
        Ok(())
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

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
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
