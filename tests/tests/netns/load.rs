//! Restarts, crashes, upgrades and reloads under load: every datagram is counted, and no connection notices.
//!
//! ```text
//!  c1 172.19.35.2 ─ cali1┐                    ┌ eth0 10.141.0.1 ══ fabric ══ node2 ─ cali3 ─ c3 172.19.36.2
//!                        node1 ───────────────┤
//!  c2 172.19.35.3 ─ cali2┘                    └ eth1 198.51.100.10 ══ 198.51.100.1 outside, by MASQUERADE
//! ```

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{
    Config, Container, ContainerSpec, Daemon, Fabric, Node, Outside,
    daemon::place,
    traffic::{self, Load, UdpPair, Way},
};

use super::{network::config2, require_root};

/// Connections on each way.
const CONNECTIONS: usize = 34;

struct Site {
    daemon1: Daemon,
    daemon2: Daemon,
    c1: Container,
    c2: Container,
    c3: Container,
    outside: Outside,
    node1: Node,
    _node2: Node,
    _fabric: Fabric,
}

fn config() -> Config {
    Config::new()
        .node("uplinks", r#"["eth0", "eth1"]"#)
        .pool("172.19.0.0/16")
        .block("172.19.35.0/24")
        .endpoint("172.19.35.2", "cali1")
        .endpoint("172.19.35.3", "cali2")
        .route("172.19.36.0/26", "10.141.0.2")
        .table("[[masquerade]]\nsource = \"172.19.0.0/16\"")
}

impl Site {
    fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        let add = |node: &Node, specs: &[(&str, &str)]| -> Result<Vec<Container>> {
            let specs = specs.iter().map(|(interface, address)| ContainerSpec::new(interface, address));
            node.add(&specs.collect::<Result<Vec<_>>>()?)
        };
        let [c1, c2] =
            <[Container; 2]>::try_from(add(&node1, &[("cali1", "172.19.35.2"), ("cali2", "172.19.35.3")])?)
                .map_err(|_| anyhow::anyhow!("not two containers"))?;
        let c3 = add(&node2, &[("cali3", "172.19.36.2")])?.pop().context("no container")?;
        let outside = node1.outside("eth1", "198.51.100.10/24", "198.51.100.1")?;
        let daemon1 = Daemon::start(&node1, &config())?;
        let daemon2 = Daemon::start(&node2, &config2())?;
        Ok(Self { daemon1, daemon2, c1, c2, c3, outside, node1, _node2: node2, _fabric: fabric })
    }

    /// Puts every way under load while `happens` goes on, and counts what was lost.
    fn under_load(
        &mut self,
        happens: impl FnOnce(&mut Daemon, &dyn Fn() -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let Self { daemon1, c1, c2, c3, outside, node1, .. } = self;
        let outside_address = "198.51.100.1".parse()?;
        let ways: [Way<'_>; 3] = [(c1, c2, c2.address), (c2, c3, c3.address), (c1, outside, outside_address)];
        traffic::under_load(node1, &ways, CONNECTIONS, |go_on| happens(daemon1, go_on))
    }

    fn finish(self) -> Result<()> {
        self.daemon1.finish()?;
        self.daemon2.finish()
    }
}

#[test]
fn nothing_is_lost_when_the_daemon_ends_and_comes_back() -> Result<()> {
    require_root!();
    let mut site = Site::new()?;
    site.under_load(|daemon, go_on| {
        for _ in 0..2 {
            daemon.stop()?;
            go_on().context("after SIGTERM")?;
            daemon.launch()?;
            go_on().context("with the next daemon")?;
            daemon.kill()?;
            go_on().context("after SIGKILL")?;
            daemon.launch()?;
        }
        Ok(())
    })?;
    site.finish()
}

#[test]
fn nothing_is_lost_by_an_upgrade() -> Result<()> {
    require_root!();
    let directory = tempfile::tempdir()?;
    let newer: PathBuf = directory.path().join("dataplane");
    fs::copy(place::binary()?, &newer)?;
    upgrade_to(newer)
}

#[test]
fn nothing_is_lost_by_an_upgrade_to_another_layout() -> Result<()> {
    require_root!();
    let name = "netns::load::nothing_is_lost_by_an_upgrade_to_another_layout";
    let Some(newer) = place::next_layout_binary(name) else { return Ok(()) };
    upgrade_to(newer)
}

fn upgrade_to(newer: PathBuf) -> Result<()> {
    let mut site = Site::new()?;
    site.under_load(|daemon, go_on| {
        daemon.stop()?;
        daemon.use_binary(newer);
        go_on()?;
        daemon.launch()
    })?;
    site.finish()
}

#[test]
fn nothing_is_lost_by_tables_of_other_sizes() -> Result<()> {
    require_root!();
    let mut site = Site::new()?;
    site.under_load(|daemon, go_on| {
        for (key, size) in [("max-flows", 5000), ("max-endpoints", 64)] {
            daemon.stop()?;
            daemon.write_config(&config().datapath(key, size))?;
            go_on()?;
            daemon.launch()?;
        }
        Ok(())
    })?;
    site.finish()
}

#[test]
fn nothing_is_lost_by_reloads() -> Result<()> {
    require_root!();
    let mut site = Site::new()?;
    site.under_load(|daemon, go_on| {
        for number in 0..5 {
            let other = config().route(&format!("172.19.{}.0/24", 40 + number), "10.141.0.9");
            daemon.write_config(&other.block("172.19.60.0/24"))?;
            daemon.reload()?;
            go_on()?;
            fs::write(daemon.config_file(), "nonsense")?;
            ensure!(daemon.cli_output(&["reload"]).code() == Some(2), "nonsense was taken");
            go_on()?;
        }
        daemon.write_config(&config())?;
        daemon.reload()
    })?;
    site.finish()
}

/// What the tests above rely on.
#[test]
fn a_loss_does_not_go_unseen() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let Site { c1, c3, .. } = &site;
    let every_hundredth = "iptables -A INPUT -p udp -m statistic --mode nth --every 100 --packet 0 -j DROP";
    c3.run(every_hundredth.split(' ')).ok()?;
    let load = Load::udp(UdpPair::new(c1, c3, c3.address)?)?;
    load.continues(1000)?;
    let account = load.finish()?;
    ensure!(account.lost == account.sent.div_ceil(100) && account.duplicates == 0, "{account:?}");
    site.finish()
}
