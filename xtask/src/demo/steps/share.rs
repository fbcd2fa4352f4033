//! The last account: how many of the containers' packets BPF carried, and how many the kernel forwarded.

use std::collections::BTreeMap;
use std::fmt;

use ::tests::harness::traffic;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::demo::screen::Told;
use crate::demo::site::Site;

/// The packets of one node, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Carried by BPF; an aggregate (GSO, GRO) counts once, and an answered ARP request as a packet.
    bpf: u64,
    /// Forwarded by the kernel's own stack.
    kernel: u64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = (self.bpf + self.kernel).max(1);
        let percent = self.bpf as f64 * 100.0 / total as f64;
        write!(
            f,
            "{} packets by BPF, {} forwarded by the kernel: {percent:.1} % by BPF",
            self.bpf, self.kernel
        )
    }
}

pub(super) fn check(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let mut total = Share::default();
    let mut lines = Vec::new();
    for (node, managed) in site.nodes() {
        told.command("", managed.command("status"));
        told.command(&node.name, "grep ^Ip: /proc/net/snmp");
        let status = managed.status()?;
        let bpf = status["packets"]["forwarded"].as_u64().context("status tells no packets")?;
        let at_xdp = status["packets_by_hook"]["xdp-from-uplink"]["forwarded"].as_u64().unwrap_or(0);
        let kernel = traffic::ip_forw_datagrams(node)? - managed.forwarded_before;
        ensure!(bpf > 0, "{}: BPF carried nothing", node.name);
        lines.push(format!("{}: {}", node.name, Share { bpf, kernel }));
        if at_xdp > 0 {
            lines.push(format!("       {at_xdp} of them at XDP"));
        }
        lines.push(format!("       {}", besides(&managed.daemon.cli(&["drops", "--json"])?)?));
        total = Share { bpf: total.bpf + bpf, kernel: total.kernel + kernel };
    }
    lines.push(format!("all:   {total}"));
    let lines = lines.join("\n");
    ensure!(total.kernel == 0, "all of this was for BPF, and yet:\n{lines}");
    told.result(lines);
    Ok(())
}

/// What was left to the kernel though not for forwarding, and what was dropped, by the rows of `dataplane drops`.
fn besides(rows: &Value) -> Result<String> {
    let rows = rows.as_array().context("drops is no list")?;
    let mut words = Vec::new();
    for (verb, class) in [("left to the kernel", "pass"), ("dropped", "drop")] {
        let mut by_reason = BTreeMap::new();
        // What XDP passes, tc counts for what becomes of it.
        let is_final = |row: &&Value| class != "pass" || row["hook"] != "xdp-from-uplink";
        for row in rows.iter().filter(|row| row["class"] == class).filter(is_final) {
            let (reason, packets) = (row["reason"].as_str(), row["packets"].as_u64());
            *by_reason.entry(reason.context("no reason")?).or_insert(0) += packets.context("no packets")?;
        }
        let by_reason: Vec<String> =
            by_reason.iter().map(|(reason, packets)| format!("{packets} {reason}")).collect();
        let list = if by_reason.is_empty() { "nothing".to_owned() } else { by_reason.join(", ") };
        words.push(format!("{verb}: {list}"));
    }
    Ok(words.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_share_is_told_in_percent() {
        let told = |bpf, kernel| Share { bpf, kernel }.to_string();
        assert_eq!(told(300, 0), "300 packets by BPF, 0 forwarded by the kernel: 100.0 % by BPF");
        assert_eq!(told(1, 2), "1 packets by BPF, 2 forwarded by the kernel: 33.3 % by BPF");
        assert_eq!(told(0, 0), "0 packets by BPF, 0 forwarded by the kernel: 0.0 % by BPF");
    }

    #[test]
    fn what_bpf_did_not_carry_is_told_by_reason() -> Result<()> {
        let row = |class: &str, reason: &str, packets| json!({"class": class, "reason": reason, "packets": packets});
        let rows = json!([row("pass", "to-host", 4), row("pass", "arp", 1), row("pass", "arp", 2)]);
        assert_eq!(besides(&rows)?, "left to the kernel: 3 arp, 4 to-host; dropped: nothing");
        assert!(besides(&json!({"error": "none"})).is_err());
        Ok(())
    }
}
