//! What the daemon has in its state directory, besides its lock.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};

use super::lock::mend;
use crate::{
    config::Config,
    kernel::{pinned::BPF_LINK, reserved_ports::ReservedPorts},
};

/// Leaves word in the state directory where the pins are, for commands that do without a daemon.
pub(super) fn link_pins(config: &Config) -> Result<()> {
    let link = config.node.state_dir.join(BPF_LINK);
    remove_file(&link)?;
    symlink(&config.node.bpf_dir, &link)
        .map_err(mend)
        .with_context(|| format!("cannot make the link {}", link.display()))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what a daemon left in its state directory, with what that tells of, and the directory where nothing else is in
/// it.
///
/// # Errors
///
/// Where a file cannot be removed, or the host's reserved ports cannot be put back.
pub fn remove_state(state_dir: &Path) -> Result<()> {
    ReservedPorts::new(state_dir).put_back()?;
    for name in ["control.sock", BPF_LINK, "lock"] {
        remove_file(&state_dir.join(name))?;
    }
    // Not empty: it holds somebody else's files, too.
    let _ = fs::remove_dir(state_dir);
    Ok(())
}
