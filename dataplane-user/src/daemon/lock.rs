//! One daemon for each state directory.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tracing::warn;

use crate::kernel::ownership::check_owner;

/// Held while the daemon lives; the kernel lets it go however the process ends.
pub struct Lock(#[expect(dead_code, reason = "holds the lock")] File);

/// Another daemon holds the lock: its directory and process id.
#[derive(Debug)]
pub struct InUse(PathBuf, String);

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the state directory {} is in use by another daemon (pid {}): stop that one, or give this one a \
             `node.state-dir` of its own",
            self.0.display(),
            self.1
        )
    }
}

impl std::error::Error for InUse {}

impl Lock {
    /// Makes the directory and takes its lock.
    ///
    /// # Errors
    ///
    /// Where another daemon holds it, it is somebody else's, or it cannot be written.
    pub fn take(state_dir: &Path) -> Result<Self> {
        make_directory(state_dir)?;
        let path = state_dir.join("lock");
        let mut file = loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    let holder = fs::read_to_string(&path).unwrap_or_default();
                    return Err(InUse(state_dir.to_owned(), holder.trim().to_owned()).into());
                }
                Err(fs::TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // A detach may have removed it meanwhile, and the directory with it.
            let (held, now) = (file.metadata()?, fs::symlink_metadata(&path));
            if now.is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
                break file;
            }
            make_directory(state_dir)?;
        };
        // Only for those who find the directory in use. A full disk is no reason not to forward.
        if let Err(error) = write_pid(&mut file) {
            warn!("cannot note the process id in {}: {:#}", path.display(), mend(error));
        }
        Ok(Self(file))
    }
}

/// Makes the state directory, for root alone, and sees that it is no other user's.
fn make_directory(state_dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(mend)
        .with_context(|| format!("cannot make the state directory {}", state_dir.display()))?;
    // The link's owner could let it lead anywhere, and the directory's put anything into it.
    for metadata in [fs::symlink_metadata(state_dir), fs::metadata(state_dir)] {
        check_owner(
            state_dir,
            &metadata.with_context(|| format!("cannot look at {}", state_dir.display()))?,
        )?;
    }
    Ok(())
}

/// Opens the lock's file, which no other user can open and so hold.
fn open(path: &Path) -> Result<File> {
    let cannot = || format!("cannot open {}", path.display());
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    let options = options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(mend).with_context(cannot)?;
    let metadata = file.metadata().with_context(cannot)?;
    ensure!(metadata.is_file(), "{} is no file of a daemon's: remove it", path.display());
    check_owner(path, &metadata)?;
    if metadata.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).with_context(cannot)?;
    }
    Ok(file)
}

/// The error with what helps.
pub(super) fn mend(error: io::Error) -> anyhow::Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "make room on its file system, or name another directory with `node.state-dir`"
        }
        Some(libc::EROFS) => "name a directory that can be written with `node.state-dir`",
        Some(libc::ELOOP) => "it is a symbolic link, which is not followed: remove it",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}: {hint}")
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}
