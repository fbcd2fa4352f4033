//! What the file can say and this version cannot do yet.
//!
//! Such a file is refused rather than obeyed by half. The change that brings a feature removes its line here.

use super::report::{Fault, Report};
use super::{Draft, UplinkHook};

/// A feature that is not there.
struct Missing {
    /// Where the file first asks for it.
    asked: fn(&Draft) -> Option<usize>,
    message: &'static str,
    mend: &'static str,
}

const REFUSED: &[Missing] = &[
    Missing {
        asked: |draft| draft.masquerade.first().map(|rule| rule.at),
        message: "[[masquerade]] is not available in this version: packets would leave untranslated",
        mend: "remove the section",
    },
    Missing {
        asked: |draft| {
            draft
                .datapath
                .uplink_hook
                .as_ref()
                .filter(|hook| hook.value == UplinkHook::Xdp)
                .map(|hook| hook.at)
        },
        message: "uplink-hook \"xdp\" is not available in this version",
        mend: "write \"auto\" or \"tc\"",
    },
];

const WITHOUT_EFFECT: &[Missing] = &[Missing {
    asked: |draft| draft.datapath.max_flows.as_ref().map(|key| key.at),
    message: "`max-flows` has no effect in this version, which has no translations to count",
    mend: "remove the line",
}];

/// Reports what the file asks for in vain; as errors, once it has no others.
pub(super) fn refuse(draft: &Draft, report: &mut Report<'_>) {
    for (at, fault) in asked(WITHOUT_EFFECT, draft) {
        report.warning(at, fault);
    }
    if !report.is_clean() {
        return;
    }
    for (at, fault) in asked(REFUSED, draft) {
        report.error(at, fault);
    }
}

fn asked(features: &'static [Missing], draft: &Draft) -> impl Iterator<Item = (usize, Fault)> {
    features.iter().filter_map(|feature| {
        let at = (feature.asked)(draft)?;
        Some((at, Fault::new(feature.message, feature.mend)))
    })
}
