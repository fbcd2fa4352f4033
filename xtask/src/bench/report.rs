//! The findings for people, in the terminal and as a page with pictures, and as JSON.

mod chart;
mod draw;
mod html;
mod json;
mod picture;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::finding::{Finding, Spread};
use super::machine::Machine;
use chart::Chart;

/// Stolen time above which figures are doubtful.
const MUCH_STOLEN: f64 = 0.02;

/// Time that others took before the run, above which figures are doubtful.
const MUCH_TAKEN: f64 = 0.1;

/// A run of the benchmarks.
pub(super) struct Report {
    pub(super) machine: Machine,
    /// As the user typed it.
    pub(super) command: String,
    /// CPU on which everything was measured.
    pub(super) cpu: usize,
    /// How the data path's programs were attached; none if none was.
    pub(super) attach_mode: Option<String>,
    /// Where the uplinks' programs ran, in the cases that have a choice.
    pub(super) modes: Vec<String>,
    /// Share of the time that a hypervisor took from this machine.
    pub(super) stolen: f64,
    pub(super) findings: Vec<Finding>,
    /// Cases and baselines that this machine cannot run, with the reason.
    pub(super) skipped: Vec<String>,
    /// Cases and baselines that failed, with the reason.
    pub(super) failed: Vec<String>,
    /// The rules of each baseline that was used, as its own tool printed them: name and text.
    pub(super) rules: Vec<(String, String)>,
}

impl Report {
    /// Prints everything for a person.
    pub(super) fn print(&self) {
        println!("\n{}\n", self.conditions());
        table::print(&self.findings);
        self.warnings().iter().for_each(|warning| println!("warning: {warning}"));
    }

    /// Writes the documented JSON.
    pub(super) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&json::of(self))? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes `report.html` and its pictures, also as PNG, and gives the page's path.
    pub(super) fn write_page(&self, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let charts = Chart::all(&self.findings);
        let pictures = match picture::draw(&charts, directory) {
            Ok(pictures) => pictures,
            Err(error) => {
                eprintln!("warning: the report has no pictures: {error:#}");
                Vec::new()
            }
        };
        let page = directory.join("report.html");
        fs::write(&page, html::page(self, &pictures))
            .with_context(|| format!("cannot write {}", page.display()))?;
        Ok(page)
    }

    /// Under which conditions it was measured.
    fn conditions(&self) -> String {
        let Machine { model, cpus, kernel, busy, .. } = &self.machine;
        let mode = self.attach_mode.as_deref().unwrap_or("not attached");
        let mut text = format!(
            "{model}, {cpus} CPUs, Linux {kernel}; attached by {mode}; measured on CPU {}\n\
             {:.0} % of the CPUs taken before the run; {:.1} % of the time stolen by the hypervisor",
            self.cpu,
            busy * 100.0,
            self.stolen * 100.0
        );
        for mode in &self.modes {
            text += &format!("\n{mode}");
        }
        text
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.skipped.iter().map(|what| format!("skipped: {what}")).collect();
        warnings.extend(self.failed.iter().map(|what| format!("failed: {what}")));
        // The largest of all latencies is by its nature another one each time.
        let wide = |finding: &&Finding| {
            finding.metric != "latency-max" && finding.ratio().is_some_and(Spread::is_wide)
        };
        let mut cases: Vec<(&str, Vec<String>)> = Vec::new();
        for finding in self.findings.iter().filter(wide) {
            let baseline = finding.baseline_name.as_deref().unwrap_or_default();
            let what = format!("{} ({}) against {baseline}", finding.metric, finding.part());
            match cases.last_mut() {
                Some((case, list)) if *case == finding.case => list.push(what),
                _ => cases.push((finding.case, vec![what])),
            }
        }
        warnings.extend(cases.into_iter().map(|(case, list)| {
            format!(
                "{case}: the ratios spread too widely to conclude from; run it again when the machine has less \
                 else to do: {}",
                list.join(", ")
            )
        }));
        if self.machine.busy > MUCH_TAKEN {
            warnings.push(format!(
                "others took {:.0} % of the CPUs before the run: they share caches and memory with what is measured",
                self.machine.busy * 100.0
            ));
        }
        if self.stolen > MUCH_STOLEN {
            warnings.push("other guests of this machine's host took part of its time".to_owned());
        }
        warnings
    }
}
