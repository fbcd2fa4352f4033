//! `[datapath]`: which programs go where, and how large their tables are.

use std::fmt;

use dataplane_common::{flow::index::MAX_SLOTS, route::MAX_INDEX};
use ipnet::Ipv4Net;
use toml::de::DeTable;

use super::address;
use super::report::{Fault, Placed, Report, quoted};
use super::schema::{Form, Schema};
use super::section::Section;
use super::value::{self, Choice};

/// The programs and their tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datapath {
    /// Where the program of an uplink runs.
    pub uplink_hook: UplinkHook,
    /// How programs are attached to tc.
    pub tc_attach: TcAttach,
    /// Who carries what goes to no container.
    pub egress: Egress,
    /// Who decides about connections.
    pub netfilter: Netfilter,
    /// Of those that the kernel decides: which stay with it, by their mark...
    pub skip_mark: Option<SkipMark>,
    /// ...and by the addresses of their ends.
    pub skip: Vec<Ipv4Net>,
    /// Whether ephemeral ports of the host are reserved for translations.
    pub host_ports: HostPorts,
    /// Whether the kernel's routes `ADDRESS dev caliX scope link` are taken as endpoints.
    pub discover: bool,
    /// Whether the kernel's own routes are kept in step, as the slow path.
    pub kernel_routes: bool,
    /// Most endpoints of this node, 1 to [`MAX_ENDPOINTS`].
    pub max_endpoints: u32,
    /// Most routes, 1 to [`MAX_ROUTES`].
    pub max_routes: u32,
    /// Most translations, 1 to [`MAX_FLOWS`].
    pub max_flows: u32,
    /// Most translations of one source; half of all where it is not given.
    pub max_flows_per_source: Option<u32>,
}

/// Where the program of an uplink runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkHook {
    /// Where it is faster, as far as driver, features and role tell.
    Auto,
    /// At tc ingress, behind GRO.
    Tc,
    /// In the driver, before there is an skb; what needs one goes on to tc.
    Xdp,
}

/// How programs are attached to tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcAttach {
    /// TCX links where the kernel has them, clsact filters elsewhere.
    Auto,
    /// TCX links: Linux 6.6 and later.
    Tcx,
    /// Filters of a clsact queueing discipline.
    Clsact,
}

/// Who carries containers' packets that are for no container: by a default route or to a connected network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// BPF, where they leave by an uplink.
    Bpf,
    /// The kernel, with its iptables and nftables rules; it gets what comes from there as well.
    Kernel,
}

/// Who decides which connections there are, and by which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netfilter {
    /// BPF. The node's iptables and nftables rules do not hold for what it carries.
    Bypass,
    /// The kernel with its rules; BPF carries what is established.
    Respect,
}

/// A mark of connection tracking: the value that the bits of a mask have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkipMark {
    /// The value of those bits.
    pub value: u32,
    /// Which bits.
    pub mask: u32,
}

impl SkipMark {
    /// Whether a connection with that mark is meant.
    pub const fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

/// What becomes of the ports that the host takes for its own connections, where a rule has them, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPorts {
    /// All but some thousands are reserved (`net.ipv4.ip_local_reserved_ports`), and so the rule's.
    Reserve,
    /// They stay the host's.
    Leave,
}

/// What an endpoint's index can count.
pub const MAX_ENDPOINTS: u32 = MAX_INDEX;
/// Every /24 there is.
pub const MAX_ROUTES: u32 = 1 << 24;
/// Half of what a reference in the flow table can tell apart.
pub const MAX_FLOWS: u32 = MAX_SLOTS / 2;

impl Default for Datapath {
    fn default() -> Self {
        Self {
            uplink_hook: UplinkHook::Auto,
            tc_attach: TcAttach::Auto,
            egress: Egress::Bpf,
            netfilter: Netfilter::Bypass,
            skip_mark: None,
            skip: Vec::new(),
            host_ports: HostPorts::Reserve,
            discover: true,
            kernel_routes: true,
            max_endpoints: 4096,
            max_routes: 1 << 20,
            max_flows: 1 << 18,
            max_flows_per_source: None,
        }
    }
}

impl Choice for UplinkHook {
    const ALL: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("tc", Self::Tc), ("xdp", Self::Xdp)];
}

impl Choice for TcAttach {
    const ALL: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("tcx", Self::Tcx), ("clsact", Self::Clsact)];
}

impl Choice for Egress {
    const ALL: &'static [(&'static str, Self)] = &[("bpf", Self::Bpf), ("kernel", Self::Kernel)];
}

impl Choice for Netfilter {
    const ALL: &'static [(&'static str, Self)] = &[("bypass", Self::Bypass), ("respect", Self::Respect)];
}

impl Choice for HostPorts {
    const ALL: &'static [(&'static str, Self)] = &[("reserve", Self::Reserve), ("leave", Self::Leave)];
}

/// As it is written in the file.
impl fmt::Display for UplinkHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value::word(*self))
    }
}

/// As it is written in the file.
impl fmt::Display for TcAttach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value::word(*self))
    }
}

pub(super) const SCHEMA: Schema = Schema {
    name: "datapath",
    parent: "",
    form: Form::Single,
    keys: &[
        ("uplink-hook", "\"auto\""),
        ("tc-attach", "\"auto\""),
        ("egress", "\"bpf\""),
        ("netfilter", "\"bypass\""),
        ("skip-mark", "\"0x10000/0x10000\""),
        ("skip", "[\"192.0.2.0/24\"]"),
        ("host-ports", "\"reserve\""),
        ("discover", "true"),
        ("kernel-routes", "true"),
        ("max-endpoints", "4096"),
        ("max-routes", "1048576"),
        ("max-flows", "262144"),
        ("max-flows-per-source", "131072"),
    ],
    sections: &[],
};

