//! What the verifier looks at of each program, by kernel: `tests/verified.txt`, against which
//! `tests/tests/program/verifier.rs` holds it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::kernel::Kernel;
use super::machine::Machine;
use super::report::Report;
use super::selection::Selection;
use super::{print, suite, version};
use crate::test::Built;
use crate::workspace;

/// The test that measures it.
const TEST: &str = "the_verifier_needs_no_more_than_it_did";

/// Measures on the kernel, whatever was recorded, and records it.
pub(super) fn record(kernel: &Kernel, machine: &Machine, built: &Built) -> Result<ExitCode> {
    let tested = suite::run(kernel, machine, built, Selection::Everything, &[TEST.to_owned()], &mut print)?;
    let measured: Vec<&str> = lines(&tested.report).collect();
    if measured.is_empty() {
        bail!("Linux {} measured nothing: the output above says why", kernel.release);
    }
    let path = path();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(&path, with(&text, &version::series(&kernel.release), &measured))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("vm: {} programs of Linux {} recorded in {}", measured.len(), kernel.release, path.display());
    Ok(ExitCode::SUCCESS)
}

/// The lines that a run reported.
pub(super) fn lines(report: &Report) -> impl Iterator<Item = &str> {
    report.lines_of("verified")
}

fn path() -> PathBuf {
    workspace::root().join("tests/verified.txt")
}

/// The file's text with these lines for the kernel, and all others as they are.
fn with(text: &str, series: &str, measured: &[&str]) -> String {
    let is_kernel_s = |line: &&str| line.split(' ').next() == Some(series);
    let (comments, others): (Vec<&str>, Vec<&str>) =
        text.lines().filter(|line| !is_kernel_s(line)).partition(|line| line.starts_with('#'));
    let mut lines: Vec<&str> = others.into_iter().chain(measured.iter().copied()).collect();
    // Programs stay in the order in which they were measured.
    lines.sort_by(|a, b| version::compare(kernel_of(a), kernel_of(b)));
    comments.into_iter().chain(lines).map(|line| format!("{line}\n")).collect()
}

fn kernel_of(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_s_lines_are_replaced_and_the_others_stay() {
        let text = "# says\n6.1 b 1 2\n6.1 a 1 2\n6.12 a 5 6\n";
        assert_eq!(with(text, "6.1", &["6.1 b 3 4"]), "# says\n6.1 b 3 4\n6.12 a 5 6\n");
        assert_eq!(with(text, "7.3", &["7.3 a 3 4"]), format!("{text}7.3 a 3 4\n"));
        assert_eq!(with("", "6.9", &["6.9 b 1 1", "6.9 a 1 1"]), "6.9 b 1 1\n6.9 a 1 1\n");
    }
}
