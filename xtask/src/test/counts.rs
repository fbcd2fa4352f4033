//! Counts of tests, from the lines with which libtest closes.

use std::ops::AddAssign;

/// How many tests came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Counts {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`; `None` for any
    /// other line.
    fn from_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let of = |what: &str| {
            counts.split("; ").find_map(|count| count.strip_suffix(what)?.trim_end().parse::<usize>().ok())
        };
        Some(Self { passed: of("passed")?, failed: of("failed")?, skipped: of("ignored")? })
    }

    /// Tests that report a skip return like those that pass: `skips` of them are taken from the passed.
    pub(crate) fn with_skips(self, skips: usize) -> Self {
        Self { passed: self.passed.saturating_sub(skips), skipped: self.skipped + skips, ..self }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Adds up the counts in an output that comes in pieces.
#[derive(Default)]
pub(crate) struct Tally {
    counts: Counts,
    /// The line that has begun.
    line: Vec<u8>,
}

impl Tally {
    /// Takes the next piece.
    pub(crate) fn take(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            if let Some(counts) = Counts::from_line(&String::from_utf8_lossy(&self.line)) {
                self.counts += counts;
            }
            self.line.clear();
        }
    }

    /// What the lines so far add up to.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 6 tests\ntest a ... ok\ntest b ... FAILED\n\
        test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.12s\n\n\
        test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";

    fn counts(passed: usize, failed: usize, skipped: usize) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn closing_lines_add_up() {
        let mut tally = Tally::default();
        tally.take(OUTPUT.as_bytes());
        assert_eq!(tally.counts(), counts(43, 1, 2));
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let mut tally = Tally::default();
        for byte in OUTPUT.as_bytes() {
            tally.take(&[*byte]);
        }
        assert_eq!(tally.counts(), counts(43, 1, 2));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in [
            "",
            "test passed ... ok",
            "test result: ok",
            "test result: ok. passed; failed; ignored",
            "  test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured",
            "5 passed; 0 failed; 0 ignored",
        ] {
            assert_eq!(Counts::from_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_reported_skip_is_no_pass() {
        assert_eq!(counts(5, 1, 1).with_skips(2), counts(3, 1, 3));
        assert_eq!(counts(0, 2, 0).with_skips(1), counts(0, 2, 1));
    }
}
