//! The loaded BPF programs on one packet at a time (`BPF_PROG_TEST_RUN`): what they return, what they make of
//! the bytes, and what they count. Needs root.
//!
//! [`SUBJECTS`] holds the packets and what is to become of each. [`check`] runs each packet through the
//! counting and the recording copy of its program, and through the [`Model`] that [`fuzz`] relies on.
//!
//! [`check`]: case::check
//! [`Model`]: model::Model

/// Makes a test of each group of cases, and lists the groups for [`coverage`](crate::coverage).
macro_rules! groups {
    ($($group:ident),+ $(,)?) => {
        groups!(on crate::network::Network::new, $($group),+);
    };
    (on $node:path, $($group:ident),+ $(,)?) => {
        pub(crate) const GROUPS: &[crate::case::Group] = &[$($group),+];

        mod cases {
            $(
                #[test]
                fn $group() -> anyhow::Result<()> {
                    let name = concat!(module_path!(), "::", stringify!($group));
                    crate::case::check(name, $node, super::$group)
                }
            )+
        }
    };
}

macro_rules! subjects {
    ($($path:literal $subject:ident),+ $(,)?) => {
        $(#[path = $path] mod $subject;)+

        /// Every group of cases, by subject.
        pub(crate) const SUBJECTS: &[&[case::Group]] = &[$($subject::GROUPS),+];
    };
}

#[path = "program/at_xdp.rs"]
mod at_xdp;
#[path = "program/case.rs"]
mod case;
#[path = "program/coverage.rs"]
mod coverage;
#[path = "program/fuzz.rs"]
mod fuzz;
#[path = "program/hook.rs"]
mod hook;
#[path = "program/lengths.rs"]
mod lengths;
#[path = "program/model.rs"]
mod model;
#[path = "program/monitor.rs"]
mod monitor;
#[path = "program/network.rs"]
mod network;
#[path = "program/packets.rs"]
mod packets;
#[path = "program/programs.rs"]
mod programs;
#[path = "program/respect.rs"]
mod respect;
#[path = "program/table.rs"]
mod table;
#[path = "program/verifier.rs"]
mod verifier;
#[path = "program/waiting.rs"]
mod waiting;

subjects! {
    "program/arp.rs" arp,
    "program/delivery.rs" delivery,
    "program/destinations.rs" destinations,
    "program/faults.rs" faults,
    "program/forwarding.rs" forwarding,
    "program/frames.rs" frames,
    "program/header.rs" header,
    "program/size.rs" size,
    "program/sources.rs" sources,
    "program/translation.rs" translation,
    "program/translation/errors.rs" translation_errors,
    "program/translation/refusals.rs" translation_refusals,
}
