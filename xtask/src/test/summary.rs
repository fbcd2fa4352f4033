//! What a run came to: a table by tier, the skipped tests with their reasons, and the closing line.

use std::process::ExitCode;
use std::time::Duration;

use super::counts::Counts;
use super::skips::Skip;

/// What one tier came to, or one kernel in the tier `vm`.
pub(crate) struct Outcome {
    name: String,
    counts: Counts,
    skips: Vec<Skip>,
    /// Whether it failed without a test that failed: it did not compile, or was killed.
    broken: bool,
    time: Duration,
}

impl Outcome {
    /// `succeeded` is cargo's own verdict; a failure that no test accounts for is counted as one.
    pub(crate) fn new(
        name: String,
        counts: Counts,
        skips: Vec<Skip>,
        succeeded: bool,
        time: Duration,
    ) -> Self {
        let broken = !succeeded && counts.failed == 0;
        let counts = counts.with_skips(skips.len());
        let counts = Counts { failed: counts.failed + usize::from(broken), ..counts };
        Self { name, counts, skips, broken, time }
    }

    /// What cannot be run on this machine, and why: counted as one skipped test.
    pub(crate) fn skipped(name: String, reason: &str) -> Self {
        let skip = Skip { test: name.clone(), reason: reason.to_owned() };
        Self::new(name, Counts::default(), vec![skip], true, Duration::ZERO)
    }

    /// Without the time, and with the skips that made it.
    pub(crate) fn parts(&self) -> (Counts, &[Skip]) {
        (self.counts, &self.skips)
    }
}

/// Prints the closing lines, and gives the exit status: a failure if any test failed, or none ran.
pub(crate) fn close(outcomes: &[Outcome]) -> ExitCode {
    println!();
    for line in lines(outcomes) {
        println!("{line}");
    }
    let total = total(outcomes);
    if total.failed > 0 || total.passed == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn lines(outcomes: &[Outcome]) -> Vec<String> {
    let mut lines = Vec::new();
    for outcome in outcomes {
        for skip in &outcome.skips {
            lines.push(format!("skipped {}: {}", skip.test, skip.reason));
        }
        if outcome.broken {
            lines.push(format!("tier {} did not run to its end; its output above says why", outcome.name));
        }
    }
    lines.push(format!("{:<8}{:>8}{:>8}{:>9}{:>9}", "tier", "passed", "failed", "skipped", "seconds"));
    for Outcome { name, counts, time, .. } in outcomes {
        let Counts { passed, failed, skipped } = counts;
        let seconds = time.as_secs_f64();
        lines.push(format!("{:<8}{passed:>8}{failed:>8}{skipped:>9}{seconds:>9.1}", name));
    }
    let Counts { passed, failed, skipped } = total(outcomes);
    if passed + failed == 0 {
        lines.push("no test ran".to_owned());
    }
    lines.push(format!("{passed} passed, {failed} failed, {skipped} skipped"));
    lines
}

fn total(outcomes: &[Outcome]) -> Counts {
    let mut total = Counts::default();
    for outcome in outcomes {
        total += outcome.counts;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, passed: usize, failed: usize, skips: &[&str], succeeded: bool) -> Outcome {
        let skip = |test: &&str| Skip { test: (*test).to_owned(), reason: "no TCX".to_owned() };
        let counts = Counts { passed, failed, skipped: 0 };
        Outcome::new(
            name.to_owned(),
            counts,
            skips.iter().map(skip).collect(),
            succeeded,
            Duration::from_millis(1500),
        )
    }

    #[test]
    fn the_last_line_is_the_sum_alone() {
        let lines = lines(&[outcome("unit", 40, 0, &[], true), outcome("netns", 5, 1, &["a::b"], false)]);
        assert_eq!(
            lines,
            [
                "skipped a::b: no TCX",
                "tier      passed  failed  skipped  seconds",
                "unit          40       0        0      1.5",
                "netns          4       1        1      1.5",
                "44 passed, 1 failed, 1 skipped",
            ]
        );
    }

    #[test]
    fn a_tier_that_breaks_off_is_a_failure() {
        let outcomes = [outcome("prog", 3, 0, &[], false)];
        assert_eq!(total(&outcomes), Counts { passed: 3, failed: 1, skipped: 0 });
        assert!(lines(&outcomes)[0].starts_with("tier prog did not run to its end"));
        assert_eq!(close(&outcomes), ExitCode::FAILURE);
    }

    #[test]
    fn nothing_run_is_a_failure() {
        assert_eq!(close(&[]), ExitCode::FAILURE);
        assert_eq!(close(&[outcome("unit", 1, 0, &["a"], true)]), ExitCode::FAILURE);
        assert_eq!(close(&[outcome("unit", 1, 0, &[], true)]), ExitCode::SUCCESS);
    }
}
