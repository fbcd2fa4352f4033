//! Which pictures the findings make, before anything is drawn.

use super::super::finding::{Finding, Spread};

/// The data path's name in the pictures.
pub(super) const OURS: &str = "dataplane";

/// A picture.
#[derive(Debug, PartialEq)]
pub(super) struct Chart {
    /// Name of its file, without the extension.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What the axis of the figures shows, with its unit.
    pub(super) axis: &'static str,
    /// Whether a step on that axis is a factor.
    pub(super) is_logarithmic: bool,
    pub(super) body: Body,
}

/// What is on a picture.
#[derive(Debug, PartialEq)]
pub(super) enum Body {
    /// Rows in groups, each with one mark or several; bars begin at `origin`.
    Rows { origin: f64, groups: Vec<Group> },
    /// Curves over a number, in steps that are factors; `targets` are where they are to stay below.
    Curves { across: &'static str, curves: Vec<Curve>, targets: Vec<(f64, f64)> },
}

/// Rows under one label.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    pub(super) label: String,
    pub(super) rows: Vec<Row>,
}

/// A row: a path's figures.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// Whose figures they are, or against whom: it has the colour.
    pub(super) path: String,
    pub(super) mark: Mark,
    /// What is to be reached.
    pub(super) target: Option<f64>,
}

/// How a row's figures are drawn.
#[derive(Debug, PartialEq)]
pub(super) enum Mark {
    /// A bar to the median, and a whisker from the smallest to the largest.
    Bar(Spread),
    /// Points, each with its name.
    Points(Vec<(&'static str, f64)>),
}

/// One curve.
#[derive(Debug, PartialEq)]
pub(super) struct Curve {
    pub(super) path: String,
    /// Where, and the figures there.
    pub(super) points: Vec<(f64, Spread)>,
}

/// Percentiles, from the one in the middle on, and what they are called on the picture.
const LATENCIES: [(&str, &str); 4] =
    [("latency-p50", "p50"), ("latency-p90", "p90"), ("latency-p99", "p99"), ("latency-max", "max")];

impl Chart {
    /// All that the findings are enough for.
    pub(super) fn all(findings: &[Finding]) -> Vec<Self> {
        let rows = |name, title, axis, is_logarithmic, origin, groups: Vec<Group>| {
            let body = Body::Rows { origin, groups };
            Self { name, title, axis, is_logarithmic, body }
        };
        let mut charts = vec![
            rows(
                "gain",
                "How many times as good as the baseline",
                "times as good as the baseline (median of the pairs; whiskers: their extremes)",
                true,
                1.0,
                gains(findings),
            ),
            rows(
                "packets",
                "Packets per second on one CPU, 64 bytes each",
                "million packets/s, generator and sink included",
                false,
                0.0,
                figures(findings, |finding| finding.unit == "packets/s", 1e-6),
            ),
            rows(
                "cost",
                "Cost of a packet, beyond generator and sink",
                "ns/packet",
                false,
                0.0,
                figures(findings, |finding| finding.metric == "marginal-cost", 1.0),
            ),
            rows(
                "latency",
                "Latency of a request and its answer",
                "µs, from the sending of the request to the receipt of the answer",
                true,
                0.0,
                latencies(findings),
            ),
        ];
        charts.extend(CURVES.iter().map(|kind| kind.chart(findings)));
        charts.retain(|chart| !chart.is_empty());
        charts
    }

    fn is_empty(&self) -> bool {
        match &self.body {
            Body::Rows { groups, .. } => groups.is_empty(),
            Body::Curves { curves, .. } => curves.iter().all(|curve| curve.points.len() < 2),
        }
    }
}

/// A case that goes through several numbers.
struct Numbers {
    case: &'static str,
    metric: &'static str,
    title: &'static str,
    axis: &'static str,
    is_logarithmic: bool,
    across: &'static str,
    /// Whether the baseline is drawn as a curve; where it is the data path itself, the variants are.
    by_path: bool,
}

const CURVES: [Numbers; 4] = [
    Numbers {
        case: "lookup",
        metric: "time",
        title: "A route lookup, by number of routes",
        axis: "ns per lookup of a random address that has a route",
        is_logarithmic: true,
        across: "prefixes in the table",
        by_path: true,
    },
    Numbers {
        case: "scale-routes",
        metric: "cost",
        title: "Cost of a packet, by number of routes",
        axis: "ns/packet, generator and sink included",
        is_logarithmic: false,
        across: "routes in the table",
        by_path: false,
    },
    Numbers {
        case: "scale-flows",
        metric: "cost",
        title: "Cost of a packet, by number of flows",
        axis: "ns/packet, generator and sink included",
        is_logarithmic: false,
        across: "flows",
        by_path: false,
    },
    Numbers {
        case: "route-load",
        metric: "time",
        title: "Routes from a BGP peer to the last one that packets take",
        axis: "seconds from the first UPDATE",
        is_logarithmic: true,
        across: "prefixes",
        by_path: true,
    },
];

impl Numbers {
    fn chart(&self, findings: &[Finding]) -> Chart {
        let mut curves: Vec<Curve> = Vec::new();
        let mut targets = Vec::new();
        for finding in findings.iter().filter(|f| f.case == self.case && f.metric == self.metric) {
            let Some(at) = finding.at else { continue };
            let mut add = |path: &str, spread: Option<Spread>| {
                let Some(spread) = spread else { return };
                let index = curves.iter().position(|curve| curve.path == path).unwrap_or_else(|| {
                    curves.push(Curve { path: path.to_owned(), points: Vec::new() });
                    curves.len() - 1
                });
                curves[index].points.push((at as f64, spread));
            };
            // Where there are two, the stricter one holds both.
            let bounds = finding.targets().filter_map(|target| {
                let unit = if target.is_of_ratio() { finding.baseline()?.median } else { 1.0 };
                Some(target.bound.value() * unit)
            });
            targets.extend(bounds.min_by(f64::total_cmp).map(|bound| (at as f64, bound)));
            match &finding.baseline_name {
                Some(baseline) if self.by_path => {
                    add(OURS, finding.dataplane());
                    add(baseline, finding.baseline());
                }
                _ => add(&finding.variant, finding.dataplane()),
            }
        }
        Chart {
            name: self.case,
            title: self.title,
            axis: self.axis,
            is_logarithmic: self.is_logarithmic,
            body: Body::Curves { across: self.across, curves, targets },
        }
    }
}

/// The group with that label, which is added if need be.
fn group<'a>(groups: &'a mut Vec<Group>, label: &str) -> &'a mut Group {
    let index = groups.iter().position(|group| group.label == label).unwrap_or_else(|| {
        groups.push(Group { label: label.to_owned(), rows: Vec::new() });
        groups.len() - 1
    });
    &mut groups[index]
}