/// The section, and where the keys stand that something else is compared with.
pub(super) struct Draft {
    pub(super) datapath: Datapath,
    /// Where `netfilter`, `uplink-hook` and `egress` stand.
    pub(super) choices: [Option<usize>; 3],
    pub(super) max_flows: Option<Placed<u32>>,
    pub(super) max_flows_per_source: Option<Placed<u32>>,
    pub(super) max_routes: Option<Placed<u32>>,
}

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Draft {
    let default = Datapath::default();
    let section = &mut Section::single(tree, &SCHEMA, report);
    let uplink_hook = section.text("uplink-hook", value::choice::<UplinkHook>);
    let max_flows = section.number("max-flows", 1..=MAX_FLOWS);
    let max_flows_per_source = section.number("max-flows-per-source", 1..=MAX_FLOWS);
    let max_endpoints = section.number("max-endpoints", 1..=MAX_ENDPOINTS);
    let max_routes = section.number("max-routes", 1..=MAX_ROUTES);
    let choices = ["netfilter", "uplink-hook", "egress"].map(|key| section.place(key));
    let netfilter = section.text("netfilter", value::choice).map_or(default.netfilter, |choice| choice.value);
    let skip_mark = section.text("skip-mark", skip_mark);
    let skip = section.texts("skip", address::any_network);
    if netfilter == Netfilter::Bypass {
        for key in ["skip-mark", "skip"] {
            if let Some(at) = section.place(key) {
                let message = format!("`{key}` has no effect without `netfilter = \"respect\"`");
                section.report().warning(at, Fault::new(message, "add that line, or remove this one"));
            }
        }
    }
    let mut flag = |key, default| section.flag(key).map_or(default, |flag| flag.value);
    let datapath = Datapath {
        uplink_hook: uplink_hook.map_or(default.uplink_hook, |hook| hook.value),
        discover: flag("discover", default.discover),
        kernel_routes: flag("kernel-routes", default.kernel_routes),
        tc_attach: section.text("tc-attach", value::choice).map_or(default.tc_attach, |attach| attach.value),
        egress: section.text("egress", value::choice).map_or(default.egress, |egress| egress.value),
        netfilter,
        skip_mark: skip_mark.map(|mark| mark.value).filter(|mark| mark.mask != 0),
        skip: skip.into_iter().flatten().map(|network| network.value).collect(),
        host_ports: section.text("host-ports", value::choice).map_or(default.host_ports, |ports| ports.value),
        max_endpoints: max_endpoints.map_or(default.max_endpoints, |number| number.value),
        max_routes: max_routes.as_ref().map_or(default.max_routes, |number| number.value),
        max_flows: max_flows.as_ref().map_or(default.max_flows, |number| number.value),
        max_flows_per_source: max_flows_per_source.as_ref().map(|number| number.value),
    };
    Draft { datapath, choices, max_routes, max_flows, max_flows_per_source }
}

/// `VALUE/MASK` of a mark, in hexadecimal digits behind `0x`, or decimal ones.
fn skip_mark(text: &str) -> Result<SkipMark, Fault> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let parsed = text.split_once('/').and_then(|(value, mask)| Some((number(value)?, number(mask)?)));
    let Some((value, mask)) = parsed else {
        let message = format!("{} is no mark with a mask", quoted(text));
        return Err(Fault::new(message, "write for example \"0x10000/0x10000\""));
    };
    if value & !mask != 0 {
        let message =
            format!("{} matches no mark: the value has bits that the mask leaves out", quoted(text));
        return Err(Fault::new(message, format!("write \"{value:#x}/{:#x}\"", value | mask)));
    }
    Ok(SkipMark { value, mask })
}

/// What cannot be together with `netfilter = "respect"`: the kernel translates then, and tc carries.
pub(super) fn check(draft: &super::Draft, report: &mut Report<'_>) {
    let datapath = &draft.datapath.datapath;
    if datapath.netfilter != Netfilter::Respect {
        return;
    }
    let [netfilter, uplink_hook, egress] = draft.datapath.choices;
    let conflicts = [
        (
            draft.masquerade.first().map(|rule| rule.at),
            "a [[masquerade]] translates in BPF",
            "remove the rule, for which the \
          kernel needs one of its own (`iptables -t nat -A POSTROUTING … -j MASQUERADE`)",
        ),
        (
            uplink_hook.filter(|_| datapath.uplink_hook == UplinkHook::Xdp),
            "`uplink-hook = \"xdp\"` carries before the kernel's \
          connections can be told",
            "write \"auto\" or \"tc\"",
        ),
        (
            egress.filter(|_| datapath.egress == Egress::Kernel),
            "`egress = \"kernel\"` leaves every packet to the outside to it",
            "remove the line: what BPF carries to the outside has passed the kernel's rules",
        ),
    ];
    for (at, what, fix) in conflicts {
        if let Some(at) = at {
            let line = netfilter.map_or(0, |at| report.line(at));
            let message =
                format!("{what}, but by line {line} the kernel decides (`netfilter = \"respect\"`)");
            report.error(at, Fault::new(message, format!("{fix}; or write `netfilter = \"bypass\"`")));
        }
    }
}
