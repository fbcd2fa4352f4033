//! The findings as the documented JSON, which `--compare` reads again.

use serde_json::{Value, json};

use super::super::finding::{Finding, Spread};
use super::Report;

pub(super) fn of(report: &Report) -> Value {
    json!({
        "machine": report.machine.model,
        "kernel": report.machine.kernel,
        "cpus": report.machine.cpus,
        "cpu": report.cpu,
        "command": report.command,
        "attach_mode": report.attach_mode,
        "modes": report.modes,
        "load": report.machine.load,
        "busy_ratio": report.machine.busy,
        "stolen_ratio": report.stolen,
        "cases": report.findings.iter().map(entry).collect::<Vec<_>>(),
        "skipped": report.skipped,
        "failed": report.failed,
        "warnings": report.warnings(),
    })
}

fn entry(finding: &Finding) -> Value {
    let ratio = finding.ratio();
    let targets = finding.targets().map(|target| {
        let of = if target.is_of_ratio() { "ratio" } else { "dataplane" };
        json!({ "of": of, target.bound.name(): target.bound.value() })
    });
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
        "at": finding.at,
        "noisy": ratio.is_some_and(Spread::is_wide),
        "targets": targets.collect::<Vec<_>>(),
        "samples": finding.samples.iter().map(|sample| [Some(sample.dataplane), sample.baseline]).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Sample;
    use super::*;

    #[test]
    fn the_json_has_the_documented_members() {
        let samples = vec![Sample::pair(3.0, 2.0), Sample::pair(4.0, 2.0)];
        let finding = Finding::new("pps-deliver", "uplink to container", "rate", "packets/s", samples);
        let value = entry(&finding.against("iptables"));
        assert_eq!(value["case"], "pps-deliver");
        assert_eq!(value["baseline_name"], "iptables");
        assert_eq!(value["ratio_min"], 1.5);
        assert_eq!(value["ratio_median"], 1.75);
        assert_eq!(value["ratio_max"], 2.0);
        assert_eq!(value["dataplane"], 3.5);
        assert_eq!(value["pairs"], 2);
        assert_eq!(value["targets"][0], json!({ "of": "ratio", "at_least": 2.4 }));
        let alone = entry(&Finding::new("at-rest", "", "cpu-time", "ms/s", vec![Sample::alone(1.0)]));
        assert!(alone["baseline"].is_null() && alone["ratio_median"].is_null());
    }
}
