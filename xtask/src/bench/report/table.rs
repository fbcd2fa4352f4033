//! The findings as a table in the terminal.

use super::super::finding::{Finding, Spread};
use super::super::target::Bound;

const HEADINGS: [&str; 7] = ["case", "variant", "metric", "dataplane", "baseline", "ratio", "target"];

pub(super) fn print(findings: &[Finding]) {
    let rows: Vec<[String; 7]> = std::iter::once(HEADINGS.map(str::to_owned)).chain(rows(findings)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    println!();
}

/// The cells of each finding: its names, the data path's figure, the baseline's, the ratio, the target.
pub(super) fn rows(findings: &[Finding]) -> impl Iterator<Item = [String; 7]> {
    findings.iter().filter_map(row)
}

fn row(finding: &Finding) -> Option<[String; 7]> {
    let ours = finding.dataplane()?;
    let figure = |figure: f64| quantity(figure, finding.unit);
    let (baseline, ratio) = match (finding.baseline(), finding.ratio(), &finding.baseline_name) {
        (Some(theirs), Some(ratio), Some(name)) => {
            let Spread { median, min, max } = ratio;
            (
                format!("{} {name}", figure(theirs.median)),
                format!("{} ({} to {})", digits(median), digits(min), digits(max)),
            )
        }
        _ if finding.samples.len() > 1 => {
            (String::new(), format!("{} to {}", figure(ours.min), figure(ours.max)))
        }
        _ => (String::new(), String::new()),
    };
    Some([
        finding.case.to_owned(),
        finding.part(),
        finding.metric.to_owned(),
        figure(ours.median),
        baseline,
        ratio,
        targets(finding),
    ])
}

/// What is to be reached, and whether it is.
fn targets(finding: &Finding) -> String {
    let told = finding.targets().filter_map(|target| {
        let (reached, bound) = if target.is_of_ratio() {
            (finding.ratio()?.median, digits(target.bound.value()))
        } else {
            (finding.dataplane()?.median, quantity(target.bound.value(), finding.unit))
        };
        let sign = match target.bound {
            Bound::AtLeast(_) => "≥",
            Bound::AtMost(_) => "≤",
        };
        let verdict = if target.bound.is_met(reached) { "met" } else { "missed" };
        Some(format!("{sign} {bound} {verdict}"))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// A ratio with as many digits as tell something.
pub(super) fn digits(ratio: f64) -> String {
    let decimals = match ratio.abs() {
        large if large >= 100.0 => 0,
        large if large >= 10.0 => 1,
        small if small < 0.095 => 4,
        _ => 2,
    };
    format!("{ratio:.decimals$}")
}

/// Three digits and the unit, with a prefix where there are many before the point of a rate.
fn quantity(figure: f64, unit: &str) -> String {
    let (figure, prefix) = match figure.abs() {
        large if large >= 1e6 && unit.ends_with("/s") => (figure / 1e6, "M "),
        large if large >= 1e4 && unit.ends_with("/s") => (figure / 1e3, "k "),
        _ => (figure, ""),
    };
    let decimals = match figure.abs() {
        large if large >= 100.0 => 0,
        small if small < 0.1 => 3,
        _ => 2,
    };
    format!("{figure:.decimals$} {prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Sample;
    use super::*;

    fn finding(samples: Vec<Sample>) -> Finding {
        Finding::new("pps-deliver", "uplink to container", "rate", "packets/s", samples).against("iptables")
    }

    #[test]
    fn a_pair_is_shown_with_its_ratio_and_target() {
        let shown = row(&finding(vec![Sample::pair(1.5e6, 0.6e6)])).unwrap();
        assert_eq!(
            shown[3..],
            ["1.50 M packets/s", "600 k packets/s iptables", "2.50 (2.50 to 2.50)", "≥ 2.40 met"]
        );
        let slow = row(&finding(vec![Sample::pair(0.7e6, 0.6e6)])).unwrap();
        assert_eq!(slow[6], "≥ 2.40 missed");
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(quantity(0.0153, "s"), "0.015 s");
        assert_eq!(quantity(13_358.0, "us"), "13358 us");
        assert_eq!(quantity(9_123.4, "1/s"), "9123 1/s");
        assert_eq!(quantity(14_000.0, "1/s"), "14.00 k 1/s");
        assert_eq!(quantity(1_474_000.0, "1/s"), "1.47 M 1/s");
        assert_eq!(
            [digits(0.0123), digits(2.5), digits(28.66), digits(431.0)],
            ["0.0123", "2.50", "28.7", "431"]
        );
    }
}
