//! Counters of the kernel's own stack.

use std::fs;

use anyhow::{Context, Result};

use crate::harness::netns::Namespace;

/// A counter of /proc/net/snmp in that namespace (RFC 4293 and 4022 name them): `snmp(&ns, "Ip", "ForwDatagrams")`.
///
/// # Errors
/// If there is no such counter.
pub fn snmp(namespace: &Namespace, group: &str, name: &str) -> Result<u64> {
    // /proc/net is the main thread's: only thread-self shows the namespace that was entered.
    let text = namespace.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    find(&text, group, name).with_context(|| format!("/proc/net/snmp has no {group} {name}"))
}

/// Packets that the kernel's IP stack forwarded: what the BPF data path carried is not among them.
///
/// # Errors
/// If the kernel does not tell.
pub fn ip_forw_datagrams(namespace: &Namespace) -> Result<u64> {
    snmp(namespace, "Ip", "ForwDatagrams")
}

/// TCP segments that the hosts in that namespace sent again.
///
/// # Errors
/// If the kernel does not tell.
pub fn tcp_retransmissions(namespace: &Namespace) -> Result<u64> {
    snmp(namespace, "Tcp", "RetransSegs")
}

/// TCP segments that the hosts in that namespace sent again and that had been lost: those are left out that the other
/// end had already, and said so (RFC 2883). A host sends such, too, when it has no CPU for a while.
///
/// # Errors
/// If the kernel does not tell.
pub fn tcp_losses(namespace: &Namespace) -> Result<u64> {
    let text = namespace.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/netstat")?))?;
    let needless = find(&text, "TcpExt", "TCPDSACKRecv").context("/proc/net/netstat has no TCPDSACKRecv")?;
    Ok(tcp_retransmissions(namespace)?.saturating_sub(needless))
}

/// The file has two lines for each group: the names, then the values.
fn find(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next()?, lines.next()?);
    let (_, value) = names.split(' ').zip(values.split(' ')).find(|(column, _)| *column == name)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_counter_by_its_name() {
        let text = "Ip: Forwarding ForwDatagrams\nIp: 1 42\nTcp: MaxConn RetransSegs\nTcp: -1 7\n";
        assert_eq!(find(text, "Ip", "ForwDatagrams"), Some(42));
        assert_eq!(find(text, "Tcp", "RetransSegs"), Some(7));
        assert_eq!(find(text, "Tcp", "ForwDatagrams"), None);
        assert_eq!(find(text, "Udp", "InDatagrams"), None);
    }
}
