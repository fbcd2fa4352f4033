//! Which interface is what, and whether it is there.

use std::collections::HashMap;

use super::super::Draft;
use super::super::report::{Fault, Placed, Report};
use super::super::system::System;

pub(super) fn check(draft: &Draft, system: &dyn System, report: &mut Report<'_>) {
    let uplinks = draft.node.uplinks.as_deref().unwrap_or_default();
    for uplink in uplinks {
        refuse_workload(uplink, &draft.node.node.workload_prefix, report);
        warn_if_missing(uplink, system, report);
    }
    let by_name: HashMap<&str, &Placed<String>> =
        uplinks.iter().rev().map(|uplink| (uplink.value.as_str(), uplink)).collect();
    for interface in draft.network.endpoints.iter().filter_map(|endpoint| endpoint.interface.as_ref()) {
        if let Some(uplink) = by_name.get(interface.value.as_str()) {
            let fault = Fault::new(
                format!("`{}` is an uplink, by line {}", interface.value, report.line(uplink.at)),
                "write the host side of the container's veth",
            );
            report.error(interface.at, fault);
        }
        warn_if_missing(interface, system, report);
    }
    for interface in draft.masquerade.iter().filter_map(|rule| rule.interface.as_ref()) {
        warn_if_missing(interface, system, report);
    }
}

fn refuse_workload(uplink: &Placed<String>, prefix: &str, report: &mut Report<'_>) {
    if uplink.value.starts_with(prefix) {
        let fault = Fault::new(
            format!(
                "uplink `{}` begins with the workload prefix `{prefix}`, as a container's veth does",
                uplink.value
            ),
            "correct the uplink, or `workload-prefix`",
        );
        report.error(uplink.at, fault);
    }
}

/// Interfaces come and go: the daemon takes one up when it appears.
fn warn_if_missing(interface: &Placed<String>, system: &dyn System, report: &mut Report<'_>) {
    if system.interface_exists(&interface.value) == Some(false) {
        let fault = Fault::new(
            format!("there is no interface `{}`", interface.value),
            "correct the name, or create it: it is taken up when it appears",
        );
        report.warning(interface.at, fault);
    }
}
