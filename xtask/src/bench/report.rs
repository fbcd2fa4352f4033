//! The findings as a table and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::finding::{Finding, Spread};
use super::machine::Machine;

/// Stolen time above which figures are doubtful.
const MUCH_STOLEN: f64 = 0.02;

/// A run of the benchmarks.
pub(super) struct Report {
    pub(super) machine: Machine,
    /// CPU on which everything was measured.
    pub(super) cpu: usize,
    /// How the data path's programs were attached; none if none was.
    pub(super) attach_mode: Option<String>,
    /// Share of the time that a hypervisor took from this machine.
    pub(super) stolen: f64,
    pub(super) findings: Vec<Finding>,
    /// Cases and baselines that did not run, with the reason.
    pub(super) left_out: Vec<String>,
}

impl Report {
    /// Prints everything for a person.
    pub(super) fn print(&self) {
        let Machine { model, cpus, kernel, load } = &self.machine;
        let mode = self.attach_mode.as_deref().unwrap_or("not attached");
        println!("\n{model}, {cpus} CPUs, Linux {kernel}; attached by {mode}; measured on CPU {}", self.cpu);
        println!(
            "load before the run {load:.2}; {:.1} % of the time stolen by the hypervisor\n",
            self.stolen * 100.0
        );
        let rows: Vec<[String; 7]> = std::iter::once(HEADINGS.map(str::to_owned))
            .chain(self.findings.iter().filter_map(row))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        println!();
        self.warnings().iter().for_each(|warning| println!("warning: {warning}"));
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.left_out.iter().map(|what| format!("left out: {what}")).collect();
        for finding in self.findings.iter().filter(|finding| finding.ratio().is_some_and(Spread::is_wide)) {
            warnings.push(format!(
                "{} against {}: the ratios of {} spread too widely to conclude from; run it again when the \
                 machine has less else to do",
                finding.case,
                finding.baseline_name.as_deref().unwrap_or_default(),
                finding.metric
            ));
        }
        if self.stolen > MUCH_STOLEN {
            warnings.push("other guests of this machine's host took part of its time".to_owned());
        }
        warnings
    }

    /// Writes the documented JSON.
    pub(super) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn json(&self) -> Value {
        json!({
            "machine": self.machine.model,
            "kernel": self.machine.kernel,
            "cpus": self.machine.cpus,
            "cpu": self.cpu,
            "attach_mode": self.attach_mode,
            "load": self.machine.load,
            "stolen_ratio": self.stolen,
            "cases": self.findings.iter().map(entry).collect::<Vec<_>>(),
            "left_out": self.left_out,
            "warnings": self.warnings(),
        })
    }
}

fn entry(finding: &Finding) -> Value {
    let ratio = finding.ratio();
    json!({
        "case": finding.case,
        "variant": finding.variant,
        "metric": finding.metric,
        "unit": finding.unit,
        "dataplane": finding.dataplane().map(|spread| spread.median),
        "baseline": finding.baseline().map(|spread| spread.median),
        "baseline_name": finding.baseline_name,
        "ratio_median": ratio.map(|spread| spread.median),
        "ratio_min": ratio.map(|spread| spread.min),
        "ratio_max": ratio.map(|spread| spread.max),
        "pairs": finding.samples.len(),
        "noisy": ratio.is_some_and(Spread::is_wide),
        "samples": finding.samples.iter().map(|sample| [Some(sample.dataplane), sample.baseline]).collect::<Vec<_>>(),
    })
}

const HEADINGS: [&str; 7] = ["case", "variant", "metric", "dataplane", "baseline", "ratio", "pairs"];

fn row(finding: &Finding) -> Option<[String; 7]> {
    let ours = finding.dataplane()?;
    let figure = |figure: f64| quantity(figure, finding.unit);
    let (baseline, ratio) = match (finding.baseline(), finding.ratio(), &finding.baseline_name) {
        (Some(theirs), Some(ratio), Some(name)) => {
            let Spread { median, min, max } = ratio;
            (format!("{} {name}", figure(theirs.median)), format!("{median:.2} ({min:.2} to {max:.2})"))
        }
        _ if finding.samples.len() > 1 => {
            (String::new(), format!("{} to {}", figure(ours.min), figure(ours.max)))
        }
        _ => (String::new(), String::new()),
    };
    Some([
        finding.case.to_owned(),
        finding.variant.clone(),
        finding.metric.to_owned(),
        figure(ours.median),
        baseline,
        ratio,
        finding.samples.len().to_string(),
    ])
}

/// Three digits and the unit, with a prefix where there are many before the point.
fn quantity(figure: f64, unit: &str) -> String {
    let (figure, prefix) = match figure.abs() {
        large if large >= 1e6 => (figure / 1e6, "M "),
        large if large >= 1e4 => (figure / 1e3, "k "),
        _ => (figure, ""),
    };
    let decimals = if figure.abs() >= 100.0 { 0 } else { 2 };
    format!("{figure:.decimals$} {prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Sample;
    use super::*;

    fn finding(samples: Vec<Sample>) -> Finding {
        Finding {
            case: "pps-deliver",
            variant: "uplink to container".to_owned(),
            metric: "rate",
            unit: "packets/s",
            baseline_name: samples[0].baseline.map(|_| "iptables".to_owned()),
            samples,
        }
    }

    #[test]
    fn a_pair_is_shown_with_its_ratio() {
        let shown = row(&finding(vec![Sample::pair(1.5e6, 0.6e6)])).unwrap();
        assert_eq!(shown[3..6], ["1.50 M packets/s", "600 k packets/s iptables", "2.50 (2.50 to 2.50)"]);
    }

    #[test]
    fn the_json_has_the_documented_members() {
        let value = entry(&finding(vec![Sample::pair(3.0, 2.0), Sample::pair(4.0, 2.0)]));
        assert_eq!(value["case"], "pps-deliver");
        assert_eq!(value["baseline_name"], "iptables");
        assert_eq!(value["ratio_min"], 1.5);
        assert_eq!(value["ratio_median"], 1.75);
        assert_eq!(value["ratio_max"], 2.0);
        assert_eq!(value["dataplane"], 3.5);
        assert_eq!(value["pairs"], 2);
        let alone = entry(&finding(vec![Sample::alone(1.0)]));
        assert!(alone["baseline"].is_null() && alone["ratio_median"].is_null());
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(quantity(0.0, "ms/s"), "0.00 ms/s");
        assert_eq!(quantity(9_123.4, "1/s"), "9123 1/s");
        assert_eq!(quantity(14_000.0, "1/s"), "14.00 k 1/s");
        assert_eq!(quantity(1_474_000.0, "1/s"), "1.47 M 1/s");
    }
}
