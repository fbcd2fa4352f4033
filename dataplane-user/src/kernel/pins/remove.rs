//! Taking the pins away: what this program makes, by name, and nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use dataplane_common::{
    names::{LAYOUT_VERSION, PINNED_MAPS, RENEWED_MAPS},
    stats::Hook,
};
use rustix::mount::{UnmountFlags, unmount};

use super::{
    Pins,
    claim::{MOUNT_SOURCE, mount_source},
    parse_set,
};

/// What the kernel itself puts into the root of a new file system (`bpf_preload_ops` in kernel/bpf/inode.c).
const KERNEL_PINS: [&str; 2] = ["maps.debug", "progs.debug"];

impl Pins {
    /// Removes every set, those of other layout versions included, and the directory and its mount where nothing else is in
    /// it. Gives what is in it and none of this program's, and so stays.
    ///
    /// The caller has the claim.
    ///
    /// # Errors
    ///
    /// Where something cannot be removed.
    pub fn remove(&self) -> Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for set in self.sets()? {
            left.append(&mut set.remove_set()?);
        }
        let Ok(entries) = fs::read_dir(&self.root) else { return Ok(left) };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", self.root.display()))?.path();
            let is_kernel_s = KERNEL_PINS.iter().any(|name| path.ends_with(name));
            if !is_kernel_s && !left.iter().any(|inside| inside.starts_with(&path)) {
                left.push(path);
            }
        }
        if left.is_empty() {
            self.remove_root()?;
        }
        Ok(left)
    }

    fn remove_root(&self) -> Result<()> {
        match fs::remove_dir(&self.root) {
            // The file system is mounted there itself.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if mount_source(&self.root)?.as_deref() != Some(MOUNT_SOURCE) {
                    return Ok(());
                }
                // At once for everybody else, and in the end when the claim on the directory is let go.
                unmount(&self.root, UnmountFlags::DETACH)
                    .with_context(|| format!("cannot unmount {}", self.root.display()))?;
                fs::remove_dir(&self.root)
            }
            removed => removed,
        }
        .with_context(|| format!("cannot remove {}", self.root.display()))
    }

    /// Removes this set, and gives what in it is none of this program's.
    pub(super) fn remove_set(&self) -> Result<Vec<PathBuf>> {
        let version = parse_set(&self.set).map_or(LAYOUT_VERSION, |(version, _)| version);
        let is_map = |path: &Path, name: &str| {
            let known = PINNED_MAPS.iter().chain(RENEWED_MAPS).any(|known| *known == name);
            // Another version's names are not known: they look like ours, and are maps.
            known || version != LAYOUT_VERSION && looks_like_map(name) && MapInfo::from_pin(path).is_ok()
        };
        let mut left = Vec::new();
        // The maps last: by them a set is known.
        for (directory, is_ours) in [
            (self.links(), &(|_: &Path, name: &str| is_hook_pin(name)) as &dyn Fn(&Path, &str) -> bool),
            (self.filters(), &|_, name| is_hook_pin(name)),
            (self.slabs(), &|_, name| name.parse::<u32>().is_ok()),
            (self.maps(), &is_map),
        ] {
            left.append(&mut remove_pins(&directory, is_ours)?);
        }
        remove_if_empty(&self.directory(), &mut left)?;
        Ok(left)
    }
}

/// Removes the pins in a directory that are ours, and it where nothing else is in it.
fn remove_pins(directory: &Path, is_ours: &dyn Fn(&Path, &str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let (path, is_file) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_file()));
        if is_file && entry.file_name().to_str().is_some_and(|name| is_ours(&path, name)) {
            super::remove_if_there(&path)?;
        }
    }
    let mut left = Vec::new();
    remove_if_empty(directory, &mut left)?;
    Ok(left)
}

/// Removes the directory, or notes what is in it, unless that is noted already.
fn remove_if_empty(directory: &Path, left: &mut Vec<PathBuf>) -> Result<()> {
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if !left.iter().any(|inside| inside.starts_with(&path)) {
                    left.push(path);
                }
            }
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", directory.display())),
    }
}

/// Whether a link or filter has that name: it begins with the hook and the interface's index.
fn is_hook_pin(name: &str) -> bool {
    Hook::ALL.iter().any(|hook| {
        let rest = name.strip_prefix(hook.name()).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.split(['-', '.']).next()).is_some_and(|index| index.parse::<u32>().is_ok())
    })
}

fn looks_like_map(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_are_known() {
        for name in ["from-uplink-2", "xdp-from-uplink-17", "from-container-9-49152-1", "from-uplink-3-0-0-q"]
        {
            assert!(is_hook_pin(name), "{name}");
        }
        for name in ["from-uplink", "from-uplink-", "from-uplink-x", "cilium_lxc", "2"] {
            assert!(!is_hook_pin(name), "{name}");
        }
    }
}