fn gains(findings: &[Finding]) -> Vec<Group> {
    let mut groups = Vec::new();
    for finding in findings {
        let Some(baseline) = &finding.baseline_name else { continue };
        let target = finding.targets().find(|target| target.is_of_ratio());
        // What goes through many numbers has a picture of its own; what latency has, too.
        let elsewhere = finding.at.is_some() || LATENCIES.iter().any(|(metric, _)| *metric == finding.metric);
        let with_itself = finding.metric == "cost";
        if finding.case == "direct" || with_itself || (elsewhere && target.is_none()) {
            continue;
        }
        let Some(gain) = finding.gain() else { continue };
        let more = super::super::finding::more_is_better(finding.metric);
        let row = Row {
            path: baseline.clone(),
            mark: Mark::Bar(gain),
            target: target.map(|target| if more { target.bound.value() } else { 1.0 / target.bound.value() }),
        };
        group(&mut groups, &label(finding, finding.metric)).rows.push(row);
    }
    groups
}

fn figures(findings: &[Finding], wanted: impl Fn(&Finding) -> bool, factor: f64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.at.is_none() && wanted(finding)) {
        let label = label(finding, "rate");
        if groups.iter().all(|group| group.label != label) {
            // The data path was measured anew against each baseline: all of that is one row.
            let same = |f: &&Finding| {
                (f.case, &f.variant, f.metric) == (finding.case, &finding.variant, finding.metric)
            };
            let all = findings.iter().filter(same).flat_map(|f| &f.samples).map(|sample| sample.dataplane);
            bar(group(&mut groups, &label), OURS, Spread::of(all), factor);
        }
        if let Some(baseline) = &finding.baseline_name {
            bar(group(&mut groups, &label), baseline, finding.baseline(), factor);
        }
    }
    groups
}

fn bar(group: &mut Group, path: &str, spread: Option<Spread>, factor: f64) {
    let Some(Spread { median, min, max }) = spread else { return };
    let mark = Mark::Bar(Spread { median: median * factor, min: min * factor, max: max * factor });
    group.rows.push(Row { path: path.to_owned(), mark, target: None });
}

