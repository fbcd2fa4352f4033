//! `[metrics]`: what Prometheus can ask.

use std::net::SocketAddrV4;

use toml::de::DeTable;

use super::report::Report;
use super::schema::{Form, Schema};
use super::section::Section;
use super::value;

/// The endpoint that Prometheus asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where it is; `None` for nowhere.
    pub listen: Option<SocketAddrV4>,
}

pub(super) const SCHEMA: Schema = Schema {
    name: "metrics",
    parent: "",
    form: Form::Single,
    keys: &[("listen", "\"127.0.0.1:9477\"")],
    sections: &[],
};

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Metrics {
    let section = &mut Section::single(tree, &SCHEMA, report);
    Metrics { listen: section.text("listen", value::socket_address).map(|listen| listen.value) }
}
