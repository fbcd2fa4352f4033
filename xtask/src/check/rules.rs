//! House rules that a program can check: of one file, given its path and its text.
//!
//! What is forbidden is written here in two halves, so that this file keeps the rules too.

use std::fmt;

/// A Rust file is split before it is longer.
const MOST_LINES: usize = 400;

/// The one place where a test may sleep: the harness's wait with a bound.
const WAIT_HELPER: &str = "tests/src/harness/wait.rs";

/// Forbidden in Rust, with what to do.
const FORBIDDEN_IN_RUST: [(&str, &str); 5] = [
    (concat!("todo", "!"), "write it, or open an issue"),
    (concat!("unimplemented", "!"), "write it, or open an issue"),
    (concat!("dbg", "!"), "use tracing"),
    (concat!("#[", "allow("), "use #[expect(LINT, reason = \"…\")]"),
    (concat!("#![", "allow("), "use #![expect(LINT, reason = \"…\")]"),
];

/// Directories of one machine, which another does not have.
const MACHINE_DIRECTORIES: [&str; 4] =
    [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me"), concat!("/Us", "ers")];

/// Hosts of package registries: which one is asked is the matter of each machine's set-up.
const REGISTRY_HOSTS: [&str; 9] = [
    concat!("deb.deb", "ian.org"),
    concat!("security.deb", "ian.org"),
    concat!("static.rust-", "lang.org"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("files.python", "hosted.org"),
    concat!("py", "pi.org"),
    concat!("registry.npm", "js.org"),
    concat!("proxy.gol", "ang.org"),
];

/// What `git merge` leaves where it cannot decide.
const CONFLICT_MARKERS: [&str; 2] = [concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")];

/// A rule that a line of a file does not keep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Breach {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// What `file` (relative to the workspace) with this text breaks.
pub(super) fn breaches(file: &str, text: &str) -> Vec<Breach> {
    let breach = |line: usize, what: String| Breach { file: file.to_owned(), line, what };
    let is_rust = file.ends_with(".rs");
    let mut breaches = Vec::new();
    let length = text.lines().count();
    if is_rust && length > MOST_LINES {
        breaches.push(breach(MOST_LINES + 1, format!("{length} lines, at most {MOST_LINES}: split it")));
    }
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if is_rust {
            for (token, mend) in FORBIDDEN_IN_RUST {
                if has_token(line, token) {
                    breaches.push(breach(number, format!("`{token}`: {mend}")));
                }
            }
            if file.starts_with("tests/") && file != WAIT_HELPER && has_token(line, "sleep(") {
                let what = format!("a test awaits a condition instead of sleeping: see {WAIT_HELPER}");
                breaches.push(breach(number, what));
            }
        }
        if CONFLICT_MARKERS.iter().any(|marker| line.starts_with(marker)) {
            breaches.push(breach(number, "a conflict of a merge: choose a side".to_owned()));
        }
        for directory in MACHINE_DIRECTORIES {
            if has_directory(line, directory) {
                breaches.push(breach(number, format!("`{directory}` is a directory of one machine")));
            }
        }
        for host in REGISTRY_HOSTS {
            if line.contains(host) {
                breaches
                    .push(breach(number, format!("`{host}` is a registry's host: leave it to the set-up")));
            }
        }
    }
    breaches
}

/// Whether the line has the token, and not merely at the end of a longer name.
fn has_token(line: &str, token: &str) -> bool {
    line.match_indices(token).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Whether an absolute path in the line begins with the directory.
fn has_directory(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(start, found)| {
        let before = line[..start].chars().next_back();
        let after = line[start + found.len()..].chars().next();
        let begins = !before.is_some_and(|c| c.is_alphanumeric() || "_-./}*~)>".contains(c));
        let ends = !after.is_some_and(|c| c.is_alphanumeric() || "_-.".contains(c));
        begins && ends
    })
}

#[cfg(test)]
mod tests;
