//! Steps that ask the daemons.

use std::time::{Duration, Instant};

use ::tests::harness::eventually;
use anyhow::{Context as _, Result, ensure};

use crate::demo::network::Network;
use crate::demo::screen::Told;
use crate::demo::site::Site;

/// How long the nodes may take to find each other: the one that comes first dials again after a second.
const SESSION_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn bgp(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let begin = Instant::now();
    let Network { host1, host2, .. } = &site.network;
    for (managed, other) in [(&site.daemon1, host2), (&site.daemon2, host1)] {
        // An address that no container has takes the block's own route.
        let address = other.block.replace(".0/24", ".250");
        let route = eventually(SESSION_LIMIT, || {
            let route = managed.daemon.route_get(&address)?["route"].take();
            ensure!(route["source"] == "bgp", "the route for {address} is {route}");
            Ok(route)
        })?;
        ensure!(route["prefix"] == other.block, "{address} takes {route}");
        told.result(format!(
            "{}'s block {} is learned, by router {}",
            other.node.name, other.block, other.node.address
        ));
    }
    told.result(format!("within {} ms", begin.elapsed().as_millis()));
    told.command("", site.daemon1.command("bgp peers"));
    told.paste(&site.daemon1.daemon.cli_output(&["bgp", "peers"]).ok()?);
    Ok(())
}

pub(super) fn trace(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let (c1, c3, managed) = (site.c1(), site.c3(), &site.daemon1);
    let (source, destination) = (format!("{}:40000", c1.address), format!("{}:80", c3.address));
    let command = ["trace", "--in", &c1.interface, "tcp", &source, &destination];
    told.command("", managed.command(&command.join(" ")));
    let text = managed.daemon.cli_output(&command).ok()?;
    told.paste(&text);
    let trace = managed.daemon.cli(&[&command[..], &["--json"]].concat())?;
    let (verdict, reason) = (&trace["verdict"], &trace["reason"]);
    ensure!(verdict == "forward" && reason == "forwarded", "the verdict is {verdict}, for {reason}");
    told.result("the loaded program was run on such a packet, and would forward it:");
    Ok(())
}

pub(super) fn status(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let managed = &site.daemon1;
    told.command("", managed.command("status"));
    let text = managed.daemon.cli_output(&["status"]).ok()?;
    told.paste(&text);
    let status = managed.status()?;
    let health = &status["health"];
    ensure!(health == "ok", "its health is {health}");
    let hooks = status["hooks"].as_array().context("status has no hooks")?;
    let attached = hooks.iter().filter(|hook| hook["program_id"].is_u64()).count();
    ensure!(attached == hooks.len(), "of {} hooks, {attached} have their program", hooks.len());
    told.result(format!("healthy, with its programs at {attached} hooks:"));
    Ok(())
}

pub(super) fn detach(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    // Counted before the first one goes: the others' routes to its block go with it.
    let nodes = site.nodes();
    let counts = nodes.each_ref().map(|(_, managed)| -> Result<_> {
        let before = managed.daemon.leftovers()?;
        let count = |kind| before.iter().filter(|what| what.starts_with(kind)).count();
        Ok((count("program"), count("route")))
    });
    for ((node, managed), counts) in nodes.into_iter().zip(counts) {
        let (programs, routes) = counts?;
        // Were there none now, that none is left would say nothing.
        ensure!(programs > 0 && routes > 0, "{} has no program or no route to be removed", node.name);
        let file = managed.daemon.config_file();
        told.command(&node.name, format!("dataplane detach --config {}", file.display()));
        managed.daemon.detach()?;
        let leftovers = managed.daemon.leftovers()?;
        ensure!(leftovers.is_empty(), "left behind on {}: {}", node.name, leftovers.join(", "));
        told.result(format!("{}: {programs} programs, {routes} routes and the pins are gone", node.name));
    }
    Ok(())
}
