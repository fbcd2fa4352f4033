//! The cases of packets and of netperf where the kernel decides (`netfilter = "respect"`).

use anyhow::Result;

use super::finding::Finding;
use super::pps::{self, Way};
use super::{Bench, netperf};

/// Against the same rules without the data path, and a flowtable.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let mut findings = pps::respect(bench, Way::Deliver)?;
    findings.extend(pps::respect(bench, Way::Masquerade)?);
    findings.extend(netperf::respect(bench)?);
    Ok(findings)
}
