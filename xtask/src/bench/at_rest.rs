//! What the daemon takes while nothing happens: CPU time and memory.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::harness::{Config, ContainerSpec, Fabric, Node};

use super::finding::{Finding, Sample};
use super::{Bench, interrupt, machine};

/// What the daemon is given before it is watched.
const CONTAINERS: u8 = 30;
const ROUTES: u8 = 100;

/// Watches a daemon with some containers and routes.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node", "10.141.0.1")?;
    let specs: Result<Vec<_>> = (1..=CONTAINERS)
        .map(|n| Ok(ContainerSpec::new(&format!("cali{n}"), format!("172.19.35.{n}"))?.host_route()))
        .collect();
    let _containers = node.add(&specs?)?;
    let mut config =
        Config::new().node("uplinks", r#"["eth0"]"#).pool("172.19.0.0/16").block("172.19.35.0/24");
    for number in 0..ROUTES {
        config = config.route(&format!("172.19.{}.0/24", 100 + number), "10.141.0.2");
    }
    let daemon = bench.daemon(&bench.binary, &node, &config)?;
    let pid = daemon.process().context("the daemon does not run")?.pid();
    bench.say("at-rest", &format!("watching the daemon for {} s", bench.rest.as_secs()));
    let (begin, before) = (Instant::now(), machine::cpu_time(pid)?);
    while begin.elapsed() < bench.rest {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(100));
    }
    let used = (machine::cpu_time(pid)? - before).as_secs_f64() * 1e3 / begin.elapsed().as_secs_f64();
    let resident = machine::resident(pid)? as f64 / 1e6;
    daemon.finish()?;
    let finding = |metric, unit, figure| {
        let variant = format!("{CONTAINERS} containers, {ROUTES} routes");
        Finding::new("at-rest", variant, metric, unit, vec![Sample::alone(figure)])
    };
    Ok(vec![finding("cpu-time", "ms/s", used), finding("resident-memory", "MB", resident)])
}
