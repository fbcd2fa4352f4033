//! Where the demo is on the machine, by fixed names: what one run leaves, another finds and removes.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

mod removal;

pub(super) use removal::remove;

/// How the names of the demo's namespaces and directories of pins begin.
pub(super) const PREFIX: &str = "dp-demo";
/// The nodes' files and control sockets, a directory for each.
const DIRECTORY: &str = "/run/dp-demo";
/// Directories of pins are made here.
const BPF_ROOT: &str = "/sys/fs/bpf";
/// Held by the run that made the demo, for as long as it runs.
const LOCK: &str = "lock";

/// What there is of a demo.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// Another process shows one at the moment.
    Running {
        /// Its process id.
        pid: String,
    },
    /// One was kept, or its process was killed.
    Kept,
}

/// Looks for a demo.
pub(super) fn found() -> Result<Found> {
    let path = Path::new(DIRECTORY).join(LOCK);
    if let Some(pid) = holder(&path)? {
        return Ok(Found::Running { pid });
    }
    let traces = Path::new(DIRECTORY).exists() || !pins()?.is_empty() || !namespaces()?.is_empty();
    Ok(if traces { Found::Kept } else { Found::Nothing })
}

/// An error unless there is nothing of a demo.
pub(super) fn demand_free() -> Result<()> {
    match found()? {
        Found::Nothing => Ok(()),
        Found::Running { pid } => bail!("{}", running(&pid)),
        Found::Kept => bail!(
            "a demo is up already (state in {DIRECTORY}, namespaces {PREFIX}-*): `cargo xtask demo --remove` \
             removes it"
        ),
    }
}

/// The sentence for a demo that is being shown.
pub(super) fn running(pid: &str) -> String {
    format!("a demo is running (process {pid}): wait for its end, or end it with Ctrl-C")
}

/// The process that holds a lock file in which it wrote its id; none if nobody does. Locks of that kind are
/// the demo's own, and each daemon's in its `state-dir`.
fn holder(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(fs::read_to_string(path)?.trim().to_owned())),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// The directories of pins of the demo's daemons.
fn pins() -> Result<Vec<PathBuf>> {
    entries(Path::new(BPF_ROOT))
}

/// The namespaces, by their mounts.
fn namespaces() -> Result<Vec<PathBuf>> {
    entries(Path::new(::tests::harness::netns::DIRECTORY))
}

/// What in the directory has a name of the demo's.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(failed),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name();
        if name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|rest| rest.starts_with('-'))
        {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The demo's place on the machine; dropped, the demo is removed.
pub(super) struct Place {
    /// The `dataplane` that is shown.
    pub(super) binary: PathBuf,
    finished: bool,
    _lock: File,
}

impl Place {
    /// Takes the place, which must be free.
    pub(super) fn take(binary: PathBuf) -> Result<Self> {
        demand_free()?;
        // Of two that come at the same time, one makes the directory.
        fs::create_dir(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}"))?;
        let path = Path::new(DIRECTORY).join(LOCK);
        let lock = || -> io::Result<File> {
            let mut file = File::create_new(&path)?;
            file.lock()?;
            writeln!(file, "{}", std::process::id())?;
            Ok(file)
        };
        let lock = lock().with_context(|| format!("cannot make and lock {}", path.display()))?;
        Ok(Self { binary, finished: false, _lock: lock })
    }

    /// Makes the directory for the files and the control socket of a node's daemon.
    pub(super) fn node_directory(&self, node: &str) -> Result<PathBuf> {
        let directory = Path::new(DIRECTORY).join(node);
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    /// The directory for the pins of a node's daemon.
    pub(super) fn bpf_dir(&self, node: &str) -> PathBuf {
        Path::new(BPF_ROOT).join(format!("{PREFIX}-{node}"))
    }

    /// Leaves everything as it is.
    pub(super) fn keep(mut self) {
        self.finished = true;
    }

    /// Removes everything.
    pub(super) fn remove(mut self) -> Result<()> {
        self.finished = true;
        for note in remove()? {
            eprintln!("{note}");
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = remove()
        {
            eprintln!("the demo is not removed: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_held_lock_has_a_holder() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("xtask-demo-lock-{}", std::process::id()));
        fs::create_dir(&directory)?;
        let path = directory.join(LOCK);
        assert_eq!(holder(&path)?, None);
        let mut file = File::create_new(&path)?;
        writeln!(file, "4711")?;
        assert_eq!(holder(&path)?, None);
        file.lock()?;
        assert_eq!(holder(&path)?.as_deref(), Some("4711"));
        drop(file);
        assert_eq!(holder(&path)?, None);
        fs::remove_dir_all(&directory)?;
        Ok(())
    }
}
