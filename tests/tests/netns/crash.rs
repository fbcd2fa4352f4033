//! The daemon is killed at its own steps: as it starts, as it ends, as it is detached. What was forwarding goes on, and
//! the next daemon takes over, whatever was half done.
//!
//! A step is a system call by which it changes something outside of itself. `DATAPLANE_TEST_KILLS` is how many of them are
//! chosen of each sequence.

mod step;

use std::env;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Config, traffic::TcpPair};

use self::step::{Kills, Step};
use super::{
    masquerade::{Egress, FAR, RULE, config},
    require_feature, require_root,
};

/// Steps of each sequence that are tried.
fn kills() -> usize {
    env::var("DATAPLANE_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

fn file(attach: &str) -> Config {
    config().datapath("tc-attach", format!("\"{attach}\"")).table(RULE)
}

/// The daemon is there, and has forgotten nothing that it is to do.
fn is_well(net: &Egress) -> Result<()> {
    let status = net.daemon.cli(&["status", "--json"])?;
    ensure!(status["health"] == "ok", "{status}");
    let hooks = status["hooks"].as_array().context("status without hooks")?;
    let known = |hook: &&serde_json::Value| hook["program"] != "waiting" && hook["program_id"].is_u64();
    ensure!(hooks.iter().filter(known).count() >= 4, "{status}");
    net.by_bpf(|| TcpPair::connect(&net.c1, &net.outside, FAR)?.exchange())
}

fn nothing_is_left(net: &Egress) -> Result<()> {
    let left = net.daemon.leftovers()?;
    ensure!(left.is_empty(), "{left:?}");
    ensure!(!net.daemon.bpf_dir().exists(), "the pins' directory is there");
    let qdiscs = net.node.run(["tc", "qdisc", "show"]).ok()?;
    ensure!(!qdiscs.contains("clsact"), "a qdisc of ours is left: {qdiscs}");
    Ok(())
}

/// What is to be done for each of the chosen steps of a sequence.
fn at_each(steps: &[Step], mut work: impl FnMut(&Step) -> Result<()>) -> Result<()> {
    let chosen = step::choose(steps, kills());
    ensure!(chosen.len() >= kills().min(3), "{} steps of {}", chosen.len(), steps.len());
    chosen.into_iter().try_for_each(|step| work(step).with_context(|| format!("killed at {step}")))
}

fn first_start(attach: &str) -> Result<()> {
    let mut net = Egress::with(file(attach))?;
    let kills = Kills::new()?;
    net.daemon.detach()?;
    net.daemon.stop()?;
    let steps = kills.of_a_start(&mut net.daemon)?;
    net.daemon.detach()?;
    at_each(&steps, |step| {
        kills.start(&mut net.daemon, step)?;
        net.daemon.launch()?;
        is_well(&net)?;
        net.daemon.stop()?;
        net.daemon.detach()?;
        nothing_is_left(&net)
    })
}

#[test]
fn at_its_first_start_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    first_start("tcx")
}

#[test]
fn at_its_first_start_by_clsact() -> Result<()> {
    require_root!();
    first_start("clsact")
}

/// Each start finds what the killed one before it left.
fn next_start(files: &[Config]) -> Result<()> {
    let mut files = files.iter().cycle();
    let mut next = || files.next().context("no file");
    let mut net = Egress::with(next()?.clone())?;
    let kills = Kills::new()?;
    let connection = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    connection.exchange()?;
    net.daemon.kill()?;
    net.daemon.write_config(next()?)?;
    let steps = kills.of_a_start(&mut net.daemon)?;
    let mut count = 0;
    at_each(&steps, |step| {
        net.daemon.write_config(next()?)?;
        kills.start(&mut net.daemon, step)?;
        net.by_bpf(|| connection.exchange()).context("with nobody there")?;
        count += 1;
        if count % 4 == 0 {
            net.daemon.launch()?;
            net.by_bpf(|| connection.exchange()).context("with the next daemon")?;
            is_well(&net)?;
            net.daemon.kill()?;
        }
        Ok(())
    })?;
    net.daemon.launch()?;
    net.by_bpf(|| connection.exchange())?;
    is_well(&net)?;
    net.daemon.stop()?;
    net.daemon.detach()?;
    nothing_is_left(&net)
}

#[test]
fn as_it_takes_over_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    next_start(&[file("tcx")])
}

#[test]
fn as_it_takes_over_by_clsact() -> Result<()> {
    require_root!();
    next_start(&[file("clsact")])
}

#[test]
fn as_it_takes_over_another_way() -> Result<()> {
    require_feature!(Tcx);
    next_start(&[file("clsact"), file("tcx")])
}

#[test]
fn as_it_reads_tables_into_new_ones() -> Result<()> {
    require_root!();
    let sizes = [1000, 2000, 4000].map(|flows| file("auto").datapath("max-flows", flows));
    next_start(&sizes)
}

/// Killed in a detach: the next one finishes it, and so does a daemon that begins anew.
fn detach(attach: &str) -> Result<()> {
    let mut net = Egress::with(file(attach))?;
    let kills = Kills::new()?;
    net.daemon.kill()?;
    let steps = kills.of_a_detach(&mut net.daemon)?;
    let mut is_taken_up = false;
    at_each(&steps, |step| {
        net.daemon.launch()?;
        net.daemon.kill()?;
        kills.detach(&mut net.daemon, step)?;
        is_taken_up = !is_taken_up;
        if is_taken_up {
            net.daemon.launch()?;
            is_well(&net)?;
            net.daemon.stop()?;
        }
        net.daemon.detach()?;
        nothing_is_left(&net)
    })
}

#[test]
fn as_it_is_detached_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    detach("tcx")
}

#[test]
fn as_it_is_detached_by_clsact() -> Result<()> {
    require_root!();
    detach("clsact")
}

#[test]
fn as_it_ends() -> Result<()> {
    require_root!();
    let mut net = Egress::with(file("auto"))?;
    let kills = Kills::new()?;
    let connection = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    net.daemon.kill()?;
    let steps = kills.of_an_end(&mut net.daemon)?;
    ensure!(!steps.is_empty(), "it ends without a word");
    let mut killed = 0;
    for step in &steps {
        killed += usize::from(kills.end(&mut net.daemon, step).with_context(|| format!("killed at {step}"))?);
        net.by_bpf(|| connection.exchange()).with_context(|| format!("killed at {step}"))?;
    }
    ensure!(killed > 0, "it always came to its end");
    net.daemon.launch()?;
    net.by_bpf(|| connection.exchange())?;
    is_well(&net)
}

/// What these tests rely on: without the node's data path nothing gets through by BPF.
#[test]
fn a_node_without_a_daemon_is_not_well() -> Result<()> {
    require_root!();
    let net = Egress::with(file("auto"))?;
    is_well(&net)?;
    net.daemon.detach()?;
    ensure!(is_well(&net).is_err(), "it is well");
    nothing_is_left(&net)
}
