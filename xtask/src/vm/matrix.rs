//! Which kernels are supported, and what the older ones lack.

use ::tests::harness::kernel::Feature;

use super::version;
use crate::test::Skip;

/// Every kernel on which everything is tested.
pub(super) const KERNELS: [&str; 3] = ["6.1", "6.12", version::NEWEST];

/// Those of the tier `vm`: the oldest and the newest.
pub(super) const TIER: [&str; 2] = ["6.1", version::NEWEST];

/// Whether a test may be skipped on that release for that reason: it needs what only later kernels have.
pub(super) fn excuses(release: &str, skip: &Skip) -> bool {
    let is = |feature: &&Feature| skip.reason == feature.reason();
    let feature = Feature::ALL.iter().find(is);
    feature.is_some_and(|feature| version::major_minor(release) < feature.since())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(reason: &str) -> Skip {
        Skip { test: "a".to_owned(), reason: reason.to_owned() }
    }

    #[test]
    fn only_what_a_kernel_lacks_excuses_a_skip() {
        let tcx = skip(&Feature::Tcx.reason());
        assert!(excuses("6.1.0-56-cloud-amd64", &tcx));
        assert!(!excuses("6.6.1", &tcx) && !excuses("7.3.4+deb13-cloud-amd64", &tcx));
        assert!(!excuses("6.1.0-56-cloud-amd64", &skip("no time")));
    }
}
