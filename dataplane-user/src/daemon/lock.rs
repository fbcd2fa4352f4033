//! One daemon for each state directory.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use tracing::warn;

/// Held while the daemon lives; the kernel lets it go however the process ends.
pub struct Lock(#[expect(dead_code, reason = "holds the lock")] File);

impl Lock {
    /// Makes the directory and takes its lock.
    ///
    /// # Errors
    ///
    /// Where another daemon holds it, or the directory cannot be written.
    pub fn take(state_dir: &Path) -> Result<Self> {
        fs::create_dir_all(state_dir)
            .map_err(mend)
            .with_context(|| format!("cannot make the state directory {}", state_dir.display()))?;
        let path = state_dir.join("lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(mend)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                bail!(
                    "the state directory {} is in use by another daemon (pid {}): stop that one, or give this \
                     one a `node.state-dir` of its own",
                    state_dir.display(),
                    holder.trim()
                );
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // Only for those who find the directory in use. A full disk is no reason not to forward.
        if let Err(error) = write_pid(&mut file) {
            warn!("cannot note the process id in {}: {:#}", path.display(), mend(error));
        }
        Ok(Self(file))
    }
}

/// The error with what helps.
pub(super) fn mend(error: io::Error) -> anyhow::Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "make room on its file system, or name another directory with `node.state-dir`"
        }
        Some(libc::EROFS) => "name a directory that can be written with `node.state-dir`",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}: {hint}")
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}
