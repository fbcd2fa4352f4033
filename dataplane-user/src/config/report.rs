//! Collects what is found in one file.

use std::collections::BTreeSet;
use std::ops::Range;

use super::diagnostic::{Diagnostic, Failure};
use super::text::Text;

/// What is wrong with a value, and the mend; where it stands is known to who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    message: String,
    mend: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { message: message.into(), mend: mend.into() }
    }

    /// With its place in a file.
    pub(super) fn at(self, file: &str, text: &Text<'_>, offset: usize) -> Diagnostic {
        self.placed(file, text.position(offset))
    }

    fn placed(self, file: &str, (line, column): (usize, usize)) -> Diagnostic {
        Diagnostic { file: file.to_owned(), line, column, message: self.message, mend: self.mend }
    }
}

/// A value of the file, and the offset at which it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// Offset and finding.
type Findings = Vec<(usize, Fault)>;

/// The errors and warnings of a file, as they are found.
pub(super) struct Report<'t> {
    text: Text<'t>,
    errors: Findings,
    warnings: Findings,
    broken_lines: BTreeSet<usize>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text: Text::new(text),
            errors: Vec::new(),
            warnings: Vec::new(),
            broken_lines: BTreeSet::new(),
        }
    }

    /// Takes note of a line that is no TOML. Only the first such fault of a line is of use: those behind it
    /// are its consequences.
    pub(super) fn syntax_error(&mut self, at: usize, fault: Fault) {
        if self.broken_lines.insert(self.text.line(at)) {
            self.errors.push((at, fault));
        }
    }

    /// Takes note of an error, unless its line is no TOML: then the value is not what was written.
    pub(super) fn error(&mut self, at: usize, fault: Fault) {
        if !self.broken_lines.contains(&self.text.line(at)) {
            self.errors.push((at, fault));
        }
    }

    /// Takes note of a warning.
    pub(super) fn warning(&mut self, at: usize, fault: Fault) {
        self.warnings.push((at, fault));
    }

    /// Whether all of the file was TOML, so that what is not there was not written.
    pub(super) fn is_whole(&self) -> bool {
        self.broken_lines.is_empty()
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text.line(at)
    }

    /// The text between two offsets.
    pub(super) fn slice(&self, range: Range<usize>) -> &'t str {
        self.text.slice(range)
    }

    /// The warnings, where there is no error.
    pub(super) fn finish(self, file: &str) -> Result<Vec<Diagnostic>, Failure> {
        let Self { text, errors, warnings, .. } = self;
        let errors = diagnostics(file, &text, errors);
        let warnings = diagnostics(file, &text, warnings);
        if errors.is_empty() { Ok(warnings) } else { Err(Failure { errors, warnings }) }
    }
}

fn diagnostics(file: &str, text: &Text<'_>, mut findings: Findings) -> Vec<Diagnostic> {
    // Stable, so that several findings about one value stay in the order of the checks.
    findings.sort_by_key(|&(at, _)| at);
    let mut known = None;
    let place = |(offset, fault): (usize, Fault)| {
        let position = text.position_after(offset, known);
        known = Some((offset, position));
        fault.placed(file, position)
    };
    findings.into_iter().map(place).collect()
}

/// Text from the file, made fit to be shown within one line.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).flat_map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

fn printable(character: char) -> Box<dyn Iterator<Item = char>> {
    if matches!(character, '"' | '\'' | '\\') {
        return Box::new(std::iter::once(character));
    }
    // What terminals act upon, or show as nothing.
    Box::new(character.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_stays_on_one_line() {
        assert_eq!(quoted("eth0"), "`eth0`");
        assert_eq!(quoted("a\nb\u{1b}[31m\u{202e}"), "`a\\nb\\u{1b}[31m\\u{202e}`");
        assert_eq!(quoted("it's \"é\""), "`it's \"é\"`");
        assert_eq!(quoted(&"x".repeat(200)).chars().count(), 63);
    }
}