fn latencies(findings: &[Finding]) -> Vec<Group> {
    let mut groups = Vec::new();
    for finding in findings {
        let Some((_, name)) = LATENCIES.iter().find(|(metric, _)| *metric == finding.metric) else {
            continue;
        };
        let group = group(&mut groups, &format!("{}, {}", finding.case, finding.part()));
        let mut add = |path: &str, spread: Option<Spread>| {
            let Some(figure) = spread.map(|spread| spread.median).filter(|figure| *figure > 0.0) else {
                return;
            };
            let index = group.rows.iter().position(|row| row.path == path).unwrap_or_else(|| {
                group.rows.push(Row { path: path.to_owned(), mark: Mark::Points(Vec::new()), target: None });
                group.rows.len() - 1
            });
            if let Mark::Points(points) = &mut group.rows[index].mark
                && points.iter().all(|(known, _)| known != name)
            {
                points.push((name, figure));
            }
        };
        add(OURS, finding.dataplane());
        if let Some(baseline) = &finding.baseline_name {
            add(baseline, finding.baseline());
        }
    }
    groups
}

/// Case and variant, and the metric where it is not the case's first.
fn label(finding: &Finding, metric: &str) -> String {
    let metric = if metric == "rate" { String::new() } else { format!(": {}", metric.replace('-', " ")) };
    format!("{}, {}{metric}", finding.case, finding.part())
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Sample;
    use super::*;

    fn finding(case: &'static str, metric: &'static str, unit: &'static str, pair: [f64; 2]) -> Finding {
        Finding::new(case, "variant", metric, unit, vec![Sample::pair(pair[0], pair[1])]).against("iptables")
    }

    fn chart(findings: &[Finding], name: &str) -> Chart {
        let chart = Chart::all(findings).into_iter().find(|chart| chart.name == name);
        chart.unwrap_or_else(|| panic!("no picture {name}"))
    }

    fn groups(chart: Chart) -> Vec<Group> {
        let Body::Rows { groups, .. } = chart.body else { panic!("{} has curves", chart.name) };
        groups
    }

    #[test]
    fn a_cost_that_is_half_is_a_gain_of_two_and_so_is_its_target() {
        let cost = finding("pps-deliver", "marginal-cost", "ns/packet", [100.0, 200.0]);
        let groups = groups(chart(&[cost], "gain"));
        assert_eq!(groups[0].label, "pps-deliver, variant: marginal cost");
        let Mark::Bar(gain) = groups[0].rows[0].mark else { panic!("no bar") };
        assert_eq!(gain.median, 2.0);
        assert_eq!(groups[0].rows[0].target.map(f64::round), Some(6.0));
    }

    #[test]
    fn the_data_path_has_one_row_beside_all_its_baselines() {
        let other = finding("pps-deliver", "rate", "packets/s", [3e6, 1e6]);
        let findings = [
            finding("pps-deliver", "rate", "packets/s", [1e6, 5e5]),
            Finding { baseline_name: Some("route".to_owned()), ..other },
        ];
        let groups = groups(chart(&findings, "packets"));
        let paths: Vec<&str> = groups[0].rows.iter().map(|row| row.path.as_str()).collect();
        assert_eq!(paths, [OURS, "iptables", "route"]);
        assert_eq!(groups[0].rows[0].mark, Mark::Bar(Spread { median: 2.0, min: 1.0, max: 3.0 }));
    }

    #[test]
    fn the_percentiles_of_a_path_are_one_row() {
        let findings = [
            finding("udp-rr", "latency-p50", "us", [18.0, 24.0]),
            finding("udp-rr", "latency-p99", "us", [34.0, 42.0]),
        ];
        let groups = groups(chart(&findings, "latency"));
        assert_eq!((groups.len(), groups[0].rows.len()), (1, 2));
        assert_eq!(groups[0].rows[0].mark, Mark::Points(vec![("p50", 18.0), ("p99", 34.0)]));
    }

    #[test]
    fn a_curve_goes_through_the_numbers_of_its_case() {
        let at = |at: u64, pair| Finding { at: Some(at), ..finding("lookup", "time", "ns/lookup", pair) };
        let findings = [at(10, [9.0, 20.0]), at(1_000_000, [20.0, 700.0])];
        let Body::Curves { curves, targets, .. } = chart(&findings, "lookup").body else {
            panic!("no curves")
        };
        assert_eq!(curves.iter().map(|curve| curve.path.as_str()).collect::<Vec<_>>(), [OURS, "iptables"]);
        assert_eq!(curves[1].points.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [10.0, 1e6]);
        assert_eq!(targets, [(1e6, 30.0)]);
        // One point is no curve.
        assert!(Chart::all(&findings[..1]).iter().all(|chart| chart.name != "lookup"));
    }
}
