//! Keeping things as they are wanted: which may differ from what is wanted, which could not be made so and why, and which
//! of those are tried again.
//!
//! What is wanted and what is there the owner knows, or can ask: a route for each of a million prefixes is not to be held
//! twice. Here stand only the keys that need work.

use std::collections::{BTreeMap, BTreeSet};

/// The keys of one kind of thing that are not known to be as wanted. `R` is why one was refused.
#[derive(Clone, Debug)]
pub struct Applied<K, R> {
    pending: BTreeSet<K>,
    /// By reason, of which there are few.
    refused: BTreeMap<R, BTreeSet<K>>,
}

impl<K, R> Default for Applied<K, R> {
    fn default() -> Self {
        Self { pending: BTreeSet::new(), refused: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, R: Ord> Applied<K, R> {
    /// What is wanted for these may be different from what is there.
    pub fn mark(&mut self, keys: impl IntoIterator<Item = K>) {
        for key in keys {
            // What was refused may be another thing now.
            self.forgive(&key);
            self.pending.insert(key);
        }
    }

    /// Leaves those as they are that the predicate names, until [`Self::mark`] names them.
    pub fn postpone(&mut self, is_postponed: impl Fn(&K) -> bool) {
        self.pending.retain(|key| !is_postponed(key));
        self.refused.retain(|_, keys| {
            keys.retain(|key| !is_postponed(key));
            !keys.is_empty()
        });
    }

    /// At most so many keys to work on now. Each is done with, unless [`Self::refuse`] or [`Self::mark`] names it again.
    pub fn take(&mut self, most: usize) -> BTreeSet<K> {
        if self.pending.len() <= most {
            return std::mem::take(&mut self.pending);
        }
        (0..most).map_while(|_| self.pending.pop_first()).collect()
    }

    /// It could not be made as wanted: it waits until [`Self::retry`] or [`Self::mark`].
    pub fn refuse(&mut self, key: K, reason: R) {
        if !self.pending.contains(&key) {
            self.forgive(&key);
            self.refused.entry(reason).or_default().insert(key);
        }
    }

    fn forgive(&mut self, key: &K) {
        self.refused.retain(|_, keys| {
            keys.remove(key);
            !keys.is_empty()
        });
    }

    /// Tries again what was refused: for each reason as many as `room` says.
    pub fn retry(&mut self, room: impl Fn(&R) -> usize) {
        let some =
            |(reason, keys): (&R, &BTreeSet<K>)| keys.iter().copied().take(room(reason)).collect::<Vec<K>>();
        let keys: Vec<K> = self.refused.iter().flat_map(some).collect();
        self.mark(keys);
    }

    /// Whether there is something to work on.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether everything is as wanted.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.refused.is_empty()
    }

    /// For each reason, how many were refused for it, and the first of them.
    pub fn refusals(&self) -> BTreeMap<&R, (usize, K)> {
        let some = self.refused.iter().filter_map(|(reason, keys)| Some((reason, keys.first()?, keys.len())));
        some.map(|(reason, first, count)| (reason, (count, *first))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_refused_waits_until_there_is_room() {
        let mut applied = Applied::default();
        applied.mark(0..10);
        for key in applied.take(usize::MAX) {
            applied.refuse(key, if key < 7 { "full" } else { "broken" });
        }
        assert!(!applied.is_pending() && !applied.is_settled());
        assert_eq!(applied.refusals(), BTreeMap::from([(&"full", (7, 0)), (&"broken", (3, 7))]));
        applied.retry(|reason| if *reason == "full" { 2 } else { 0 });
        assert_eq!(applied.take(usize::MAX), BTreeSet::from([0, 1]));
        assert_eq!(applied.refusals(), BTreeMap::from([(&"full", (5, 2)), (&"broken", (3, 7))]));
    }

    #[test]
    fn what_is_wanted_anew_is_not_refused_by_an_older_attempt() {
        let mut applied = Applied::default();
        applied.mark([1]);
        let taken = applied.take(1);
        applied.mark([1]);
        taken.into_iter().for_each(|key| applied.refuse(key, "of before"));
        assert_eq!((applied.take(1), applied.refusals().len()), (BTreeSet::from([1]), 0));
    }

    /// What an owner does: it wants something else, works, is asked to try again.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Want(u8, u8),
        Work(usize),
        Retry(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..16_u8, 0..4_u8).prop_map(|(key, value)| Step::Want(key, value)),
            (1..8_usize).prop_map(Step::Work),
            (0..8_usize).prop_map(Step::Retry),
        ]
    }

    proptest! {
        /// Into a table with room for four: what differs is always known, and once there is room it is made as wanted.
        #[test]
        fn whatever_differs_is_pending_or_refused(steps in prop::collection::vec(step(), 0..64)) {
            let (mut wanted, mut present) = (BTreeMap::<u8, u8>::new(), BTreeMap::<u8, u8>::new());
            let mut applied = Applied::<u8, &str>::default();
            let work = |applied: &mut Applied<u8, &'static str>,
                            wanted: &BTreeMap<u8, u8>,
                            present: &mut BTreeMap<u8, u8>,
                            (most, room): (usize, usize)| {
                for key in applied.take(most) {
                    match wanted.get(&key) {
                        Some(_) if !present.contains_key(&key) && present.len() >= room => {
                            applied.refuse(key, "full");
                        }
                        Some(value) => drop(present.insert(key, *value)),
                        None => drop(present.remove(&key)),
                    }
                }
            };
            for step in steps {
                match step {
                    Step::Want(key, 0) => { wanted.remove(&key); applied.mark([key]); }
                    Step::Want(key, value) => { wanted.insert(key, value); applied.mark([key]); }
                    Step::Work(most) => work(&mut applied, &wanted, &mut present, (most, 4)),
                    Step::Retry(room) => applied.retry(|_| room),
                }
                let known = |key: &u8| applied.pending.contains(key) || applied.refused.values().any(|keys| keys.contains(key));
                let keys = wanted.keys().chain(present.keys());
                let differs = keys.filter(|key| wanted.get(key) != present.get(key));
                prop_assert!(differs.into_iter().all(known));
                let refused = |key: &u8| applied.refused.values().any(|keys| keys.contains(key));
                prop_assert!(!applied.pending.iter().any(refused));
            }
            applied.retry(|_| usize::MAX);
            work(&mut applied, &wanted, &mut present, (usize::MAX, 16));
            prop_assert!(applied.is_settled());
            prop_assert_eq!(wanted, present);
        }
    }
}
