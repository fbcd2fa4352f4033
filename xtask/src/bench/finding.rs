//! What a case found: figures in pairs, and what follows from them.

use super::target::{self, Target};

/// One figure of one case.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// The case's name on the command line.
    pub(super) case: &'static str,
    /// Which part or path of the case.
    pub(super) variant: String,
    /// What is measured: `rate`, `marginal-cost`, ...
    pub(super) metric: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// With what the data path is compared; none where there is nothing comparable.
    pub(super) baseline_name: Option<String>,
    /// How many routes, flows or prefixes there were, where the case goes through several such numbers.
    pub(super) at: Option<u64>,
    /// The measurements, in the order in which they were made.
    pub(super) samples: Vec<Sample>,
}

/// One measurement of the data path, and the one of the baseline that was made right after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// The data path's figure.
    pub(super) dataplane: f64,
    /// The baseline's.
    pub(super) baseline: Option<f64>,
}

impl Sample {
    /// A pair.
    pub(super) fn pair(dataplane: f64, baseline: f64) -> Self {
        Self { dataplane, baseline: Some(baseline) }
    }

    /// A figure without a baseline.
    pub(super) fn alone(dataplane: f64) -> Self {
        Self { dataplane, baseline: None }
    }
}

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The one in the middle, or the mean of both.
    pub(super) median: f64,
    /// The smallest.
    pub(super) min: f64,
    /// The largest.
    pub(super) max: f64,
}

/// Ratios that spread over more than this share of their median decide nothing.
const TOO_WIDE: f64 = 0.2;

impl Spread {
    /// Of figures; none where there are none.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Some(Self { median, min: first, max: last })
    }

    /// Whether the extremes are too far apart for a conclusion.
    pub(super) fn is_wide(self) -> bool {
        self.max - self.min > TOO_WIDE * self.median.abs()
    }

    /// Of one divided by each figure.
    pub(super) fn inverse(self) -> Self {
        Self { median: 1.0 / self.median, min: 1.0 / self.max, max: 1.0 / self.min }
    }
}

/// Whether more of a metric is better; of costs, times and memory less is.
pub(super) fn more_is_better(metric: &str) -> bool {
    metric == "rate" || metric == "share"
}

impl Finding {
    /// Figures of the data path alone.
    pub(super) fn new(
        case: &'static str,
        variant: impl Into<String>,
        metric: &'static str,
        unit: &'static str,
        samples: Vec<Sample>,
    ) -> Self {
        let variant = variant.into();
        Self { case, variant, metric, unit, baseline_name: None, at: None, samples }
    }

    /// Says what the second figure of each pair is of.
    pub(super) fn against(mut self, baseline: &str) -> Self {
        self.baseline_name = Some(baseline.to_owned());
        self
    }

    /// With so many routes, flows or prefixes.
    pub(super) fn at(mut self, number: u64) -> Self {
        self.at = Some(number);
        self
    }

    /// The variant, with the number of routes, flows or prefixes if there are several such numbers.
    pub(super) fn part(&self) -> String {
        self.at.map_or_else(|| self.variant.clone(), |at| format!("{}, {at}", self.variant))
    }

    /// The data path's figures.
    pub(super) fn dataplane(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().map(|sample| sample.dataplane))
    }

    /// The baseline's figures.
    pub(super) fn baseline(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| sample.baseline))
    }

    /// Data path divided by baseline, pair by pair.
    pub(super) fn ratio(&self) -> Option<Spread> {
        let ratio = |sample: &Sample| Some(sample.dataplane / sample.baseline?);
        Spread::of(self.samples.iter().filter_map(ratio))
    }

    /// How many times as good as the baseline, whether more or less of it is better; none where a figure is not
    /// above zero, as a marginal cost can be that is lost in the noise.
    pub(super) fn gain(&self) -> Option<Spread> {
        let ratio = self.ratio().filter(|ratio| ratio.min > 0.0)?;
        Some(if more_is_better(self.metric) { ratio } else { ratio.inverse() })
    }

    /// What it is to reach.
    pub(super) fn targets(&self) -> impl Iterator<Item = &'static Target> {
        target::of(self.case, &self.variant, self.metric, self.baseline_name.as_deref(), self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let samples = vec![Sample::pair(4.0, 2.0), Sample::pair(9.0, 3.0), Sample::pair(2.0, 2.0)];
        let finding = Finding::new("case", "", "rate", "1/s", samples).against("other");
        assert_eq!(finding.ratio(), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(finding.dataplane(), Some(Spread { median: 4.0, min: 2.0, max: 9.0 }));
        assert_eq!(finding.baseline(), Some(Spread { median: 2.0, min: 2.0, max: 3.0 }));
    }

    #[test]
    fn a_gain_is_above_one_where_the_data_path_is_better() {
        let samples = vec![Sample::pair(1.0, 4.0), Sample::pair(1.0, 2.0), Sample::pair(1.0, 5.0)];
        let cost = Finding::new("case", "", "marginal-cost", "ns/packet", samples).against("other");
        assert_eq!(cost.gain(), Some(Spread { median: 4.0, min: 2.0, max: 5.0 }));
        let rate = Finding { metric: "rate", ..cost };
        assert_eq!(rate.gain().map(|gain| gain.median), Some(0.25));
        let lost = Finding::new("case", "", "marginal-cost", "ns/packet", vec![Sample::pair(-1.0, 4.0)]);
        assert_eq!(lost.gain(), None);
    }

    #[test]
    fn an_even_number_has_its_median_between_two() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn figures_far_apart_decide_nothing() {
        assert!(!Spread { median: 2.0, min: 1.9, max: 2.2 }.is_wide());
        assert!(Spread { median: 2.0, min: 1.7, max: 2.2 }.is_wide());
    }
}
