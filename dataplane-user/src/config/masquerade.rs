//! `[[masquerade]]`: whose packets leave with an address of the node.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use dataplane_common::flow::rule::MAX_EXCLUDES;
use ipnet::Ipv4Net;
use toml::de::DeTable;

use super::address;
use super::datapath::{Egress, HostPorts, Netfilter};
use super::report::{Fault, Placed, Report};
use super::schema::{Form, Schema};
use super::section::Section;
use super::system::System;
use super::value;
use crate::port_set::PortSet;

/// One rule of translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// Packets from here are translated...
    pub source: Ipv4Net,
    /// ...unless they go here; every pool by default...
    pub exclude: Vec<Ipv4Net>,
    /// ...where they leave by this uplink; `None` for any...
    pub interface: Option<String>,
    /// ...to this address; `None` for the primary one of the interface, whatever it is at the time...
    pub address: Option<Ipv4Addr>,
    /// ...and one of these ports; `None` for [`DEFAULT_PORTS`], whichever of them the host does not use.
    pub ports: Option<RangeInclusive<u16>>,
}

/// The ports of rules that give none. Below are those that services listen at.
pub const DEFAULT_PORTS: RangeInclusive<u16> = 16384..=65535;

/// Ephemeral ports that the host keeps for itself, where it has as many.
pub const HOST_PORTS: usize = 8192;

pub(super) const SCHEMA: Schema = Schema {
    name: "masquerade",
    parent: "",
    form: Form::Many,
    keys: &[
        ("source", "\"172.19.0.0/16\""),
        ("exclude", "[\"172.19.0.0/16\", \"10.141.0.0/16\"]"),
        ("interface", "\"eth1\""),
        ("address", "\"192.168.200.172\""),
        ("ports", "\"16384-65535\""),
    ],
    sections: &[],
};

/// A [`Masquerade`] of the file; `None` where a value is not given, or wrong, which has been reported.
pub(super) struct Draft {
    pub(super) at: usize,
    source: Option<Placed<Ipv4Net>>,
    exclude: Option<Vec<Placed<Ipv4Net>>>,
    pub(super) interface: Option<Placed<String>>,
    pub(super) address: Option<Placed<Ipv4Addr>>,
    ports: Option<Placed<RangeInclusive<u16>>>,
}

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Vec<Draft> {
    let rules = Section::each(tree, &SCHEMA, report, |section| Draft {
        at: section.at(),
        source: section.required_text("source", address::network),
        exclude: section.texts("exclude", address::any_network),
        interface: section.text("interface", value::interface),
        address: section.text("address", address::host),
        ports: section.text("ports", value::ports),
    });
    rules.into_iter().flatten().collect()
}

impl Draft {
    pub(super) fn build(&self, pools: &[Ipv4Net]) -> Option<Masquerade> {
        Some(Masquerade {
            source: self.source.as_ref()?.value,
            exclude: match &self.exclude {
                Some(list) => list.iter().map(|network| network.value).collect(),
                None => pools.to_vec(),
            },
            interface: self.interface.as_ref().map(|interface| interface.value.clone()),
            address: self.address.as_ref().map(|address| address.value),
            ports: self.ports.as_ref().map(|ports| ports.value.clone()),
        })
    }
}

