//! Steps that ask the daemons.

use anyhow::{Result, ensure};

use crate::demo::screen::Told;
use crate::demo::site::Site;

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
    let health = &managed.status()?["health"];
    ensure!(health == "ok", "its health is {health}");
    told.result("healthy:");
    Ok(())
}

pub(super) fn detach(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    for (node, managed) in site.nodes() {
        let file = managed.daemon.config_file();
        told.command(&node.name, format!("dataplane detach --config {}", file.display()));
        managed.daemon.detach()?;
        let leftovers = managed.daemon.leftovers()?;
        ensure!(leftovers.is_empty(), "left behind on {}: {}", node.name, leftovers.join(", "));
    }
    told.result("no program, pin or route of the data path is left on the nodes; the demo itself goes now");
    Ok(())
}
