//! Every reason at every hook has a case, or says here why it cannot come up.

use std::collections::BTreeSet;

use anyhow::Result;
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::skip::skip_without_root;

use crate::{SUBJECTS, network::Network};

/// Whether the walk of that hook can end so.
pub(crate) fn can_end(hook: Hook, reason: Reason) -> bool {
    match (hook, reason) {
        // What XDP leaves to tc.
        (
            _,
            Reason::TcDelivers
            | Reason::TcTranslates
            | Reason::NoNeighbour
            | Reason::NoXdpExit
            | Reason::NeedsSkb,
        ) => false,
        // Where the kernel decides: see `respect`.
        (_, Reason::KernelDecides) => false,
        // Containers reach every kind of route; what is not for this node is an uplink's affair, and so are replies.
        (Hook::FromContainer, Reason::NotLocal | Reason::NatTtlExpired | Reason::MartianSource) => false,
        // Only of a container it is known where its packets may go.
        (Hook::FromUplink, Reason::SourceRoute) => false,
        // From an uplink there is nobody to answer; whatever is not for this node is so for one reason.
        (
            Hook::FromUplink,
            Reason::ArpAnswered | Reason::Reserved | Reason::LinkLocal | Reason::NoRoute | Reason::NoNextHop,
        ) => false,
        _ => true,
    }
}

/// Whether it can where nothing is translated.
pub(crate) fn can_end_untranslated(hook: Hook, reason: Reason) -> bool {
    let translates = reason.name().starts_with("nat-");
    let is_gateway_s =
        hook == Hook::FromUplink && matches!(reason, Reason::Forwarded | Reason::SpoofedSource);
    can_end(hook, reason) && !translates && !is_gateway_s
}

/// Every hook of tc with every reason.
pub(crate) fn all() -> impl Iterator<Item = (Hook, Reason)> {
    Hook::TC.iter().flat_map(|hook| Reason::ALL.iter().map(|reason| (*hook, *reason)))
}

#[test]
fn every_reason_at_every_hook_has_a_case() -> Result<()> {
    if skip_without_root("every_reason_at_every_hook_has_a_case") {
        return Ok(());
    }
    let network = Network::new()?;
    let groups = SUBJECTS.iter().flat_map(|groups| groups.iter());
    let cases = groups.flat_map(|group| group(&network));
    let number = |(hook, reason): (Hook, Reason)| (hook, reason as u32);
    let covered: BTreeSet<(Hook, u32)> = cases.map(|case| number(case.counter())).collect();
    for (hook, reason) in all() {
        let is_covered = covered.contains(&number((hook, reason)));
        assert_eq!(is_covered, can_end(hook, reason), "{}, {}", hook.name(), reason.name());
    }
    Ok(())
}
