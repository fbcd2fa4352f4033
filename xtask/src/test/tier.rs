//! The tiers, from the quickest to the one that needs most.

use clap::ValueEnum;

/// Every package that has tests. All are compiled by one call: were they not, cargo would compile some of the
/// dependencies again with other features.
pub(super) const PACKAGES: [&str; 4] = ["dataplane-common", "dataplane-user", "xtask", "tests"];

/// A set of tests that need the same of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Pure parts, on the host
    Unit,
    /// The loaded BPF programs on packets made for them (BPF_PROG_TEST_RUN)
    Prog,
    /// Real traffic between network namespaces, and the harness that makes them
    Netns,
    /// Against other implementations of the protocols
    Interop,
    /// On other kernels
    Vm,
}

/// One call of `cargo test`.
pub(super) struct Call {
    /// Which test programs.
    pub(super) cargo: &'static [&'static str],
    /// Which tests in them.
    pub(super) libtest: &'static [&'static str],
}

impl Tier {
    /// In the order of running.
    pub(super) const EVERY: [Self; 5] = [Self::Unit, Self::Prog, Self::Netns, Self::Interop, Self::Vm];

    /// As the command line names it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The sentence that answers the name of a tier without tests so far.
    pub(super) fn still_to_come(self) -> Option<&'static str> {
        match self {
            Self::Unit | Self::Prog | Self::Netns | Self::Interop => None,
            Self::Vm => Some("tier vm: not there yet (comes with cargo xtask vm)"),
        }
    }

    /// Whether its tests load programs or make namespaces.
    pub(super) fn needs_root(self) -> bool {
        !matches!(self, Self::Unit)
    }

    /// What runs its tests.
    pub(super) fn calls(self) -> &'static [Call] {
        match self {
            Self::Unit => &[
                Call { cargo: &["--package", "dataplane-common", "--package", "xtask"], libtest: &[] },
                // Those that are ignored take long in a debug build.
                Call {
                    cargo: &["--package", "dataplane-user", "--lib", "--bins"],
                    libtest: &["--include-ignored"],
                },
            ],
            Self::Prog => &[Call { cargo: &["--package", "tests", "--test", "program"], libtest: &[] }],
            Self::Netns => &[
                Call { cargo: &["--package", "tests", "--lib", "--test", "netns"], libtest: &[] },
                Call { cargo: &["--package", "dataplane-user", "--test", "netlink"], libtest: &[] },
            ],
            Self::Interop => &[Call { cargo: &["--package", "tests", "--test", "interop"], libtest: &[] }],
            Self::Vm => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_either_run_or_still_to_come() {
        for tier in Tier::EVERY {
            assert_eq!(tier.calls().is_empty(), tier.still_to_come().is_some(), "{tier:?}");
        }
    }

    #[test]
    fn a_sentence_names_its_tier() {
        for tier in Tier::EVERY {
            if let Some(sentence) = tier.still_to_come() {
                assert!(sentence.starts_with(&format!("tier {}: not there yet", tier.name())), "{sentence}");
            }
        }
    }

    #[test]
    fn only_the_host_s_own_tests_do_without_root() {
        assert!(Tier::EVERY.iter().all(|tier| tier.needs_root() == (*tier != Tier::Unit)));
    }
}
