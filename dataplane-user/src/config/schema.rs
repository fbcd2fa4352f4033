//! Which sections there are, and which keys each has.

use toml::de::{DeTable, DeValue};

use super::report::{Fault, Report, quoted};
use super::suggest::nearest;
use super::{bgp, datapath, kernel, log, masquerade, metrics, network, node, timeouts};

/// How often a section may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Once: `[name]`.
    Single,
    /// Any number of times: `[[name]]`.
    Many,
}

/// What a section can hold.
pub(super) struct Schema {
    /// Its name within the section around it.
    pub(super) name: &'static str,
    /// The section around it, with a dot behind, or nothing.
    pub(super) parent: &'static str,
    pub(super) form: Form,
    /// Name and example of each key: the default where there is one.
    pub(super) keys: &'static [(&'static str, &'static str)],
    /// Sections within.
    pub(super) sections: &'static [&'static Schema],
}

/// All sections of the top level.
pub(super) const SECTIONS: &[&Schema] = &[
    &node::SCHEMA,
    &datapath::SCHEMA,
    &network::POOL,
    &network::BLOCK,
    &network::ENDPOINT,
    &network::ROUTE,
    &masquerade::SCHEMA,
    &timeouts::SCHEMA,
    &bgp::SCHEMA,
    &kernel::SCHEMA,
    &metrics::SCHEMA,
    &log::SCHEMA,
];

impl Schema {
    /// The section's header as it is written in the file.
    pub(super) fn header(&self) -> String {
        match self.form {
            Form::Single => format!("[{}{}]", self.parent, self.name),
            Form::Many => format!("[[{}{}]]", self.parent, self.name),
        }
    }

    /// Whether the section has such a key, or a section of that name within.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// An example of a key's value, as it is written in the file.
    pub(super) fn example(&self, key: &str) -> &'static str {
        self.keys.iter().find(|(name, _)| *name == key).map_or("…", |(_, example)| example)
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|(name, _)| *name).chain(self.sections.iter().map(|section| section.name))
    }
}

/// Every section, those within others behind them.
pub(super) fn all_sections() -> impl Iterator<Item = &'static Schema> {
    SECTIONS.iter().flat_map(|section| std::iter::once(*section).chain(section.sections.iter().copied()))
}

/// Reports what the top level must not have.
pub(super) fn refuse_unknown_sections(tree: &DeTable<'_>, report: &mut Report<'_>) {
    for (key, value) in tree.iter() {
        let name = key.get_ref().as_ref();
        if SECTIONS.iter().any(|section| section.name == name) {
            continue;
        }
        let (at, fault) = match value.get_ref() {
            DeValue::Table(_) => (value.span().start, unknown_section(&format!("[{}]", shown(name)), name)),
            DeValue::Array(_) if report.slice(value.span()).starts_with("[[") => {
                (value.span().start, unknown_section(&format!("[[{}]]", shown(name)), name))
            }
            _ => (key.span().start, key_outside(name)),
        };
        report.error(at, fault);
    }
}

/// What is wrong with a key that a section does not have.
pub(super) fn unknown_key(schema: &Schema, key: &str) -> Fault {
    let message = format!("unknown key {} in {}", quoted(key), schema.header());
    let mend = if let Some(home) = home_of(key) {
        format!("it belongs in {home}")
    } else if let Some(name) = nearest(key, schema.names()) {
        format!("did you mean `{name}`?")
    } else {
        format!(
            "the keys of {} are {}",
            schema.header(),
            list(schema.names().map(|name| format!("`{name}`")))
        )
    };
    Fault::new(message, mend)
}

fn unknown_section(header: &str, name: &str) -> Fault {
    let mend = match nearest(name, SECTIONS.iter().map(|section| section.name)) {
        Some(near) => {
            let header = SECTIONS.iter().find(|section| section.name == near).map(|section| section.header());
            format!("did you mean {}?", header.unwrap_or_default())
        }
        None => format!("the sections are {}", list(all_sections().map(Schema::header))),
    };
    Fault::new(format!("unknown section {header}"), mend)
}

fn key_outside(name: &str) -> Fault {
    let mend = match home_of(name) {
        Some(home) => format!("move it below {home}"),
        None => format!("the sections are {}", list(all_sections().map(Schema::header))),
    };
    Fault::new(format!("key {} outside every section", quoted(name)), mend)
}

/// The sections that have a key of exactly this name.
fn home_of(key: &str) -> Option<String> {
    let homes: Vec<_> = all_sections()
        .filter(|section| section.keys.iter().any(|(name, _)| *name == key))
        .map(Schema::header)
        .collect();
    (!homes.is_empty()).then(|| homes.join(" or "))
}

/// A section's name without the quotes that [`quoted`] puts around it.
fn shown(name: &str) -> String {
    quoted(name).trim_matches('`').to_owned()
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
