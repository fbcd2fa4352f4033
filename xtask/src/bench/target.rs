//! What the figures are to reach.

/// What a figure is to reach.
#[derive(Debug)]
pub(super) struct Target {
    case: &'static str,
    /// A part of the variant's name.
    variant: &'static str,
    metric: &'static str,
    /// The baseline of the ratio; none where the figure itself is bounded.
    baseline: Option<&'static str>,
    /// The only number of routes, flows or prefixes for which it holds.
    at: Option<u64>,
    pub(super) bound: Bound,
}

/// A bound of a ratio or of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// Whether the figure keeps it.
    pub(super) fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }

    /// Its number.
    pub(super) fn value(self) -> f64 {
        let (Self::AtLeast(bound) | Self::AtMost(bound)) = self;
        bound
    }

    /// Its name in the JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AtLeast(_) => "at_least",
            Self::AtMost(_) => "at_most",
        }
    }
}

impl Target {
    /// Whether the ratio is bounded, and not the figure.
    pub(super) fn is_of_ratio(&self) -> bool {
        self.baseline.is_some()
    }
}

/// The targets of a finding.
pub(super) fn of<'a>(
    case: &'a str,
    variant: &'a str,
    metric: &'a str,
    baseline: Option<&'a str>,
    at: Option<u64>,
) -> impl Iterator<Item = &'static Target> + use<'a> {
    TARGETS.iter().filter(move |target| {
        target.case == case
            && target.metric == metric
            && variant.contains(target.variant)
            && (target.baseline.is_none() || target.baseline == baseline)
            && (target.at.is_none() || target.at == at)
    })
}

const fn ratio(
    case: &'static str,
    variant: &'static str,
    metric: &'static str,
    baseline: &'static str,
    bound: Bound,
) -> Target {
    Target { case, variant, metric, baseline: Some(baseline), at: None, bound }
}

const fn figure(
    case: &'static str,
    variant: &'static str,
    metric: &'static str,
    at: Option<u64>,
    bound: Bound,
) -> Target {
    Target { case, variant, metric, baseline: None, at, bound }
}

use Bound::{AtLeast, AtMost};

const TARGETS: &[Target] = &[
    ratio("pps-deliver", "", "rate", "iptables", AtLeast(2.4)),
    ratio("pps-deliver", "", "marginal-cost", "iptables", AtMost(1.0 / 6.0)),
    ratio("pps-egress", "MASQUERADE", "rate", "iptables", AtLeast(2.2)),
    ratio("pps-gateway", "xdp", "rate", "iptables", AtLeast(4.5)),
    ratio("pps-gateway", "xdp", "rate", "tc", AtLeast(2.0)),
    ratio("pps-gateway", "auto", "rate", "better of tc and xdp", AtLeast(0.97)),
    ratio("pps-drop", "xdp", "rate", "blackhole", AtLeast(5.0)),
    figure("flood", "xdp", "share", None, AtLeast(80.0)),
    ratio("new-flows", "MASQUERADE", "rate", "iptables", AtLeast(2.5)),
    figure("new-flows", "memory", "memory", None, AtMost(200.0)),
    ratio("tcp-crr", "across nodes", "rate", "iptables", AtLeast(1.45)),
    ratio("tcp-crr", "MASQUERADE", "rate", "iptables", AtLeast(1.4)),
    ratio("churn", "all", "rate", "iptables", AtLeast(1.15)),
    ratio("churn", "slowest thousand", "rate", "iptables", AtLeast(1.0)),
    ratio("tcp-stream", "", "rate", "iptables", AtLeast(1.05)),
    ratio("tcp-rr", "", "rate", "iptables", AtLeast(1.05)),
    ratio("tcp-gateway", "auto", "rate", "better of tc and xdp", AtLeast(0.97)),
    ratio("respect", "uplink to container", "rate", "services", AtLeast(2.2)),
    ratio("respect", "MASQUERADE", "rate", "flowtable", AtLeast(1.5)),
    ratio("respect", "tcp-crr", "rate", "services", AtLeast(0.97)),
    ratio("scale-routes", "", "cost", "itself with 10 routes", AtMost(1.15)),
    ratio("scale-flows", "uplink to container", "cost", "itself with 1 flow", AtMost(1.4)),
    Target { at: Some(1_000_000), ..ratio("lookup", "", "time", "LPM_TRIE", AtMost(1.0 / 20.0)) },
    figure("lookup", "", "time", Some(1_000_000), AtMost(30.0)),
    figure("lookup", "table", "memory", Some(100), AtMost(2.0)),
    figure("lookup", "table", "memory", Some(1_000_000), AtMost(100.0)),
    Target { at: Some(1_000_000), ..ratio("route-load", "all", "time", "BIRD", AtMost(1.0 / 3.0)) },
    figure("route-load", "all", "rate", Some(1_000_000), AtLeast(500_000.0)),
    figure("route-load", "all", "memory", Some(1_000_000), AtMost(150.0)),
    figure("route-load", "one change", "time-to-packets", None, AtMost(5.0)),
    figure("flaps", "", "rate", None, AtLeast(990.0)),
    figure("flaps", "", "lost", None, AtMost(0.0)),
    figure("flaps", "", "growth", None, AtMost(500.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_holds_for_its_own_finding_alone() {
        let bounds = |case, variant, baseline| {
            of(case, variant, "rate", baseline, None).map(|target| target.bound).collect::<Vec<_>>()
        };
        let egress = "container to uplink, MASQUERADE";
        assert_eq!(bounds("pps-egress", egress, Some("iptables")), [AtLeast(2.2)]);
        assert_eq!(bounds("pps-egress", egress, Some("nftables")), []);
        assert_eq!(bounds("pps-egress", "container to uplink, no translation", Some("iptables")), []);
    }

    #[test]
    fn bounds_hold_in_their_direction() {
        assert!(AtLeast(2.0).is_met(2.0) && !AtLeast(2.0).is_met(1.9));
        assert!(AtMost(2.0).is_met(2.0) && !AtMost(2.0).is_met(2.1));
    }
}
