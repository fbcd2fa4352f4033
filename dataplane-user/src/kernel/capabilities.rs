//! What the daemon must be allowed to do (capabilities(7)), looked at before the kernel refuses it in other words.

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability};

/// What is needed, and what for. `CAP_SYS_ADMIN` stands for the first two.
const NEEDED: [(Capability, &str); 4] = [
    (Capability::CAP_BPF, "to create maps and load programs"),
    (Capability::CAP_PERFMON, "to load programs that compute with pointers"),
    (Capability::CAP_NET_ADMIN, "to attach programs and to write routes"),
    (Capability::CAP_NET_BROADCAST, "to hear of the containers' network namespaces"),
];

/// Whether this process has all that is needed.
///
/// # Errors
///
/// Where something is missing: all of it, by name.
pub fn check() -> Result<()> {
    let held = caps::read(None, CapSet::Effective).context("cannot read this process's capabilities")?;
    let is_admin = held.contains(&Capability::CAP_SYS_ADMIN);
    let stands_in =
        |capability| is_admin && matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(capability, _)| !held.contains(capability) && !stands_in(*capability))
        .map(|(capability, purpose)| format!("{capability} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this process lacks {}: run it as root, or let its service have it (`CapabilityBoundingSet` of systemd, \
         `capabilities.add` of a container)",
        missing.join(", ")
    )
}
