//! What is tested and the programs that test it, compiled by one call of cargo.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::tier::{self, Tier};
use crate::{process, workspace};

/// What was compiled.
pub(crate) struct Built {
    /// The `dataplane` that is tested.
    pub(crate) binary: PathBuf,
    /// The same with another layout of its tables, to upgrade to.
    pub(crate) next_layout: PathBuf,
    tests: Vec<TestProgram>,
}

/// Tests of one target.
pub(super) struct TestProgram {
    pub(super) package: String,
    pub(super) target: String,
    pub(super) path: PathBuf,
}

impl Built {
    /// The test program of a package's target.
    pub(crate) fn test(&self, package: &str, target: &str) -> Result<&Path> {
        Ok(&self.programs(package, target)?.next().context("no tests")?.path)
    }

    /// The test programs of a package's targets of that name, at least one: a library and a binary may have the same.
    pub(super) fn programs(&self, package: &str, target: &str) -> Result<impl Iterator<Item = &TestProgram>> {
        let mut found =
            self.tests.iter().filter(move |test| test.package == package && test.target == target).peekable();
        ensure!(found.peek().is_some(), "{package} has no tests {target}");
        Ok(found)
    }
}

/// Compiles the binary with another layout of its tables. Nothing about it is to be fast but its compilation.
fn next_layout() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "dataplane-user", "--bin", "dataplane"]);
    cargo.args([
        "--features",
        "next-layout",
        "--config",
        "profile.release.package.dataplane-user.opt-level=0",
    ]);
    process::run(&mut cargo)?;
    // Cargo puts the binary itself in its place again, which is compiled next.
    let (built, kept) =
        (workspace::target_dir()?.join("release"), workspace::target_dir()?.join("next-layout"));
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let (built, kept) = (built.join("dataplane"), kept.join("dataplane"));
    // Never written into a program that runs.
    let _ = fs::remove_file(&kept);
    fs::rename(&built, &kept)
        .with_context(|| format!("cannot move {} to {}", built.display(), kept.display()))?;
    Ok(kept)
}

/// Compiles the binary together with every test.
pub(crate) fn build() -> Result<Built> {
    let next_layout = next_layout()?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--bin", "dataplane", "--tests"]);
    for package in tier::PACKAGES {
        cargo.args(["--package", package]);
    }
    cargo.arg("--message-format=json-render-diagnostics");
    let shown = process::show(&cargo);
    let spawned = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot run `{shown}`"))?;
    let messages = child.stdout.take().context("cargo has no standard output")?;
    let mut artifacts = Vec::new();
    for line in BufReader::new(messages).lines() {
        artifacts.extend(artifact(&line.with_context(|| format!("cannot read from `{shown}`"))?));
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    let (tests, others): (Vec<_>, Vec<_>) = artifacts.into_iter().partition(|(is_test, _)| *is_test);
    let binary = others.into_iter().map(|(_, program)| program).find(|program| program.target == "dataplane");
    let binary = binary.with_context(|| format!("`{shown}` made no dataplane"))?.path;
    let tests: Vec<TestProgram> = tests.into_iter().map(|(_, program)| program).collect();
    if let Some(test) = tests.iter().find(|test| !Tier::has((&test.package, &test.target))) {
        bail!(
            "no tier has the tests {} of {}: add them in xtask/src/test/tier.rs",
            test.target,
            test.package
        );
    }
    Ok(Built { binary, next_layout, tests })
}

/// The program of which a line of cargo's tells, and whether it is a test (cargo's external-tools chapter:
/// `compiler-artifact`). A package is named like its directory.
fn artifact(line: &str) -> Option<(bool, TestProgram)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = PathBuf::from(message["executable"].as_str()?);
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
    let package = directory.file_name()?.to_string_lossy().into_owned();
    let target = message["target"]["name"].as_str()?.to_owned();
    Some((message["profile"]["test"].as_bool()?, TestProgram { package, target, path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_libraries_and_tests_from_others() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/x/tests/Cargo.toml",
                "target":{{"name":"netns","kind":["test"]}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let (is_test, program) = artifact(&line(true, "\"/t/netns-1\"")).unwrap();
        assert!(is_test);
        assert_eq!((program.package.as_str(), program.target.as_str()), ("tests", "netns"));
        assert_eq!(program.path, Path::new("/t/netns-1"));
        assert!(!artifact(&line(false, "\"/t/dataplane\"")).unwrap().0);
        assert!(artifact(&line(true, "null")).is_none());
        assert!(artifact("not JSON").is_none());
    }
}
