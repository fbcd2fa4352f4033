//! `--compare`: what got worse since an older run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::finding::{Finding, Spread, more_is_better};
use super::machine::Machine;

/// A change smaller than this share is none, however little both runs spread: what a run starts from differs a
/// little (where the linker and the allocator put things).
const ALIKE: f64 = 0.03;

/// An older run's ratios.
pub(super) struct Old {
    path: PathBuf,
    machine: String,
    kernel: String,
    ratios: Vec<OldRatio>,
}

struct OldRatio {
    key: Key,
    ratio: Spread,
    pairs: u64,
}

/// Fewest pairs whose spread says something.
const FEWEST_PAIRS: u64 = 3;

/// What makes two findings the same: case, variant, metric, baseline and number.
#[derive(PartialEq)]
struct Key {
    names: [String; 4],
    at: Option<u64>,
}

impl Key {
    fn of(finding: &Finding) -> Option<Self> {
        let baseline = finding.baseline_name.as_deref()?;
        let names = [finding.case, &finding.variant, finding.metric, baseline].map(str::to_owned);
        Some(Self { names, at: finding.at })
    }

    fn describe(&self) -> String {
        let [case, variant, metric, baseline] = &self.names;
        let at = self.at.map(|at| format!(", {at}")).unwrap_or_default();
        format!("{case}, {variant}{at}: {metric} against {baseline}")
    }
}

/// What came of a comparison.
pub(super) struct Comparison {
    /// Lines to print.
    pub(super) lines: Vec<String>,
    /// Whether something got worse, or nothing could be compared.
    pub(super) is_failure: bool,
}

impl Old {
    /// Reads what `--json` of an older run wrote.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path, &text)
            .with_context(|| format!("{} is not what `cargo xtask bench --json FILE` writes", path.display()))
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("it is no JSON")?;
        let word = |key: &str| text_of(&value, key).map(str::to_owned);
        let cases = value["cases"].as_array().context("it has no list `cases`")?;
        let ratios = cases.iter().enumerate().filter_map(|(index, entry)| {
            old_ratio(entry).with_context(|| format!("entry {} of `cases`", index + 1)).transpose()
        });
        let ratios: Vec<OldRatio> = ratios.collect::<Result<_>>()?;
        Ok(Self { path: path.to_owned(), machine: word("machine")?, kernel: word("kernel")?, ratios })
    }

    /// Compares the ratios of both runs.
    pub(super) fn compare(&self, machine: &Machine, findings: &[Finding]) -> Comparison {
        let mut lines = vec![format!("compared with {}:", self.path.display())];
        if self.machine != machine.model || self.kernel != machine.kernel {
            lines.push(format!(
                "warning: that was {}, Linux {}; this is {}, Linux {}: ratios differ for that alone",
                self.machine, self.kernel, machine.model, machine.kernel
            ));
        }
        let (mut alike, mut worse, mut absent, mut undecided) = (0, 0, 0, 0);
        for OldRatio { key, ratio: old, pairs } in &self.ratios {
            let found = findings.iter().find(|finding| Key::of(finding).as_ref() == Some(key));
            let Some((finding, new)) = found.and_then(|finding| Some((finding, finding.ratio()?))) else {
                absent += 1;
                continue;
            };
            if !decides(&key.names[2], (*pairs).min(finding.samples.len() as u64)) {
                undecided += 1;
                continue;
            }
            match change(&key.names[2], *old, new) {
                Change::Alike => alike += 1,
                Change::Better => lines.push(format!("better: {}", line(key, *old, new))),
                Change::Worse => {
                    worse += 1;
                    lines.push(format!("WORSE: {}", line(key, *old, new)));
                }
            }
        }
        let compared = self.ratios.len() - absent - undecided;
        lines.push(format!("{compared} ratios compared, {alike} alike, {worse} worse beyond the noise"));
        if absent > 0 {
            lines.push(format!("{absent} ratios of the older run were not measured in this one"));
        }
        if undecided > 0 {
            lines.push(format!(
                "{undecided} ratios are of too few pairs, or of single events, to be compared"
            ));
        }
        if compared == 0 {
            lines.push("nothing was compared: measure the older run's cases".to_owned());
        }
        Comparison { lines, is_failure: worse > 0 || compared == 0 }
    }
}

/// Whether so many pairs of that metric can be compared: memory is what it is, and the largest of all latencies is
/// one event.
fn decides(metric: &str, pairs: u64) -> bool {
    metric == "memory" || (metric != "latency-max" && pairs >= FEWEST_PAIRS)
}

#[derive(Debug, PartialEq)]
enum Change {
    Alike,
    Better,
    Worse,
}

/// Two runs differ where all pairs of one are on one side of all pairs of the other, and the medians are more
/// apart than [`ALIKE`].
fn change(metric: &str, old: Spread, new: Spread) -> Change {
    let apart = (new.median - old.median).abs() > ALIKE * old.median.abs();
    let is_more = new.min > old.max;
    let is_less = new.max < old.min;
    if !apart || !(is_more || is_less) {
        Change::Alike
    } else if is_more == more_is_better(metric) {
        Change::Better
    } else {
        Change::Worse
    }
}

