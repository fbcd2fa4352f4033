//! The steps that are shown on a site that is up. A further one is a row of [`STEPS`].

mod daemon;
mod outside;
mod share;
mod traffic;

use anyhow::Result;

use super::screen::Told;
use super::site::Site;

/// One step.
pub(super) struct Step {
    /// What it shows.
    pub(super) title: &'static str,
    /// Tells its commands and its result; an error makes the step red.
    pub(super) check: fn(&Site<'_>, &mut Told<'_>) -> Result<()>,
}

/// In their order. The share comes behind all traffic.
pub(super) const STEPS: &[Step] = &[
    Step { title: "The nodes tell each other their blocks", check: daemon::bgp },
    Step { title: "Between containers of one node", check: traffic::same_host },
    Step { title: "Between containers of two nodes", check: traffic::across_hosts },
    Step { title: "Container to its node, and node to container", check: traffic::host_and_back },
    Step { title: "An address that no container has", check: traffic::nobody },
    Step { title: "The hops between containers of two nodes", check: traffic::hops },
    Step { title: "A download of 20 MB by TCP", check: traffic::download },
    Step { title: "To the outside, by the head node's MASQUERADE", check: outside::translated },
    Step { title: "The hops to the outside", check: outside::hops },
    Step { title: "A download of 20 MB from the outside", check: outside::download },
    Step { title: "What would happen to a packet", check: daemon::trace },
    Step { title: "What the daemon says", check: daemon::status },
    Step { title: "Which way the packets went", check: share::check },
];

/// The last one, unless the demo is kept.
pub(super) const DETACH: Step = Step { title: "Detaching", check: daemon::detach };
