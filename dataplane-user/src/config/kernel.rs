//! `[kernel]`: routes that another daemon puts into the kernel, mirrored.

use dataplane_common::names::ROUTE_PROTOCOL;
use toml::de::DeTable;

use super::report::{Fault, Report, quoted};
use super::schema::{Form, Schema};
use super::section::Section;
use super::suggest::nearest;

/// Which of the kernel's routes are mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImport {
    /// Whether any are.
    pub import: bool,
    /// The routing table that they are in.
    pub table: u32,
    /// Whose they are; `None` for every protocol but the kernel's and our own.
    pub protocols: Option<Vec<RouteProtocol>>,
}

/// Who put a route into the kernel.
#[derive(Clone, Debug)]
pub struct RouteProtocol {
    /// As the file names it.
    pub name: String,
    /// `rtm_protocol` of rtnetlink(7).
    pub number: u8,
}

/// A name and a number for the same protocol are the same.
impl PartialEq for RouteProtocol {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for RouteProtocol {}

impl KernelImport {
    /// Table `main`, and the protocols of those that route containers: routing daemons, Calico's felix, and
    /// `boot`, which is what flannel's routes bear. What an operator's network configuration adds for other
    /// reasons is not among them (`static`, `dhcp`, `ra`).
    pub fn of_routing_daemons() -> Self {
        let protocol = |name: &str, number| RouteProtocol { name: name.to_owned(), number };
        let named = PROTOCOLS.iter().filter(|(name, _)| ROUTING_DAEMONS.contains(name));
        let protocols = named.map(|(name, number)| protocol(name, *number));
        let unnamed = [protocol("80", FELIX), protocol("196", FRR_STATIC)];
        let protocols = protocols.chain(unnamed).collect();
        Self { import: true, table: MAIN_TABLE, protocols: Some(protocols) }
    }
}

/// `DefaultRouteProtocol` of Calico's felix.
const FELIX: u8 = 80;
/// `RTPROT_ZSTATIC` of FRR's zebra/rt_netlink.h: the routes in FRR's own file, of which blackholes are a node's blocks.
const FRR_STATIC: u8 = 196;

/// The protocols of [`KernelImport::of_routing_daemons`] that have names.
const ROUTING_DAEMONS: &[&str] = &[
    "boot", "gated", "zebra", "bird", "xorp", "mrouted", "babel", "openr", "bgp", "isis", "ospf", "rip",
    "eigrp",
];

impl Default for KernelImport {
    fn default() -> Self {
        Self { import: false, table: MAIN_TABLE, protocols: None }
    }
}

/// `RT_TABLE_MAIN` of `linux/rtnetlink.h`.
const MAIN_TABLE: u32 = 254;

/// `RTPROT_*` of `linux/rtnetlink.h`, by the names that iproute2 prints.
const PROTOCOLS: &[(&str, u8)] = &[
    ("redirect", 1),
    ("kernel", 2),
    ("boot", 3),
    ("static", 4),
    ("gated", 8),
    ("ra", 9),
    ("mrt", 10),
    ("zebra", 11),
    ("bird", 12),
    ("dnrouted", 13),
    ("xorp", 14),
    ("ntk", 15),
    ("dhcp", 16),
    ("mrouted", 17),
    ("keepalived", 18),
    ("babel", 42),
    ("openr", 99),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];

pub(super) const SCHEMA: Schema = Schema {
    name: "kernel",
    parent: "",
    form: Form::Single,
    keys: &[("import", "true"), ("table", "254"), ("protocols", "[\"bird\", \"zebra\", \"static\"]")],
    sections: &[],
};

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> KernelImport {
    let default = KernelImport::default();
    let section = &mut Section::single(tree, &SCHEMA, report);
    let import = section.flag("import");
    let table = section.number("table", 1..=u32::MAX);
    let protocols = section.some_texts("protocols", "all but the kernel's and our own", protocol);
    let imports = import.as_ref().is_some_and(|import| import.value);
    let without_effect = [("table", section.place("table")), ("protocols", section.place("protocols"))];
    for (key, at) in without_effect {
        if let Some(at) = at.filter(|_| !imports) {
            let message = format!("`{key}` has no effect while `import` is not true");
            section.report().warning(at, Fault::new(message, "write `import = true`, or remove the line"));
        }
    }
    KernelImport {
        import: imports,
        table: table.map_or(default.table, |table| table.value),
        protocols: protocols.map(|list| list.into_iter().map(|protocol| protocol.value).collect()),
    }
}

/// A protocol's name, or its number from 1 to 255.
fn protocol(text: &str) -> Result<RouteProtocol, Fault> {
    let known = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|&(_, number)| number);
    let number = known.or_else(|| text.parse().ok().filter(|&number| number != 0)).ok_or_else(|| {
        let mend = match nearest(text, PROTOCOLS.iter().map(|(name, _)| *name)) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => {
                "write a name that `ip route` prints behind `proto`, or its number from 1 to 255".to_owned()
            }
        };
        Fault::new(format!("{} is no routing protocol", quoted(text)), mend)
    })?;
    if number == ROUTE_PROTOCOL {
        let message = format!("{} marks the routes that this daemon itself writes", quoted(text));
        return Err(Fault::new(message, "remove it: they are not imported"));
    }
    Ok(RouteProtocol { name: text.to_owned(), number })
}
