//! `docs/kernel-support.md`, from a run of every test on every kernel.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use super::report::Report;
use super::selection::Selection;
use super::{verified, version};
use crate::test::{Counts, Outcome, Skip};
use crate::workspace;

/// What one kernel came to.
pub(super) struct Row {
    release: String,
    counts: Counts,
    skips: Vec<Skip>,
    /// `ATTACH MODE CONFIGURATION`, of `tests/tests/netns/attach.rs`.
    attached: Vec<String>,
    /// `KERNEL PROGRAM COUNTING RECORDING`.
    verified: Vec<String>,
}

impl Row {
    pub(super) fn new(kernel: &Kernel, outcome: &Outcome, report: &Report) -> Self {
        let (counts, skips) = outcome.parts();
        let mut attached: Vec<String> = report.lines_of("attached").map(str::to_owned).collect();
        attached.sort_unstable();
        Self {
            release: kernel.release.clone(),
            counts,
            skips: skips.to_vec(),
            attached,
            verified: verified::lines(report).map(str::to_owned).collect(),
        }
    }

    /// The modes that `tc-attach = ATTACH` came to, and in how many kinds of configuration.
    fn modes(&self, attach: &str) -> String {
        let of = |line: &String| {
            let mut words = line.splitn(3, ' ');
            (words.next() == Some(attach)).then(|| words.next().unwrap_or_default().to_owned())
        };
        let lines: Vec<String> = self.attached.iter().filter_map(of).collect();
        let mut modes = lines.clone();
        modes.dedup();
        if modes.is_empty() {
            "not tried".to_owned()
        } else {
            format!("{} ({})", modes.join(", "), lines.len())
        }
    }

    /// Program, and what the verifier looked at in both copies.
    fn programs(&self) -> impl Iterator<Item = (&str, String)> {
        self.verified.iter().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, program, counting, recording] = words[..] else { return None };
            Some((program, format!("{counting} / {recording}")))
        })
    }
}

/// Writes the page, and gives its path.
pub(super) fn write(rows: &[Row], selection: Selection) -> Result<PathBuf> {
    let path = workspace::root().join("docs/kernel-support.md");
    fs::write(&path, page(rows, selection)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn page(rows: &[Row], selection: Selection) -> String {
    let (command, tests) = match selection {
        Selection::Essential | Selection::Chosen => ("", "the tests that the tier `vm` has with KVM"),
        Selection::Everything => (" --all", "every test of the tiers `prog` and `netns`"),
    };
    let mut page = format!(
        "# Supported kernels\n\n\
         Written by `cargo xtask vm --matrix{command}`, which boots each of these kernels of Debian's in a virtual machine \
         (x86-64)\nand runs {tests} there. Each change is tested on the oldest and the newest.\n\n\
         | Linux | release | `tc-attach = \"auto\"` | `\"clsact\"` | programs | passed | failed | skipped |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let Counts { passed, failed, skipped } = row.counts;
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {passed} | {failed} | {skipped} |",
            version::series(&row.release),
            row.release,
            row.modes("auto"),
            row.modes("clsact"),
            row.verified.len(),
        );
    }
    page += "\nHow programs are attached, and in brackets in how many kinds of configuration that was tried: forwarding \
             alone, with\n`[[masquerade]]`, and with `egress = \"kernel\"`. All programs load in two copies, one that is \
             attached and one that\n`dataplane trace` runs.\n\n\
             ## What the verifier looks at\n\nInstructions, in the copy that is attached and in the one of `dataplane \
             trace`; a kernel refuses a program beyond a million.\nGrowth by more than a sixth of what `tests/verified.txt` \
             has fails the tests.\n\n";
    page += &verifier_table(rows);
    page += "\n## What was skipped, and why\n\n";
    if rows.iter().all(|row| row.skips.is_empty()) {
        page += "Nothing.\n";
    } else {
        page += "| Linux | test | why |\n| --- | --- | --- |\n";
    }
    for row in rows {
        for Skip { test, reason } in &row.skips {
            let _ = writeln!(page, "| {} | `{test}` | {reason} |", version::series(&row.release));
        }
    }
    page
}

fn verifier_table(rows: &[Row]) -> String {
    let kernels: Vec<String> = rows.iter().map(|row| version::series(&row.release)).collect();
    let mut table =
        format!("| program | {} |\n| --- |{}\n", kernels.join(" | "), " --- |".repeat(rows.len()));
    let Some(first) = rows.first() else { return table };
    for (program, _) in first.programs() {
        let cell = |row: &Row| {
            let found = row.programs().find(|(other, _)| *other == program);
            found.map_or_else(|| "not told".to_owned(), |(_, counts)| counts)
        };
        let cells: Vec<String> = rows.iter().map(cell).collect();
        let _ = writeln!(table, "| `{program}` | {} |", cells.join(" | "));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(release: &str, skips: &[&str]) -> Row {
        let series = version::series(release);
        let skip = |test: &&str| Skip { test: (*test).to_owned(), reason: "needs Tcx".to_owned() };
        Row {
            release: release.to_owned(),
            counts: Counts { passed: 7, failed: 0, skipped: skips.len() },
            skips: skips.iter().map(skip).collect(),
            attached: ["auto clsact a", "auto clsact kernel egress", "clsact clsact a"]
                .map(str::to_owned)
                .to_vec(),
            verified: vec![format!("{series} flow_insert 3 4")],
        }
    }

    #[test]
    fn the_page_tells_each_kernel_s_outcome() {
        let page = page(
            &[row("6.1.0-56-cloud-amd64", &["a::b"]), row("7.3.4+deb13-cloud-amd64", &[])],
            Selection::Chosen,
        );
        for line in [
            "| 6.1 | 6.1.0-56-cloud-amd64 | clsact (2) | clsact (1) | 1 | 7 | 0 | 1 |",
            "| program | 6.1 | 7.3 |",
            "| --- | --- | --- |",
            "| `flow_insert` | 3 / 4 | 3 / 4 |",
            "| 6.1 | `a::b` | needs Tcx |",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line}\n{page}");
        }
    }
}
