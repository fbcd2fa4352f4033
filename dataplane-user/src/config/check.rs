//! What no section can say by itself: that two of them agree.

mod addresses;
mod interfaces;

use super::report::Report;
use super::system::System;
use super::{Draft, bgp, datapath, masquerade};

/// Compares the sections with each other and with the running system.
pub(super) fn check(draft: &Draft, system: &dyn System, report: &mut Report<'_>) {
    // Of a file that is no TOML, parts are missing: what they clash with, or lack, cannot be said.
    if !report.is_whole() {
        return;
    }
    addresses::check(draft, report);
    interfaces::check(draft, system, report);
    datapath::check(draft, report);
    masquerade::check(draft, system, report);
    if let Some(bgp) = &draft.bgp {
        bgp::check(bgp, &draft.network.pools, system, report);
    }
}
