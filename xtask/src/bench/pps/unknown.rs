//! `pps-drop`: packets by an uplink to addresses of the node's own block that no container has.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::harness::{Fabric, Node};

use super::compare;
use super::gateway::{HOOKS, chosen};
use super::lane::{FLOWS, Lane, SENDER_MAC, SENDERS};
use crate::bench::Bench;
use crate::bench::baseline::Path;
use crate::bench::finding::Finding;
use crate::bench::generator::{Flows, Generator, Vary};
use crate::bench::sink::Sink;
use crate::bench::site::{Site, port_of, take_redirected};
use crate::bench::skip::skip;

const CASE: &str = "pps-drop";

/// The kernel's ways: a route that drops, as BIRD writes for a node's own block, by itself and with the rules that
/// every packet meets before it is routed.
pub(in crate::bench) const BLACKHOLES: [(Path, &str); 2] =
    [(Path::Route, "blackhole"), (Path::Iptables, "blackhole and iptables")];

/// Third byte of the block without containers of site number N: N more than this.
const NOBODY: u8 = 100;

/// A site with a second block, in which nobody is. Its packets take `hook` where the data path is its path.
pub(in crate::bench) fn site(
    bench: &Bench,
    fabric: &Fabric,
    path: Path,
    hook: &str,
    number: u8,
    has_second: bool,
) -> Result<Site> {
    let block = format!("172.19.{}.0/24", NOBODY + number);
    let site = Site::make(bench, fabric, path, number, &[SENDERS], has_second, |config| {
        config.block(&block).datapath("uplink-hook", format!("\"{hook}\""))
    })?;
    if site.daemon().is_none() {
        site.node.ip(&format!("route add blackhole {block}"))?;
    }
    take_redirected(&site.node, "eth0")?;
    Ok(site)
}

/// Packets from the fabric to those addresses.
pub(in crate::bench) fn flows(node: &Node, number: u8) -> Result<Flows> {
    let addresses = [[172, 19, SENDERS, 2], [172, 19, NOBODY + number, 0]];
    let macs = [SENDER_MAC, node.mac("eth0")?];
    Ok(Flows { macs, addresses, vary: Vary::Destination, flows: FLOWS, spread: None })
}

/// Straight into the sink, which is where the packets come in.
pub(in crate::bench) fn direct<'a>(
    bench: &Bench,
    fabric: &'a Fabric,
    plain: &'a Site,
    number: u8,
) -> Result<Lane<'a>> {
    let mut generator = Generator::new(&bench.object, fabric, &port_of(fabric, &plain.node)?, bench.cpu)?;
    generator.aim(&flows(&plain.node, number)?)?;
    let sink = Sink::in_xdp(&bench.object, &plain.node, "eth0")?;
    Ok(Lane { name: "direct".to_owned(), generator, sink, warm_up: FLOWS })
}

/// Through the site, where the packets end.
pub(in crate::bench) fn lane<'a>(
    bench: &Bench,
    fabric: &'a Fabric,
    site: &'a Site,
    number: u8,
    name: &str,
) -> Result<Lane<'a>> {
    let mut generator = Generator::new(&bench.object, fabric, &port_of(fabric, &site.node)?, bench.cpu)?;
    generator.aim(&flows(&site.node, number)?)?;
    let sink = Sink::Counted(Box::new(|| dropped(site)));
    Ok(Lane { name: name.to_owned(), generator, sink, warm_up: FLOWS })
}

/// Packets for nobody that the data path dropped; all that came in where the kernel drops them uncounted.
fn dropped(site: &Site) -> Result<u64> {
    if let Some(daemon) = site.daemon() {
        let counters: Value = daemon.cli(&["drops", "--json"])?;
        let packets = counters.as_array().into_iter().flatten().filter(|row| row["reason"] == "no-endpoint");
        return Ok(packets.filter_map(|row| row["packets"].as_u64()).sum());
    }
    let link: Value = serde_json::from_str(&site.node.ip("-s -j link show dev eth0")?)?;
    link[0]["stats64"]["rx"]["packets"].as_u64().with_context(|| format!("no packets in {link}"))
}

/// Each `uplink-hook` against the kernel's ways.
pub(in crate::bench) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    if bench.against.is_some() {
        return Err(skip("it compares with the kernel alone, and not with another build"));
    }
    let fabric = Fabric::new()?;
    let plain = bench.site(&fabric, Path::Route, 10, &[])?;
    let mut ours = Vec::new();
    for (hook, number) in HOOKS.into_iter().zip(1..) {
        match site(bench, &fabric, Path::Dataplane, hook, number, false) {
            Ok(site) => {
                let daemon = site.daemon().context("the data path has no daemon")?;
                bench.note_mode(&format!("{CASE} with uplink-hook {hook}: {}", chosen(daemon)?));
                ours.push((site, hook, number));
            }
            Err(error) => bench.leave_out(&format!("{CASE}, {hook}"), error)?,
        }
    }
    let mut findings = Vec::new();
    let direct = direct(bench, &fabric, &plain, 10)?;
    for (path, baseline) in BLACKHOLES {
        if bench.is_quick && path == Path::Iptables {
            continue;
        }
        let theirs = site(bench, &fabric, path, "", 20, false)?;
        for (ours, hook, number) in &ours {
            let a = lane(bench, &fabric, ours, *number, hook)?;
            let b = lane(bench, &fabric, &theirs, 20, baseline)?;
            findings.extend(compare(
                bench,
                (CASE, &format!("unknown addresses, {hook}")),
                baseline,
                [&a, &b, &direct],
            )?);
        }
        theirs.finish()?;
    }
    ours.into_iter().try_for_each(|(site, ..)| site.finish())?;
    Ok(findings)
}
