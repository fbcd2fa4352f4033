//! Whether a directory or file may be relied on: what another user owns, that user changes as it likes.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Result, bail};

/// Sees that root or this process's user owns what is at the path.
///
/// # Errors
///
/// Where another user does.
pub fn check_owner(path: &Path, metadata: &Metadata) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let owner = metadata.uid();
    if owner == 0 || owner == own {
        return Ok(());
    }
    bail!(
        "{} belongs to user {owner}, who could change what is in it: give it to root (chown root:root), or name \
         another one",
        path.display()
    )
}
