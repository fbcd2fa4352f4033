//! Files, and what is said about them.

mod errors;
mod example;
mod file;
mod properties;
mod reference;
mod relations;
mod warnings;

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::Path;

use super::{Diagnostic, Failure, Loaded, System, parse};
use crate::port_set::PortSet;

/// A machine with some interfaces and ports.
struct Machine {
    interfaces: Option<&'static [&'static str]>,
    ephemeral: Option<RangeInclusive<u16>>,
    reserved: &'static str,
    addresses: Vec<Ipv4Addr>,
}

impl Machine {
    /// Every interface that the files name, and ephemeral ports below those that they translate to.
    fn quiet() -> Self {
        Self {
            interfaces: None,
            ephemeral: Some(32768..=49151),
            reserved: "",
            addresses: vec![Ipv4Addr::new(192, 168, 200, 172)],
        }
    }
}

impl System for Machine {
    fn interface_exists(&self, name: &str) -> Option<bool> {
        self.interfaces.map(|interfaces| interfaces.contains(&name))
    }

    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        self.ephemeral.clone()
    }

    fn reserved_ports(&self) -> PortSet {
        PortSet::parse(self.reserved).unwrap()
    }

    fn has_address(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }

    fn password_fault(&self, file: &Path) -> Option<String> {
        file.ends_with("not-there").then(|| "the password file is not there".to_owned())
    }

    fn password_exposure(&self, file: &Path) -> Option<String> {
        file.ends_with("exposed").then(|| "every user can open the password file".to_owned())
    }
}

/// Stands in a test's file where a diagnostic is expected, and is taken out before the file is read.
const MARK: char = '¦';

/// A file with [`MARK`]s, and what the diagnostic at each must contain, in their order.
type Case = (&'static str, &'static [&'static str]);

/// The file without marks, and the line and column of each.
fn unmarked(marked: &str) -> (String, Vec<(usize, usize)>) {
    let (mut text, mut places) = (String::new(), Vec::new());
    let (mut line, mut column) = (1, 1);
    for character in marked.chars() {
        if character == MARK {
            places.push((line, column));
            continue;
        }
        text.push(character);
        (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    (text, places)
}

fn read(text: &str) -> Result<Loaded, Failure> {
    parse("node.toml", text, &Machine::quiet())
}

fn accepted(text: &str) -> Loaded {
    read(text).unwrap_or_else(|failure| panic!("{text}\n{failure}"))
}

fn refused(text: &str) -> Failure {
    match read(text) {
        Ok(loaded) => panic!("{text}\nwas accepted: {loaded:?}"),
        Err(failure) => failure,
    }
}

/// Holds the diagnostics against the marks of the file that they are about.
#[track_caller]
fn assert_found(case: &Case, found: &[Diagnostic]) {
    let (marked, expected) = case;
    let (_, places) = unmarked(marked);
    assert_eq!(places.len(), expected.len(), "the test has as many marks as expectations: {marked}");
    let shown: Vec<_> = found.iter().map(Diagnostic::to_string).collect();
    let found_places: Vec<_> = found.iter().map(|diagnostic| (diagnostic.line, diagnostic.column)).collect();
    assert_eq!(found_places, places, "{marked}\n{shown:#?}");
    for (line, part) in shown.iter().zip(*expected) {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
        assert!(line.starts_with("node.toml:") && !line.contains('\n'), "{line:?}");
    }
    assert!(found.iter().all(|diagnostic| !diagnostic.mend.is_empty()), "{shown:#?}");
}

/// Each file has exactly those errors.
#[track_caller]
fn assert_refused(cases: &[Case]) {
    for case in cases {
        assert_found(case, &refused(&unmarked(case.0).0).errors);
    }
}
