//! Where generated packets end: counted there, and gone.

use anyhow::{Context as _, Result};
use tests::harness::Namespace;

/// Drops all UDP that comes into a namespace, in the raw table: before connection tracking, routing and
/// sockets, so that every path pays the same for it.
pub(super) struct RawDrop<'a> {
    place: &'a Namespace,
}

impl<'a> RawDrop<'a> {
    /// Puts it there; it goes with the namespace.
    pub(super) fn new(place: &'a Namespace) -> Result<Self> {
        place
            .run(["iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "DROP"])
            .ok()
            .context("the sink in a container is a rule of iptables' raw table")?;
        Ok(Self { place })
    }

    /// Packets that came until now.
    pub(super) fn count(&self) -> Result<u64> {
        let list =
            self.place.run(["iptables", "-w", "-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n"]).ok()?;
        let rule = list.lines().find(|line| line.contains("DROP"));
        let packets = rule.and_then(|line| line.split_whitespace().next());
        packets
            .and_then(|count| count.parse().ok())
            .with_context(|| format!("no count of packets in:\n{list}"))
    }
}
