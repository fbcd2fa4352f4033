//! From figures to pixels.

/// An axis: linear, or one whose steps are factors.
pub(super) struct Axis {
    from: f64,
    to: f64,
    is_logarithmic: bool,
    /// Pixels at both its ends.
    ends: (f64, f64),
}

/// Factors to which a logarithmic axis is widened beyond its figures.
const MARGIN: f64 = 1.15;

impl Axis {
    /// An axis that has all figures on it, and zero too if it is linear.
    pub(super) fn over(
        figures: impl IntoIterator<Item = f64>,
        is_logarithmic: bool,
        ends: (f64, f64),
    ) -> Self {
        let usable =
            figures.into_iter().filter(|figure| figure.is_finite() && (!is_logarithmic || *figure > 0.0));
        let (mut from, mut to) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), figure| {
            (from.min(figure), to.max(figure))
        });
        if from > to {
            (from, to) = (1.0, 1.0);
        }
        if is_logarithmic {
            (from, to) = (from / MARGIN, to * MARGIN);
        } else {
            (from, to) = (from.min(0.0) * 1.05, to.max(f64::MIN_POSITIVE) * 1.05);
        }
        Self { from, to, is_logarithmic, ends }
    }

    /// Where a figure is; outside figures are at the end.
    pub(super) fn at(&self, figure: f64) -> f64 {
        let share = if self.is_logarithmic {
            (figure.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (figure - self.from) / (self.to - self.from)
        };
        self.ends.0 + share.clamp(0.0, 1.0) * (self.ends.1 - self.ends.0)
    }

    /// The figures to name on it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic { self.factors() } else { self.steps() }
    }

    fn steps(&self) -> Vec<f64> {
        let rough = (self.to - self.from) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.from / step).ceil() as i64;
        (first..).map(|count| count as f64 * step).take_while(|tick| *tick <= self.to).take(20).collect()
    }

    fn factors(&self) -> Vec<f64> {
        let decades = (self.to / self.from).log10();
        let within: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (first, last) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
        (first..=last)
            .flat_map(|power| within.iter().map(move |factor| factor * 10f64.powi(power)))
            .filter(|tick| (self.from..=self.to).contains(tick))
            .collect()
    }
}

/// A tick's name, as short as it can be.
pub(super) fn name(figure: f64) -> String {
    let (figure, suffix) = match figure.abs() {
        large if large >= 1e6 => (figure / 1e6, "M"),
        large if large >= 1e4 => (figure / 1e3, "k"),
        _ => (figure, ""),
    };
    let text = format!("{figure:.3}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_has_zero_and_even_steps() {
        let axis = Axis::over([0.4, 1.5], false, (0.0, 100.0));
        assert_eq!(axis.at(0.0), 0.0);
        assert!(axis.at(1.5) > 90.0);
        let names: Vec<String> = axis.ticks().into_iter().map(name).collect();
        assert_eq!(names, ["0", "0.5", "1", "1.5"]);
    }

    #[test]
    fn a_logarithmic_axis_has_factors() {
        let axis = Axis::over([1.0, 28.0], true, (0.0, 100.0));
        let middle = axis.at(28f64.sqrt());
        assert!((middle - 50.0).abs() < 0.01, "{middle}");
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0]);
        let wide = Axis::over([10.0, 1e6], true, (100.0, 0.0));
        let names: Vec<String> = wide.ticks().into_iter().map(name).collect();
        assert_eq!(names, ["10", "100", "1000", "10k", "100k", "1M"]);
    }

    #[test]
    fn nothing_to_show_is_no_fault() {
        assert!(Axis::over([f64::NAN, -1.0], true, (0.0, 1.0)).at(1.0).is_finite());
        assert!(Axis::over([], false, (0.0, 1.0)).at(1.0).is_finite());
    }
}
