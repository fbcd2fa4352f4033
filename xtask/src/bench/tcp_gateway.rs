//! TCP through a gateway, with each `uplink-hook`: what the choice between them is to be judged by, beside `pps-gateway`.
//!
//! ```text
//!  sender 172.19.200.2 ─ fabric ─ eth0 gateway eth1 198.51.100.N ─ outside: netserver
//! ```
//!
//! A program at XDP has the other end of its veth cut TCP's large segments up: each packet is then cheaper, and there are
//! some forty times as many.

use std::net::Ipv4Addr;

use anyhow::Result;
use tests::harness::{Fabric, Namespace, Process};

use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::netperf::{self, Test};
use super::pps::gateway::{BETTER, Gateway, HOOKS, NEIGHBOUR, SENDER};
use super::pps::lane::{SENDER_MAC, SENDERS};
use super::site::{FABRIC_LENGTH, address};
use super::{Bench, interrupt};

const CASE: &str = "tcp-gateway";

/// What is measured: much on one connection, and little on many.
const TESTS: [&Test; 2] = [&netperf::STREAM, &netperf::CRR];

/// A gateway with a server behind it. Dropped from the top.
struct Served {
    _server: Process,
    gateway: Gateway,
    number: u8,
}

impl Served {
    fn new(bench: &Bench, fabric: &Fabric, path: Path, hook: &str, number: u8) -> Result<Self> {
        let gateway = Gateway::new(bench, fabric, path, hook, number)?;
        let server = netperf::serve(bench, &gateway.outside)?;
        Ok(Self { _server: server, gateway, number })
    }

    /// What the sender comes to through it.
    fn rate(&self, bench: &Bench, test: &Test, sender: &Namespace) -> Result<f64> {
        interrupt::check()?;
        let via = address(self.number);
        sender.ip(&format!("route replace default via {via} src {}", Ipv4Addr::from(SENDER)))?;
        Ok(netperf::measure(bench, test, sender, NEIGHBOUR)?[0])
    }
}

/// XDP and tc against the baselines and each other, and `auto` against the better of both.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    netperf::require()?;
    let fabric = Fabric::new()?;
    let sender = Namespace::new("sender")?;
    fabric.plug(&sender, "eth0", Some(&format!("{}/{FABRIC_LENGTH}", address(SENDERS))))?;
    let mac = SENDER_MAC.map(|octet| format!("{octet:02x}")).join(":");
    sender.ip(&format!("link set eth0 address {mac}"))?;
    sender.ip(&format!("address add {}/32 dev lo", Ipv4Addr::from(SENDER)))?;
    let mut ours = Vec::new();
    for (hook, number) in HOOKS.into_iter().zip(1..) {
        match Served::new(bench, &fabric, Path::Dataplane, hook, number) {
            Ok(served) => ours.push(served),
            Err(error) => bench.leave_out(&format!("{CASE}, {hook}"), error)?,
        }
    }
    let mut findings = Vec::new();
    for &path in bench.baselines().iter().filter(|path| **path != Path::Route) {
        match Served::new(bench, &fabric, path, "auto", 20) {
            Ok(theirs) => {
                for test in TESTS {
                    findings.extend(compare(bench, test, &sender, &ours, &theirs)?);
                }
                theirs.gateway.finish()?;
            }
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    ours.into_iter().try_for_each(|served| served.gateway.finish())?;
    Ok(findings)
}

/// All in turn, in each pair.
fn compare(
    bench: &Bench,
    test: &Test,
    sender: &Namespace,
    ours: &[Served],
    theirs: &Served,
) -> Result<Vec<Finding>> {
    let mut samples = vec![Vec::new(); ours.len()];
    let mut choices = Vec::new();
    let baseline = &theirs.gateway.name;
    for pair in 0..bench.pairs {
        let rates: Vec<f64> =
            ours.iter().map(|served| served.rate(bench, test, sender)).collect::<Result<_>>()?;
        let other = theirs.rate(bench, test, sender)?;
        let mut text = String::new();
        for ((samples, rate), served) in samples.iter_mut().zip(&rates).zip(ours) {
            samples.push(Sample::pair(*rate, other));
            text += &format!("{} {rate:.0} / ", served.gateway.name);
        }
        if let [tc, xdp, auto] = rates[..] {
            choices.push(Sample::pair(auto, tc.max(xdp)));
        }
        bench.progress(CASE, baseline, pair, &format!("{text}{other:.0} {}", test.unit));
    }
    let finding = |hook: &str, samples, baseline| {
        Finding::new(CASE, format!("{}, {hook}", test.case), "rate", test.unit, samples).against(baseline)
    };
    let mut findings: Vec<Finding> = ours
        .iter()
        .zip(samples)
        .map(|(served, samples)| finding(&served.gateway.name, samples, baseline))
        .collect();
    if !choices.is_empty() {
        findings.push(finding("auto", choices, BETTER));
    }
    Ok(findings)
}
