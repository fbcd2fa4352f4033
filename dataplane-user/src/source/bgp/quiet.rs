//! Log lines that a peer can cause: some at once, then one now and then, with the number of those that were left out.

use std::{fmt, time::Duration};

use tokio::time::Instant;

/// Lines of a kind that are written at once.
const BURST: u32 = 10;

/// How long it takes until one more may be.
const INTERVAL: Duration = Duration::from_secs(30);

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A session begins.
    Up,
    /// A session ends.
    Down,
    /// No session comes about.
    Attempt,
    /// Routes are kept, or not, during a restart.
    Stale,
    /// An UPDATE is malformed.
    Update,
    /// Its routes have too many next hops.
    NextHops,
    /// A connection is refused.
    Refused,
}

/// How many kinds there are.
const KINDS: usize = Kind::Refused as usize + 1;

/// How much of each kind may be written.
#[derive(Debug)]
pub struct Quiet([Budget; KINDS]);

#[derive(Clone, Copy, Debug)]
struct Budget {
    lines: u32,
    /// When the last line was added to `lines`.
    since: Instant,
    left_out: u64,
}

/// Lines that were left out before this one: shown behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} messages of this kind were suppressed)"),
        }
    }
}

impl Quiet {
    /// Nothing was written yet.
    pub fn new(now: Instant) -> Self {
        Self([Budget { lines: BURST, since: now, left_out: 0 }; KINDS])
    }

    /// Whether a line may be written, and what is to stand behind it.
    pub fn admit(&mut self, kind: Kind, now: Instant) -> Option<LeftOut> {
        let budget = &mut self.0[kind as usize];
        let intervals = now.duration_since(budget.since).as_secs() / INTERVAL.as_secs();
        let more = u32::try_from(intervals).unwrap_or(BURST);
        if budget.lines.saturating_add(more) >= BURST {
            (budget.lines, budget.since) = (BURST, now);
        } else {
            budget.lines += more;
            budget.since += INTERVAL * more;
        }
        if budget.lines == 0 {
            budget.left_out += 1;
            return None;
        }
        budget.lines -= 1;
        Some(LeftOut(std::mem::take(&mut budget.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_with_the_number_of_the_others() {
        let begin = Instant::now();
        let mut quiet = Quiet::new(begin);
        let written = (0..1000).filter(|_| quiet.admit(Kind::Down, begin).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(quiet.admit(Kind::Up, begin), Some(LeftOut(0)), "each kind has its own");
        let later = begin + INTERVAL;
        let said = quiet.admit(Kind::Down, later).unwrap().to_string();
        assert_eq!(said, " (990 messages of this kind were suppressed)");
        assert_eq!(quiet.admit(Kind::Down, later), None);
        let hours = (1..=3600)
            .filter(|second| quiet.admit(Kind::Down, later + Duration::from_secs(*second)).is_some());
        assert_eq!(hours.count(), 120);
        let much_later = later + Duration::from_secs(1_000_000);
        assert_eq!((0..50).filter(|_| quiet.admit(Kind::Down, much_later).is_some()).count(), 10);
    }
}
