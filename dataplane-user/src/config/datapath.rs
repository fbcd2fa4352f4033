//! `[datapath]`: which programs go where, and how large their tables are.

use std::fmt;

use dataplane_common::{flow::index::MAX_SLOTS, route::MAX_INDEX};
use toml::de::DeTable;

use super::report::{Placed, Report};
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
    pub(super) max_flows: Option<Placed<u32>>,
    pub(super) max_flows_per_source: Option<Placed<u32>>,
}

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Draft {
    let default = Datapath::default();
    let section = &mut Section::single(tree, &SCHEMA, report);
    let uplink_hook = section.text("uplink-hook", value::choice::<UplinkHook>);
    let max_flows = section.number("max-flows", 1..=MAX_FLOWS);
    let max_flows_per_source = section.number("max-flows-per-source", 1..=MAX_FLOWS);
    let mut number =
        |key, highest, default| section.number(key, 1..=highest).map_or(default, |number| number.value);
    let max_endpoints = number("max-endpoints", MAX_ENDPOINTS, default.max_endpoints);
    let max_routes = number("max-routes", MAX_ROUTES, default.max_routes);
    let mut flag = |key, default| section.flag(key).map_or(default, |flag| flag.value);
    let datapath = Datapath {
        uplink_hook: uplink_hook.map_or(default.uplink_hook, |hook| hook.value),
        discover: flag("discover", default.discover),
        kernel_routes: flag("kernel-routes", default.kernel_routes),
        tc_attach: section.text("tc-attach", value::choice).map_or(default.tc_attach, |attach| attach.value),
        egress: section.text("egress", value::choice).map_or(default.egress, |egress| egress.value),
        host_ports: section.text("host-ports", value::choice).map_or(default.host_ports, |ports| ports.value),
        max_endpoints,
        max_routes,
        max_flows: max_flows.as_ref().map_or(default.max_flows, |number| number.value),
        max_flows_per_source: max_flows_per_source.as_ref().map(|number| number.value),
    };
    Draft { datapath, max_flows, max_flows_per_source }
}
