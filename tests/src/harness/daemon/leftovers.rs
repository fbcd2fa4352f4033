//! What a data path may leave on a node.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use dataplane_common::names::ROUTE_PROTOCOL;
use serde_json::Value;

use crate::harness::{bpf, netns::Namespace};

/// How the names of the data path's programs begin (as `bpftool` shows them, cut at 15 characters).
const PROGRAM_PREFIXES: &[&str] = &["from_container", "from_uplink", "to_container"];

/// The pins, the attached programs and the routes of our protocol, in words.
pub(super) fn find(namespace: &Namespace, bpf_dir: &Path) -> Result<Vec<String>> {
    let mut found = pins(bpf_dir)?;
    let attached = namespace.run(["bpftool", "--json", "net", "show"]).ok()?;
    programs(&serde_json::from_str(&attached).context("bpftool prints no JSON")?, &mut found);
    tcx_programs(namespace, &mut found)?;
    for family in ["-4", "-6"] {
        let routes = namespace.ip(&format!("{family} route show table all proto {ROUTE_PROTOCOL}"))?;
        found.extend(routes.lines().map(|route| format!("route {}", route.trim())));
        // Not `rule show proto N`: iproute2 6.1 takes that, and shows every rule.
        let rules: Vec<Value> =
            serde_json::from_str(&namespace.ip(&format!("{family} -N -d -j rule show"))?)?;
        let own = ROUTE_PROTOCOL.to_string();
        found.extend(rules.iter().filter(|rule| rule["protocol"] == *own).map(|rule| format!("rule {rule}")));
    }
    Ok(found)
}

fn pins(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    entries.map(|entry| Ok(format!("pin {}", entry?.path().display()))).collect()
}

/// `bpftool` shows these, too, but not every version of it.
fn tcx_programs(namespace: &Namespace, found: &mut Vec<String>) -> Result<()> {
    let links: Vec<Value> = serde_json::from_str(&namespace.ip("-j link show")?)?;
    for link in &links {
        let ifindex = u32::try_from(link["ifindex"].as_u64().context("a link without an index")?)?;
        let names = bpf::tcx_programs(namespace, ifindex)?;
        let ours = names.iter().filter(|name| is_ours(name));
        found.extend(ours.map(|name| format!("program {name} at {}", link["ifname"])));
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    PROGRAM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Finds the objects that describe one of our programs, at whatever hook `bpftool` lists them.
fn programs(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| programs(item, found)),
        Value::Object(members) => {
            let name = members.get("name").and_then(Value::as_str).unwrap_or_default();
            if is_ours(name) {
                found.push(format!("program {value}"));
            }
            members.values().for_each(|member| programs(member, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_our_programs_among_others() {
        let mut found = Vec::new();
        let shown = json!([{"xdp": [], "tc": [
            {"devname": "eth0", "kind": "tcx/ingress", "name": "from_uplink", "prog_id": 3},
            {"devname": "eth0", "kind": "tcx/ingress", "name": "cil_from_netdev", "prog_id": 4},
        ]}]);
        programs(&shown, &mut found);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("\"prog_id\":3"), "{found:?}");
    }
}
