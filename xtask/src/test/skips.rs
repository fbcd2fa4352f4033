//! Tests that say that this machine cannot run them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Names the file to which a test that its machine cannot run appends `NAME<tab>REASON`.
pub(super) const LOG_VARIABLE: &str = "DATAPLANE_SKIP_LOG";

/// A test that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) test: String,
    pub(crate) reason: String,
}

/// The file of one tier's run.
pub(super) struct Log {
    path: PathBuf,
}

impl Log {
    /// A log without lines, whatever an earlier run left.
    pub(super) fn new(directory: &Path, tier: &str) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(format!("skipped-{tier}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(Self { path }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was reported; nothing if no test wrote.
    pub(super) fn read(&self) -> Result<Vec<Skip>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Skip::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }
}

impl Skip {
    /// Each test once, with its first reason: one that asks for several things may report several times.
    pub(crate) fn parse(text: &str) -> Vec<Self> {
        let mut skips: Vec<Self> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (test, reason) = line.split_once('\t').unwrap_or((line, "no reason given"));
            if skips.iter().all(|skip| skip.test != test) {
                skips.push(Self { test: test.to_owned(), reason: reason.to_owned() });
            }
        }
        skips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_counts_once() {
        let skips = Skip::parse("a::b\tno TCX\nc\tno IPv6\na::b\tno netkit\n");
        let shown: Vec<_> = skips.iter().map(|skip| (skip.test.as_str(), skip.reason.as_str())).collect();
        assert_eq!(shown, [("a::b", "no TCX"), ("c", "no IPv6")]);
    }

    #[test]
    fn a_line_without_reason_still_counts() {
        assert_eq!(Skip::parse("a\n\n").len(), 1);
    }

    #[test]
    fn an_earlier_run_s_lines_are_gone() {
        let directory = std::env::temp_dir().join(format!("xtask-skips-{}", std::process::id()));
        let log = Log::new(&directory, "netns").unwrap();
        fs::write(log.path(), "a\tb\n").unwrap();
        assert_eq!(log.read().unwrap().len(), 1);
        let next = Log::new(&directory, "netns").unwrap();
        assert_eq!(next.read().unwrap(), []);
        fs::remove_dir_all(&directory).unwrap();
    }
}
