//! The reference of the configuration file, held against what is read.

use crate::config::schema::{Schema, all_sections};

const REFERENCE: &str = include_str!("../../../../docs/configuration.md");

/// The part of the reference about one section.
fn part(section: &Schema) -> &'static str {
    let heading = format!("\n## `{}`", section.header());
    let start = REFERENCE.find(&heading).unwrap_or_else(|| panic!("no heading {heading:?}")) + heading.len();
    let rest = &REFERENCE[start..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn every_key_has_a_row_and_every_row_a_key() {
    for section in all_sections() {
        let rows = part(section).lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
        let keys: Vec<_> = section.keys.iter().map(|(name, _)| *name).collect();
        assert_eq!(documented, keys, "{}", section.header());
    }
}
