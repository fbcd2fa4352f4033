//! Which links are uplinks where the file does not name them: those of the default routes, and for a moment those of
//! default routes that are gone.
//!
//! A DHCP client, a network manager or an operator often removes a default route and adds it again. Were the link no
//! uplink in between, its translations would end and packets would leave untranslated.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a link stays an uplink without a default route, unless another link takes its place.
const HOLD: Duration = Duration::from_secs(10);

/// The uplinks that were found, by index.
#[derive(Debug, Default)]
pub struct FoundUplinks {
    /// Those of the default routes, the best first.
    current: Vec<u32>,
    /// Those without one any more, and until when they count.
    held: BTreeMap<u32, Instant>,
}

impl FoundUplinks {
    /// Follows the default routes, which lead by these links now; `exists` says whether there is a link.
    pub fn update(&mut self, default: Vec<u32>, exists: impl Fn(u32) -> bool, now: Instant) {
        let known = |index: &u32| self.current.contains(index) || self.held.contains_key(index);
        if default.iter().any(|index| !known(index)) {
            // Another link has taken the place of what is gone.
            self.held.clear();
        } else {
            let gone = self.current.iter().filter(|index| !default.contains(index));
            self.held.extend(gone.map(|index| (*index, now + HOLD)));
        }
        self.held.retain(|index, until| !default.contains(index) && exists(*index) && *until > now);
        self.current = default;
    }

    /// Every link that counts, those of default routes first.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.current.iter().chain(self.held.keys()).copied()
    }

    /// Those that have no default route any more.
    pub fn held(&self) -> impl Iterator<Item = u32> {
        self.held.keys().copied()
    }

    /// When [`Self::update`] is to be called though nothing changed.
    pub fn due(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The uplinks after each of these default routes, so many seconds after the start.
    fn follow(steps: &[(u64, &[u32])]) -> Vec<u32> {
        let (mut found, start) = (FoundUplinks::default(), Instant::now());
        for (seconds, default) in steps {
            let now = start + Duration::from_secs(*seconds);
            found.update(default.to_vec(), |index| index != 9, now);
        }
        found.all().collect()
    }

    #[test]
    fn a_link_without_default_route_stays_for_a_while() {
        assert_eq!(follow(&[(0, &[2]), (1, &[])]), [2]);
        assert_eq!(follow(&[(0, &[2]), (1, &[]), (4, &[2])]), [2]);
        assert_eq!(follow(&[(0, &[2]), (1, &[]), (10, &[])]), [2]);
        assert_eq!(follow(&[(0, &[2]), (1, &[]), (11, &[])]), [0; 0]);
        assert_eq!(follow(&[(0, &[2, 3]), (1, &[3])]), [3, 2]);
    }

    #[test]
    fn another_link_takes_its_place_at_once() {
        assert_eq!(follow(&[(0, &[2]), (1, &[3])]), [3]);
        assert_eq!(follow(&[(0, &[2]), (1, &[]), (4, &[3])]), [3]);
        assert_eq!(follow(&[(0, &[2, 3]), (1, &[3]), (2, &[3, 4])]), [3, 4]);
    }

    #[test]
    fn a_link_that_is_gone_does_not_stay() {
        assert_eq!(follow(&[(0, &[9, 2]), (1, &[])]), [2]);
    }
}
