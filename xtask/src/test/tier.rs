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
    /// On the oldest and the newest supported kernel, in virtual machines
    Vm,
}

/// One call of `cargo test`.
pub(super) struct Call {
    /// Which test programs.
    pub(super) cargo: &'static [&'static str],
    /// Which tests in them.
    pub(super) libtest: &'static [&'static str],
    /// What they find in their environment.
    pub(super) environment: &'static [(&'static str, &'static str)],
}

impl Call {
    /// All tests of those programs.
    const fn all(cargo: &'static [&'static str]) -> Self {
        Self { cargo, libtest: &[], environment: &[] }
    }
}

impl Tier {
    /// In the order of running.
    pub(super) const EVERY: [Self; 5] = [Self::Unit, Self::Prog, Self::Netns, Self::Interop, Self::Vm];

    /// As the command line names it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether its tests load programs or make namespaces.
    pub(super) fn needs_root(self) -> bool {
        !matches!(self, Self::Unit)
    }

    /// What runs its tests on this kernel.
    pub(super) fn calls(self) -> &'static [Call] {
        match self {
            Self::Unit => {
                const {
                    &[
                        Call::all(&["--package", "dataplane-common", "--package", "xtask"]),
                        // Those that are ignored take long in a debug build.
                        Call {
                            libtest: &["--include-ignored"],
                            ..Call::all(&["--package", "dataplane-user", "--lib", "--bins"])
                        },
                    ]
                }
            }
            Self::Prog => const { &[Call::all(&["--package", "tests", "--test", "program"])] },
            Self::Netns => {
                const {
                    &[
                        Call::all(&["--package", "tests", "--lib", "--test", "netns"]),
                        // Once more, with uplinks at XDP.
                        Call {
                            libtest: &["masquerade"],
                            environment: &[("DATAPLANE_TEST_UPLINK_HOOK", "xdp")],
                            ..Call::all(&["--package", "tests", "--test", "netns"])
                        },
                        Call::all(&[
                            "--workspace",
                            "--exclude",
                            "dataplane-ebpf",
                            "--exclude",
                            "bench-ebpf",
                            "--test",
                            "netlink",
                        ]),
                    ]
                }
            }
            Self::Interop => const { &[Call::all(&["--package", "tests", "--test", "interop"])] },
            Self::Vm => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tier_of_other_kernels_runs_nothing_on_this_one() {
        for tier in Tier::EVERY {
            assert_eq!(tier.calls().is_empty(), tier == Tier::Vm, "{tier:?}");
        }
    }

    #[test]
    fn only_the_host_s_own_tests_do_without_root() {
        assert!(Tier::EVERY.iter().all(|tier| tier.needs_root() == (*tier != Tier::Unit)));
    }
}
