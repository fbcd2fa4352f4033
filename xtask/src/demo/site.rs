//! The network with the daemons on it: what the steps are shown on.

use std::time::Instant;

use ::tests::harness::{Container, Daemon, Node, traffic};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::network::Network;
use super::place::Place;
use super::screen::Told;

/// The network and its daemons.
pub(super) struct Site<'a> {
    pub(super) daemon1: Managed,
    pub(super) daemon2: Managed,
    pub(super) head: Managed,
    pub(super) network: Network,
    pub(super) place: &'a Place,
}

/// A node's daemon, and what the kernel had forwarded on that node before it was there.
pub(super) struct Managed {
    pub(super) daemon: Daemon,
    pub(super) forwarded_before: u64,
}

impl<'a> Site<'a> {
    /// Starts a daemon on each node, and waits until both are ready and have found the containers.
    pub(super) fn start(place: &'a Place, network: Network, told: &mut Told<'_>) -> Result<Self> {
        let begin = Instant::now();
        let [daemon1, daemon2, head] =
            network.nodes().map(|node| Managed::start(place, &network, node, told));
        let site = Self { daemon1: daemon1?, daemon2: daemon2?, head: head?, network, place };
        let milliseconds = begin.elapsed().as_millis();
        for (node, managed) in site.nodes() {
            let containers = if node.address == site.network.head.address { 0 } else { 2 };
            told.result(format!("{}: {}", node.name, managed.attached(containers)?));
        }
        told.result(format!("ready after {milliseconds} ms for all"));
        Ok(site)
    }

    pub(super) fn c1(&self) -> &Container {
        &self.network.host1.containers[0]
    }

    pub(super) fn c2(&self) -> &Container {
        &self.network.host1.containers[1]
    }

    pub(super) fn c3(&self) -> &Container {
        &self.network.host2.containers[0]
    }

    pub(super) fn node1(&self) -> &Node {
        &self.network.host1.node
    }

    /// Each node with its daemon.
    pub(super) fn nodes(&self) -> [(&Node, &Managed); 3] {
        let [node1, node2, head] = self.network.nodes();
        [(node1, &self.daemon1), (node2, &self.daemon2), (head, &self.head)]
    }
}

impl Managed {
    fn start(place: &Place, network: &Network, node: &Node, told: &mut Told<'_>) -> Result<Self> {
        let directory = place.node_directory(&node.name)?;
        let forwarded_before = traffic::ip_forw_datagrams(node)?;
        told.command(&node.name, format!("dataplane run --config {}/node.toml", directory.display()));
        let config = network.config(node);
        let bpf_dir = place.bpf_dir(&node.name);
        let mut daemon = Daemon::prepare_at(node, &config, place.binary.clone(), &directory, &bpf_dir)?;
        daemon.launch()?;
        Ok(Self { daemon, forwarded_before })
    }

    /// The command as a user types it.
    pub(super) fn command(&self, arguments: &str) -> String {
        format!("dataplane --state-dir {} {arguments}", self.daemon.state_dir().display())
    }

    /// The answer of `dataplane status --json`.
    pub(super) fn status(&self) -> Result<Value> {
        self.daemon.cli(&["status", "--json"])
    }

    /// What is attached where, and which containers were found, in words.
    fn attached(&self, containers: usize) -> Result<String> {
        let status = self.status()?;
        let hooks = status["hooks"].as_array().context("status has no hooks")?;
        let places: Vec<&str> = hooks.iter().filter_map(|hook| hook["interface"].as_str()).collect();
        let mode = hooks.first().and_then(|hook| hook["mode"].as_str()).unwrap_or_default();
        let endpoints = self.daemon.cli(&["endpoint", "list", "--json"])?;
        let addresses: Vec<&str> =
            endpoints.as_array().into_iter().flatten().filter_map(|one| one["address"].as_str()).collect();
        let found = if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") };
        ensure!(addresses.len() == containers, "of {containers} containers, the daemon found {found}");
        Ok(format!("programs on {} ({mode}), containers: {found}", places.join(", ")))
    }
}
