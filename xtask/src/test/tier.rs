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

/// Test programs that are run one after another.
pub(super) struct Run {
    /// Package and target; a library's target has the library's name.
    pub(super) programs: &'static [(&'static str, &'static str)],
    /// Which tests in them.
    pub(super) libtest: &'static [&'static str],
    /// What they find in their environment.
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// How many tests run at the same time for each processor: more than one where they mostly wait.
    pub(super) threads_of_a_processor: usize,
}

impl Run {
    /// All tests of those programs.
    const fn all(programs: &'static [(&'static str, &'static str)]) -> Self {
        Self { programs, libtest: &[], environment: &[], threads_of_a_processor: 1 }
    }

    /// The same, of tests that wait for sessions, timers and answers more than they compute: two processors are idle for
    /// half of the time if each has one of them.
    const fn waiting(programs: &'static [(&'static str, &'static str)]) -> Self {
        Self { threads_of_a_processor: 2, ..Self::all(programs) }
    }
}

const UNIT: [Run; 1] = [Run {
    // Those that are ignored take long in a debug build.
    libtest: &["--include-ignored"],
    ..Run::all(&[
        ("dataplane-common", "dataplane_common"),
        ("dataplane-common", "reasons_document"),
        ("xtask", "xtask"),
        ("dataplane-user", "dataplane"),
    ])
}];
const PROG: [Run; 1] = [Run::all(&[("tests", "program")])];
const NETNS: [Run; 3] = [
    Run::all(&[("tests", "tests"), ("tests", "netns")]),
    // Once more, with uplinks at XDP.
    Run {
        libtest: &["masquerade"],
        environment: &[("DATAPLANE_TEST_UPLINK_HOOK", "xdp")],
        ..Run::all(&[("tests", "netns")])
    },
    Run::all(&[("dataplane-user", "netlink")]),
];
const INTEROP: [Run; 1] = [Run::waiting(&[("tests", "interop")])];

impl Tier {
    /// In the order of running.
    pub(super) const EVERY: [Self; 5] = [Self::Unit, Self::Prog, Self::Netns, Self::Interop, Self::Vm];

    /// Whether a test program is in any tier.
    pub(super) fn has(program: (&str, &str)) -> bool {
        Self::EVERY.iter().flat_map(|tier| tier.runs()).any(|run| run.programs.contains(&program))
    }

    /// As the command line names it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether its tests load programs or make namespaces.
    pub(super) fn needs_root(self) -> bool {
        !matches!(self, Self::Unit)
    }

    /// What runs its tests on this kernel.
    pub(super) fn runs(self) -> &'static [Run] {
        match self {
            Self::Unit => &UNIT,
            Self::Prog => &PROG,
            Self::Netns => &NETNS,
            Self::Interop => &INTEROP,
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
            assert_eq!(tier.runs().is_empty(), tier == Tier::Vm, "{tier:?}");
        }
    }

    #[test]
    fn only_the_host_s_own_tests_do_without_root() {
        assert!(Tier::EVERY.iter().all(|tier| tier.needs_root() == (*tier != Tier::Unit)));
    }
}