fn line(key: &Key, old: Spread, new: Spread) -> String {
    let show = |Spread { median, min, max }: Spread| format!("{median:.3} ({min:.3} to {max:.3})");
    let percent = (new.median / old.median - 1.0) * 100.0;
    format!("{}: ratio {} -> {}, {percent:+.0} %", key.describe(), show(old), show(new))
}

/// The entry's ratio; none where it has none.
fn old_ratio(entry: &Value) -> Result<Option<OldRatio>> {
    let [case, variant, metric] = ["case", "variant", "metric"].map(|key| text_of(entry, key));
    let (case, variant, metric) = (case?, variant?, metric?);
    if entry["baseline_name"].is_null() {
        return Ok(None);
    }
    let number = |key: &str| match &entry[key] {
        Value::Number(number) => number.as_f64().with_context(|| format!("`{key}` is out of range")),
        other => bail!("`{key}` is {other} and not a number"),
    };
    let ratio =
        Spread { median: number("ratio_median")?, min: number("ratio_min")?, max: number("ratio_max")? };
    ensure!(
        ratio.min <= ratio.median && ratio.median <= ratio.max,
        "the ratio's median is not between its extremes"
    );
    let baseline = text_of(entry, "baseline_name")?;
    let names = [case, variant, metric, baseline].map(str::to_owned);
    let pairs = entry["pairs"].as_u64().context("`pairs` is no number")?;
    Ok(Some(OldRatio { key: Key { names, at: entry["at"].as_u64() }, ratio, pairs }))
}

fn text_of<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("it has no text `{key}`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Sample;
    use super::*;

    fn machine(kernel: &str) -> Machine {
        Machine { model: "CPU".to_owned(), cpus: 2, kernel: kernel.to_owned(), load: 0.0, busy: 0.0 }
    }

    fn old(metric: &str, ratio: [f64; 3]) -> Old {
        let [min, median, max] = ratio;
        let value = json!({ "machine": "CPU", "kernel": "6.1", "cases": [
            { "case": "case", "variant": "v", "metric": metric, "baseline_name": "iptables",
              "ratio_median": median, "ratio_min": min, "ratio_max": max, "pairs": 3 },
            { "case": "at-rest", "variant": "v", "metric": "memory", "baseline_name": null, "ratio_median": null },
        ] });
        Old::parse(Path::new("old.json"), &value.to_string()).unwrap()
    }

    fn now(metric: &'static str, ratios: &[f64]) -> Vec<Finding> {
        let samples = ratios.iter().map(|ratio| Sample::pair(*ratio, 1.0)).collect();
        vec![Finding::new("case", "v", metric, "1/s", samples).against("iptables")]
    }

    #[test]
    fn worse_is_what_is_beyond_both_spreads() {
        let compare = |metric, was, is: &[f64]| {
            let comparison = old(metric, was).compare(&machine("6.1"), &now(metric, is));
            (comparison.is_failure, comparison.lines.iter().any(|line| line.starts_with("better")))
        };
        assert_eq!(compare("rate", [2.4, 2.5, 2.6], &[2.0, 2.1, 2.2]), (true, false));
        assert_eq!(compare("rate", [2.4, 2.5, 2.6], &[2.0, 2.1, 2.45]), (false, false));
        assert_eq!(compare("rate", [2.49, 2.5, 2.51], &[2.45, 2.46, 2.47]), (false, false));
        assert_eq!(compare("rate", [2.4, 2.5, 2.6], &[2.9, 3.0, 3.1]), (false, true));
        assert_eq!(compare("marginal-cost", [0.1, 0.11, 0.12], &[0.2, 0.21, 0.22]), (true, false));
        assert_eq!(compare("marginal-cost", [0.2, 0.21, 0.22], &[0.1, 0.11, 0.12]), (false, true));
    }

    #[test]
    fn one_pair_decides_nothing_and_memory_needs_no_more() {
        assert!(decides("rate", 3) && !decides("rate", 1));
        assert!(decides("memory", 1) && !decides("latency-max", 5));
        assert!(old("rate", [2.4, 2.5, 2.6]).compare(&machine("6.1"), &now("rate", &[1.0])).is_failure);
    }

    #[test]
    fn another_kernel_is_told_and_nothing_in_common_is_a_failure() {
        let comparison = old("rate", [2.4, 2.5, 2.6]).compare(&machine("6.6"), &now("rate", &[2.5; 3]));
        assert!(
            !comparison.is_failure && comparison.lines[1].contains("Linux 6.6"),
            "{:?}",
            comparison.lines
        );
        assert!(old("rate", [2.4, 2.5, 2.6]).compare(&machine("6.1"), &[]).is_failure);
    }

    #[test]
    fn a_foreign_file_is_refused_with_what_is_wrong() {
        let refuse = |text: &str| format!("{:#}", Old::parse(Path::new("x"), text).err().unwrap());
        assert!(refuse("no json").contains("it is no JSON"));
        assert!(refuse("{}").contains("`cases`"));
        assert!(refuse(r#"{"cases": []}"#).contains("`machine`"));
        let entry = r#"{"machine": "m", "kernel": "k", "cases": [{"case": "a", "variant": "b", "metric": "c",
            "baseline_name": "d", "ratio_median": "much"}]}"#;
        let error = refuse(entry);
        assert!(error.contains("entry 1 of `cases`") && error.contains("`ratio_median`"), "{error}");
    }
}
