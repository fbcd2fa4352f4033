//! What a data path may leave on a node.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use aya::programs::{
    ProgramError,
    tc::{SchedClassifier, TcAttachType},
};
use dataplane_common::names::ROUTE_PROTOCOL;
use serde_json::Value;

use crate::harness::netns::Namespace;

/// How the names of the data path's programs begin (as `bpftool` shows them, cut at 15 characters).
const PROGRAM_PREFIXES: &[&str] = &["from_container", "from_uplink", "to_container"];

/// The pins, the attached programs and the routes of our protocol, in words.
pub(super) fn find(namespace: &Namespace, bpf_dir: &Path) -> Result<Vec<String>> {
    let mut found = pins(bpf_dir)?;
    let attached = namespace.run(["bpftool", "--json", "net", "show"]).ok()?;
    programs(&serde_json::from_str(&attached).context("bpftool prints no JSON")?, &mut found);
    found.extend(tcx_programs(namespace)?);
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

/// Our programs among the TCX links, of which an older bpftool (7.1) shows nothing.
fn tcx_programs(namespace: &Namespace) -> Result<Vec<String>> {
    let links: Vec<Value> = serde_json::from_str(&namespace.ip("-j link show")?)?;
    namespace.enter(|| {
        let mut found = Vec::new();
        for interface in links.iter().filter_map(|link| link["ifname"].as_str()) {
            for (direction, hook) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
                let programs = match SchedClassifier::query_tcx(interface, hook) {
                    Ok((_, programs)) => programs,
                    // Linux before 6.6 does not know the hook (bpf_prog_query() in kernel/bpf/syscall.c).
                    Err(ProgramError::SyscallError(error))
                        if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
                    {
                        return Ok(found);
                    }
                    Err(error) => return Err(error).context(format!("cannot query {interface}'s programs")),
                };
                let names = programs.iter().filter_map(|program| program.name_as_str());
                let own = names.filter(|name| PROGRAM_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
                found.extend(own.map(|name| format!("program {name} at tcx {direction} of {interface}")));
            }
        }
        Ok(found)
    })
}

/// Finds the objects that describe one of our programs, at whatever hook `bpftool` lists them.
fn programs(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| programs(item, found)),
        Value::Object(members) => {
            let name = members.get("name").and_then(Value::as_str).unwrap_or_default();
            if PROGRAM_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
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
