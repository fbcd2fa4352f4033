//! The demo's end: all of it, found by its names, whoever made it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::tests::harness::eventually;
use anyhow::{Context as _, Result, anyhow, bail};

use super::{DIRECTORY, holder, namespaces, pins};

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stops the daemons and removes pins (and with them what is attached), namespaces (and with them interfaces and
/// routes) and files. It starts no program, which a second Ctrl-C would end.
///
/// Gives a sentence for each process that somebody else started in a namespace and that still runs there.
pub(in super::super) fn remove() -> Result<Vec<String>> {
    let mut errors = Vec::new();
    let mut note = |result: Result<()>| errors.extend(result.err().map(|error| format!("{error:#}")));
    for directory in subdirectories(Path::new(DIRECTORY))? {
        note(stop_daemon(&directory));
    }
    for directory in pins()? {
        note(
            fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display())),
        );
    }
    let mut inhabitants = Vec::new();
    for mount in namespaces()? {
        inhabitants.extend(find_inhabitants(&mount));
        note(remove_namespace(&mount));
    }
    if errors.is_empty() {
        match fs::remove_dir_all(DIRECTORY) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                errors.push(format!("cannot remove {DIRECTORY}: {error}"));
            }
            _ => {}
        }
    }
    if !errors.is_empty() {
        bail!("something of the demo remains: {}", errors.join("; "));
    }
    Ok(inhabitants)
}

fn subdirectories(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let entries = entries.with_context(|| format!("cannot read {}", directory.display()))?;
    Ok(entries.iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// Ends the daemon that has its state in the directory, if one runs.
fn stop_daemon(directory: &Path) -> Result<()> {
    // A daemon holds its lock for as long as it lives, so the number in it is not yet another process's.
    let lock = directory.join("lock");
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let Some(pid) = holder(&lock)? else { return Ok(()) };
        let pid: i32 = pid.parse().with_context(|| format!("no process id in {}", lock.display()))?;
        // SAFETY: kill() touches no memory.
        if unsafe { libc::kill(pid, signal) } != 0 {
            let error = io::Error::last_os_error();
            return Err(error).with_context(|| format!("cannot stop the daemon (process {pid})"));
        }
        let ended = eventually(PATIENCE, || match holder(&lock)? {
            None => Ok(()),
            Some(pid) => Err(anyhow!("the daemon (process {pid}) still runs")),
        });
        if ended.is_ok() || signal == libc::SIGKILL {
            return ended;
        }
    }
    Ok(())
}

/// As `ip netns delete` does (ip-netns(8)): the kernel takes the namespace away with its last process.
fn remove_namespace(mount: &Path) -> Result<()> {
    let path = CString::new(mount.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that lives until after the call. It fails where a killed run made the file
    // and no namespace yet; whether something is left over shows below.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    fs::remove_file(mount).with_context(|| format!("cannot remove {}", mount.display()))
}

/// Processes in the namespace, in words.
fn find_inhabitants(mount: &Path) -> Vec<String> {
    let Ok(namespace) = fs::metadata(mount).map(|metadata| (metadata.dev(), metadata.ino())) else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let path = process.path();
            // Those that end meanwhile, and what in /proc is no process.
            let metadata = fs::metadata(path.join("ns/net")).ok()?;
            if (metadata.dev(), metadata.ino()) != namespace {
                return None;
            }
            let command = fs::read_to_string(path.join("comm")).unwrap_or_default();
            Some(format!(
                "{} (process {}) is still in {}, which goes when it ends",
                command.trim(),
                process.file_name().display(),
                mount.display()
            ))
        })
        .collect()
}
