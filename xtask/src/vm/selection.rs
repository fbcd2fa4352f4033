//! Which tests run on another kernel.

use super::machine::Accelerator;

/// How much of the tiers `prog` and `netns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Of [`Self::Chosen`] what needs little traffic: see [`TRAFFIC`].
    Essential,
    /// What another kernel may well make differently: see [`CHOSEN`].
    Chosen,
    /// All.
    Everything,
}

/// The programs that hold the tiers: package and target.
pub(super) const PROGRAMS: [(&str, &str); 4] =
    [("tests", "program"), ("dataplane-user", "netlink"), ("tests", "tests"), ("tests", "netns")];

/// The tests of the matrix and, with KVM, of the tier `vm`, by parts of their names. Every program is loaded, verified and
/// run on generated packets, and attached in each way; real traffic goes through each part of the kernel that the programs
/// lean on.
const CHOSEN: [(&str, &[&str]); 4] = [
    (
        "program",
        &[
            "fuzz::",
            "hook::",
            "monitor::an_event",
            "respect::a_service_is_translated",
            "table::a_daemon_takes_over",
            "verifier::",
            "waiting::",
        ],
    ),
    ("netlink", &[]),
    ("tests", &["kernel::", "wait::"]),
    (
        "netns",
        &[
            "attach::every_configuration_by_clsact",
            "attach::every_configuration_by_the_best",
            "attach::every_configuration_at_xdp",
            "detach::nothing_is_left_of_a_running_daemon",
            "masquerade::errors::from_the_outside",
            "masquerade::traffic::tcp_both_ways",
            "masquerade::xdp::known_flows",
            "monitor::drops_and_passes",
            "offload::twenty_megabytes_without_offloads",
            "respect::a_flow_ends_with",
            "restart::no_packet_is_lost_by",
        ],
    ),
];

/// Those of the chosen tests, by their target, that send so much or so long that a translated machine needs minutes for
/// each. The tier `vm` does without them there: the same paths have a packet each way in `attach::`, and a connection in
/// `masquerade::traffic`.
const TRAFFIC: [(&str, &[&str]); 1] = [(
    "netns",
    &[
        "masquerade::xdp::known_flows",
        "monitor::drops_and_passes",
        "offload::twenty_megabytes_without_offloads",
        "respect::a_flow_ends_with",
        "restart::no_packet_is_lost_by",
    ],
)];

impl Selection {
    /// What the tier `vm` runs on machines of that kind.
    pub(super) fn of_the_tier(accelerator: Accelerator) -> Self {
        match accelerator {
            Accelerator::Kvm => Self::Chosen,
            Accelerator::Tcg => Self::Essential,
        }
    }

    /// The arguments by which the test program of that target runs them; empty for all of its tests.
    pub(super) fn filters(self, target: &str) -> Vec<&'static str> {
        let of = |table: &[(&str, &'static [&'static str])]| {
            table.iter().find(|(other, _)| *other == target).map_or(&[][..], |(_, filters)| *filters)
        };
        match self {
            Self::Essential => {
                let traffic = of(&TRAFFIC);
                of(&CHOSEN).iter().copied().filter(|filter| !traffic.contains(filter)).collect()
            }
            Self::Chosen => of(&CHOSEN).to_vec(),
            Self::Everything => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_chosen_from() {
        assert_eq!(CHOSEN.map(|(target, _)| target), PROGRAMS.map(|(_, target)| target));
        assert!(PROGRAMS.iter().all(|(_, target)| Selection::Everything.filters(target).is_empty()));
    }

    /// An empty list would be all tests.
    #[test]
    fn what_is_left_out_is_some_of_the_chosen() {
        for (target, traffic) in TRAFFIC {
            let (chosen, essential) =
                (Selection::Chosen.filters(target), Selection::Essential.filters(target));
            assert!(traffic.iter().all(|filter| chosen.contains(filter) && !essential.contains(filter)));
            assert!(!essential.is_empty() && essential.len() + traffic.len() == chosen.len());
        }
    }
}
