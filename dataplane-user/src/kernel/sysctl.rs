//! The few switches of the kernel that the slow path needs.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

fn path(interface: &str, name: &str) -> PathBuf {
    // A dot in an interface's name is a dot in the file's name: only sysctl(8) writes them differently.
    PathBuf::from("/proc/sys/net/ipv4/conf").join(interface).join(name)
}

/// Whether the kernel forwards IPv4 packets that come in by the interface.
///
/// # Errors
///
/// Where the interface is gone.
pub fn forwarding(interface: &str) -> Result<bool> {
    let path = path(interface, "forwarding");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim() != "0")
}

/// Makes the kernel forward IPv4 packets that come in by the interface.
///
/// # Errors
///
/// Where the interface is gone, or `/proc/sys` is read-only.
pub fn enable_forwarding(interface: &str) -> Result<()> {
    let path = path(interface, "forwarding");
    fs::write(&path, "1").with_context(|| format!("cannot write {}", path.display()))
}
