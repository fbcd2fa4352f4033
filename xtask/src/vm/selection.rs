//! Which tests run on another kernel.

/// How much of the tiers `prog` and `netns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// What another kernel may well make differently: see [`CHOSEN`].
    Chosen,
    /// All.
    Everything,
}

/// The programs that hold the tiers: package and target.
pub(super) const PROGRAMS: [(&str, &str); 4] =
    [("tests", "program"), ("dataplane-user", "netlink"), ("tests", "tests"), ("tests", "netns")];

/// The tests of the tier `vm`, by parts of their names: on a machine that translates every instruction all of them take
/// more than an hour. Every program is loaded, verified and run on generated packets, and attached in each way; real
/// traffic goes through each part of the kernel that the programs lean on.
const CHOSEN: [(&str, &[&str]); 4] = [
    (
        "program",
        &["fuzz::", "hook::", "monitor::an_event", "table::a_daemon_takes_over", "verifier::", "waiting::"],
    ),
    ("netlink", &[]),
    ("tests", &["kernel::", "wait::"]),
    (
        "netns",
        &[
            "attach::every_configuration_by_clsact",
            "attach::every_configuration_by_the_best",
            "detach::nothing_is_left_of_a_running_daemon",
            "masquerade::errors::from_the_outside",
            "masquerade::traffic::tcp_both_ways",
            "masquerade::xdp::known_flows",
            "monitor::drops_and_passes",
            "offload::twenty_megabytes_without_offloads",
            "restart::no_packet_is_lost_by",
        ],
    ),
];

impl Selection {
    /// The arguments by which the test program of that target runs them; empty for all of its tests.
    pub(super) fn filters(self, target: &str) -> &'static [&'static str] {
        match self {
            Self::Chosen => {
                CHOSEN.iter().find(|(chosen, _)| *chosen == target).map_or(&[], |(_, filters)| filters)
            }
            Self::Everything => &[],
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
}
