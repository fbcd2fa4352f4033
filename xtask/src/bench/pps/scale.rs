//! What a packet costs with many routes and with many flows, against few of them on a node of the same kind.

use anyhow::Result;
use tests::harness::{Fabric, Node};

use super::Way;
use super::lane::{Lane, Load, SENDERS};
use crate::bench::baseline::Path;
use crate::bench::feed::Feed;
use crate::bench::finding::{Finding, Sample};
use crate::bench::lookup::PREFIXES;
use crate::bench::lookups::{Lookup, Lookups};
use crate::bench::site::{Site, address};
use crate::bench::speaker;
use crate::bench::{Bench, interrupt};

const ROUTES: &str = "scale-routes";
const FLOWS: &str = "scale-flows";

/// How many routes a BGP peer tells, one number after the other; the first is what the others are compared with.
const ROUTE_STEPS: [u32; 5] = [10, 1_000, 10_000, 100_000, 1_000_000];

/// How many flows there are, likewise.
const FLOW_STEPS: [u32; 5] = [1, 256, 4_096, 65_536, 262_144];

/// Room for the most flows without crowding: twice as many.
const MAX_FLOWS: u32 = 524_288;

/// Number of the peer's address.
const PEER: u8 = 9;

/// By number of routes: to the one container, and from it by a random route for each flow.
pub(in crate::bench) fn routes(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let peer = Node::new(&fabric, "peer", address(PEER))?;
    let with_peer = |number: u8| {
        Site::with(bench, &fabric, Path::Dataplane, number, &[SENDERS], |config| {
            let config = speaker::learning(config, &address(number), &address(PEER));
            config.datapath("kernel-routes", false)
        })
    };
    let (few, many) = (with_peer(1)?, with_peer(2)?);
    let mut feed = Feed::dial(&peer, peer.address, many.node.address)?;
    let mut few_feed = Feed::dial(&peer, peer.address, few.node.address)?;
    few_feed.say(&PREFIXES.announcement(0..ROUTE_STEPS[0], peer.address))?;
    // The sinks of a step take what the nodes send to the peer, so its answers to ARP as well.
    for site in [&few, &many] {
        site.know_neighbour(&address(PEER), peer.mac("eth0")?)?;
    }
    let mut findings = Vec::new();
    let mut known = 0;
    for step in ROUTE_STEPS {
        if bench.is_quick && ROUTE_STEPS[..4].contains(&step) {
            continue;
        }
        feed.say(&PREFIXES.announcement(known..step, peer.address))?;
        known = step;
        Lookups::new(bench, &many.node, PREFIXES, many.daemon())?.await_all(Lookup::EachInTrie, step)?;
        let to_all = |prefixes| Load { spread: Some((PREFIXES.first, prefixes)), ..Load::of(Way::Egress) };
        let loads = [
            (Way::Deliver.variant(), Load::of(Way::Deliver), Load::of(Way::Deliver)),
            ("container to uplink, each flow by a random route", to_all(step), to_all(ROUTE_STEPS[0])),
        ];
        for (variant, load, few_load) in loads {
            interrupt::check()?;
            let many_lane = Lane::through(bench, load, &fabric, &many)?;
            let few_lane = Lane::through(bench, few_load, &fabric, &few)?;
            let names = (ROUTES, variant);
            let baseline = format!("itself with {} routes", ROUTE_STEPS[0]);
            findings.push(step_of(bench, names, &baseline, [&many_lane, &few_lane], step)?);
        }
    }
    drop((feed, few_feed));
    few.finish()?;
    many.finish()?;
    Ok(findings)
}

/// By number of flows: without translation, and with it.
pub(in crate::bench) fn flows(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let roomy = |number| {
        let more = |config: tests::harness::Config| config.datapath("max-flows", MAX_FLOWS);
        Site::with(bench, &fabric, Path::Dataplane, number, &[SENDERS], more)
    };
    let (few, many) = (roomy(1)?, roomy(2)?);
    let mut findings = Vec::new();
    for way in [Way::Deliver, Way::Masquerade] {
        for step in FLOW_STEPS {
            if bench.is_quick && FLOW_STEPS[..4].contains(&step) {
                continue;
            }
            interrupt::check()?;
            let load = |flows| Load { flows, ..Load::of(way) };
            let many_lane = Lane::through(bench, load(step), &fabric, &many)?;
            let few_lane = Lane::through(bench, load(FLOW_STEPS[0]), &fabric, &few)?;
            let baseline = format!("itself with {} flow", FLOW_STEPS[0]);
            let lanes = [&many_lane, &few_lane];
            findings.push(step_of(bench, (FLOWS, way.variant()), &baseline, lanes, step)?);
        }
    }
    few.finish()?;
    many.finish()?;
    Ok(findings)
}

/// One step's costs.
fn step_of(
    bench: &Bench,
    (case, variant): (&'static str, &str),
    baseline: &str,
    [many, few]: [&Lane<'_>; 2],
    step: u32,
) -> Result<Finding> {
    let mut samples = Vec::new();
    for pair in 0..bench.pairs {
        let (a, b) = (1e9 / many.rate(bench.slot)?, 1e9 / few.rate(bench.slot)?);
        samples.push(Sample::pair(a, b));
        let figures = format!("{a:.0} / {b:.0} ns/packet");
        bench.progress(&format!("{case}, {variant}, {step}"), baseline, pair, &figures);
    }
    Ok(Finding::new(case, variant, "cost", "ns/packet", samples).against(baseline).at(step.into()))
}
