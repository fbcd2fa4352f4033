//! From text to a tree of TOML, with every fault of the syntax.

use toml::de::{DeTable, DeValue};

use super::report::{Fault, Report, quoted};

/// Parses a file as far as it goes.
pub(super) fn parse<'t>(text: &'t str, report: &mut Report<'t>) -> DeTable<'t> {
    let (tree, faults) = DeTable::parse_recoverable(text);
    for fault in faults {
        // Only a key nested beyond the parser's limit has no place of its own.
        let span = fault.span().unwrap_or_default();
        let (at, fault) = bare_value(text, span.start)
            .unwrap_or_else(|| (span.start, explain(fault.message(), report.slice(span.clone()))));
        report.syntax_error(at, fault);
    }
    tree.into_inner()
}

/// The faults that people make most: no value, and a string without quotes. The parser takes the latter for a
/// number, a date or `true`, by its first letter, and says what it lacks to be one.
fn bare_value(text: &str, near: usize) -> Option<(usize, Fault)> {
    let start = text.get(..near)?.rfind('\n').map_or(0, |newline| newline + 1);
    let (key, rest) = text[start..].lines().next()?.split_once('=')?;
    let value = rest.split('#').next()?.trim();
    let bare = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "-_./:+ ".contains(c));
    let is_number = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'_' | b'+' | b'-'));
    let fault = if !bare(key) || key.trim().is_empty() {
        return None;
    } else if value.is_empty() {
        Fault::new(format!("{} has no value", quoted(key.trim())), "write one behind the `=`")
    } else if bare(value) && !is_number && DeValue::parse(value).is_err() {
        Fault::new(
            format!("{} is neither a number nor true or false", quoted(value)),
            format!("if it is text, write {}", quoted(&format!("\"{value}\""))),
        )
    } else {
        return None;
    };
    let indent = rest.len() - rest.trim_start().len();
    Some((start + key.len() + 1 + indent, fault))
}

/// The parser's message, and what mends it.
fn explain(message: &str, written: &str) -> Fault {
    if message.starts_with("duplicate key") {
        return Fault::new(format!("{} is given a second time", quoted(written)), "keep one of the two");
    }
    match MENDS.iter().find(|(start, _)| message.starts_with(start)) {
        // What the parser would have taken instead is said better by the mend.
        Some((_, mend)) => Fault::new(message.split(", expected").next().unwrap_or(message), *mend),
        None => Fault::new(message.replace('\n', " "), SPECIFICATION),
    }
}

const SPECIFICATION: &str = "write it as https://toml.io/en/v1.0.0 has it";

const MENDS: &[(&str, &str)] = &[
    ("string values must be quoted", "put `\"` before and behind it"),
    ("missing opening quote", "put `\"` before and behind the value"),
    ("invalid basic string", "end it with `\"` on the same line"),
    ("invalid literal string", "end it with `'` on the same line"),
    ("missing value", "write a value behind the `=`"),
    ("key with no value", "write `KEY = VALUE`"),
    ("missing assignment", "write `KEY = VALUE`"),
    ("missing comma", "put `,` between the two"),
    ("extra comma", "remove it"),
    ("unclosed array table", "end the section's name with `]]`"),
    ("unclosed table", "end the section's name with `]`"),
    ("unclosed array", "end the list with `]`"),
    ("unclosed inline table", "end it with `}`"),
    ("cannot extend value", "give the two different names, or remove one"),
    ("unexpected leading zero", "write the number without it"),
];