/// Compares the rules with each other, with the uplinks, and with the ports that the host uses itself.
pub(super) fn check(draft: &super::Draft, system: &dyn System, report: &mut Report<'_>) {
    let (rules, uplinks) = (&draft.masquerade, draft.node.uplinks.as_deref());
    let only_for_rules = [
        ("`max-flows`", draft.datapath.max_flows.as_ref().map(|key| key.at)),
        ("`max-flows-per-source`", draft.datapath.max_flows_per_source.as_ref().map(|key| key.at)),
        ("[timeouts]", draft.timeouts.at),
    ];
    for (name, at) in only_for_rules {
        let is_unused = rules.is_empty() && draft.datapath.datapath.netfilter == Netfilter::Bypass;
        if let Some(at) = at.filter(|_| is_unused) {
            let message = format!("{name} has no effect without a [[masquerade]]");
            report.warning(at, Fault::new(message, "remove it, or add a rule"));
        }
    }
    if draft.network.pools.len() > MAX_EXCLUDES
        && let Some(rule) = rules.iter().find(|rule| rule.exclude.is_none())
    {
        let message = format!("more than {MAX_EXCLUDES} pools, which are `exclude` where it is not given");
        report.error(rule.at, Fault::new(message, "write `exclude` with fewer and larger networks"));
    }
    if let (Egress::Kernel, Some(rule)) = (draft.datapath.datapath.egress, rules.first()) {
        let message = "`egress = \"kernel\"` leaves to the kernel what is to be translated here";
        report.error(rule.at, Fault::new(message, "write `egress = \"bpf\"`, or remove the rule"));
    }
    if let (Some(rule), []) = (rules.iter().find(|rule| rule.exclude.is_none()), &draft.network.pools[..]) {
        let message = "without `exclude`, and without any [[pool]] that it could be, packets to other nodes' \
                       containers are translated as well";
        report.warning(
            rule.at,
            Fault::new(message, "add the [[pool]], or write `exclude = []` if it is meant"),
        );
    }
    for (index, rule) in rules.iter().enumerate() {
        check_host_ports(rule, draft.datapath.datapath.host_ports, system, report);
        check_addresses(rule, system, report);
        warn_of_other_interface(rule, uplinks, report);
        let Some(source) = &rule.source else { continue };
        let same = |other: &&Draft| {
            let interface = |draft: &Draft| draft.interface.as_ref().map(|interface| interface.value.clone());
            other.source.as_ref().is_some_and(|other| other.value == source.value)
                && interface(other) == interface(rule)
        };
        if let Some(other) = rules[..index].iter().find(same) {
            let message = format!(
                "packets from {} by the same interface are translated in line {} already",
                source.value,
                report.line(other.at)
            );
            report.error(source.at, Fault::new(message, "remove one of the two rules"));
        }
    }
}

/// A translation must never take a port that a connection of the host itself can be given.
fn check_host_ports(rule: &Draft, host_ports: HostPorts, system: &dyn System, report: &mut Report<'_>) {
    let Some((ports, host)) = rule.ports.as_ref().zip(system.ephemeral_ports()) else { return };
    let (given, ephemeral) = (PortSet::from(ports.value.clone()), PortSet::from(host.clone()));
    let (common, reserved) = (&given & &ephemeral, system.reserved_ports());
    let (taken, rest) = (&common - &reserved, &(&ephemeral - &given) - &reserved);
    if taken.is_empty() {
        return;
    }
    let message = format!(
        "the ports {given} overlap {}-{}, from which the host takes those of its own connections",
        host.start(),
        host.end()
    );
    if host_ports == HostPorts::Leave {
        let reserve = format!("reserve them with `sysctl -w net.ipv4.ip_local_reserved_ports={common}`");
        let fix = format!("write `host-ports = \"reserve\"` into [datapath], remove the line, or {reserve}");
        report.error(ports.at, Fault::new(message, fix));
    } else if rest.len() < HOST_PORTS {
        let message = format!("{message}, of which it keeps {HOST_PORTS}: not all of these are used");
        report.warning(ports.at, Fault::new(message, "remove the line, or give fewer ports"));
    }
}

/// What can be told to have no effect, or the wrong one.
fn check_addresses(rule: &Draft, system: &dyn System, report: &mut Report<'_>) {
    if let Some(address) = rule.address.as_ref().filter(|address| !system.has_address(address.value)) {
        let message = format!("{} is no address of this node, so no answer would come back", address.value);
        report.warning(address.at, Fault::new(message, "add it to an interface, or remove the line"));
    }
    let Some(excludes) = &rule.exclude else { return };
    if let Some(first) = excludes.get(MAX_EXCLUDES) {
        let message = format!("more than {MAX_EXCLUDES} networks in `exclude`");
        report.error(first.at, Fault::new(message, "write fewer and larger ones"));
    }
    for exclude in excludes {
        let network = exclude.value;
        let never_leaves = |other: &Ipv4Net| other.contains(&network);
        if NEVER_LEAVES.iter().any(never_leaves) {
            let message = format!("no packet to {network} leaves by an uplink: excluding it has no effect");
            report.warning(exclude.at, Fault::new(message, "remove it"));
        }
    }
}

/// This network, loopback, multicast and what is reserved (RFC 6890).
const NEVER_LEAVES: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Replies come back by the uplink that the packets left by, and need our program there.
fn warn_of_other_interface(rule: &Draft, uplinks: Option<&[Placed<String>]>, report: &mut Report<'_>) {
    let (Some(interface), Some(uplinks)) = (&rule.interface, uplinks) else { return };
    if uplinks.iter().all(|uplink| uplink.value != interface.value) {
        let message = format!("interface `{}` is not among the uplinks", interface.value);
        report
            .warning(interface.at, Fault::new(message, "add it to `uplinks` of [node], or correct the name"));
    }
}
