//! Nodes whose routes come from a BGP peer: by this data path, and by BIRD.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Bird, Config, Daemon, Fabric, Node};

use super::feed::{ASN, Feed};
use super::lookup::PREFIXES;
use super::lookups::{Lookup, Lookups};
use super::skip::skip;
use super::{Bench, interrupt, machine};
use crate::process;

/// More than any case announces.
const MAX_PREFIXES: u32 = 2_000_000;

/// How long all prefixes may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Pause between two looks at a table while it fills.
const PAUSE: Duration = Duration::from_millis(1);

/// Who learns the routes.
pub(super) enum Learner {
    /// The daemon, into the data path's table.
    Daemon(Daemon),
    /// BIRD, into the kernel's.
    Bird(Bird),
}

/// The node, which speaks BGP with the peer.
pub(super) struct Network {
    _fabric: Fabric,
    pub(super) node: Node,
    pub(super) peer: Node,
}

impl Network {
    pub(super) fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let node = Node::new(&fabric, "node", "10.141.0.1")?;
        let peer = Node::new(&fabric, "peer", "10.141.0.9")?;
        Ok(Self { _fabric: fabric, node, peer })
    }

    /// Starts the daemon on the node: it waits for the peer, takes all that it says, and writes it into the kernel's
    /// table, too, or leaves that alone.
    pub(super) fn daemon(&self, bench: &Bench, kernel_routes: bool) -> Result<Daemon> {
        let (address, peer) = (self.node.address, self.peer.address);
        let config = Config::new().node("uplinks", r#"["eth0"]"#);
        let config = learning(config, &address.to_string(), &peer.to_string());
        let config = config.datapath("kernel-routes", kernel_routes);
        bench.daemon(&bench.binary, &self.node, &config)
    }

    /// Starts BIRD on the node, with its own defaults: it looks through the kernel's table once a minute.
    pub(super) fn bird(&self) -> Result<Bird> {
        if process::find("bird").is_none() {
            return Err(skip("BIRD is not installed: `cargo xtask setup` installs it"));
        }
        let (address, peer) = (self.node.address, self.peer.address);
        let config = format!(
            "log stderr {{ warning, error, fatal, bug }};\nrouter id {address};\nprotocol device {{}}\n\
             protocol direct {{ ipv4; }}\n\
             protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
             protocol bgp peer {{\n local {address} as {ASN};\n neighbor {peer} as {ASN};\n passive on;\n \
             ipv4 {{ import all; export none; }};\n}}\n"
        );
        Bird::with_config(&self.node, &config)
    }
}

/// Adds to a daemon's file that it waits at `address` for a peer and takes all the prefixes that it says.
pub(super) fn learning(config: Config, address: &str, peer: &str) -> Config {
    config
        .pool("64.0.0.0/6")
        .table(&format!("[bgp]\nasn = {ASN}\nrouter-id = \"{address}\"\nlisten = \"{address}:179\""))
        .table(&format!(
            "[[bgp.peer]]\naddress = \"{peer}\"\nasn = {ASN}\npassive = true\nmax-prefixes = {MAX_PREFIXES}"
        ))
}

/// A learner with a session, and the programs that look at its routes.
pub(super) struct Session<'a> {
    pub(super) feed: Feed,
    lookups: Lookups<'a>,
    lookup: Lookup,
    pub(super) learner: Learner,
}

impl<'a> Session<'a> {
    pub(super) fn new(bench: &Bench, network: &'a Network, learner: Learner) -> Result<Self> {
        let Network { node, peer, .. } = network;
        let (daemon, lookup) = match &learner {
            Learner::Daemon(daemon) => (Some(daemon), Lookup::EachInTrie),
            Learner::Bird(_) => (None, Lookup::EachInKernel(node.ifindex("eth0")?)),
        };
        let lookups = Lookups::new(bench, node, PREFIXES, daemon)?;
        let feed = Feed::dial(peer, peer.address, node.address)?;
        Ok(Self { feed, lookups, lookup, learner })
    }

    /// Announces the first `prefixes` and gives the time until packets to all of them have a route.
    pub(super) fn load(&mut self, prefixes: u32) -> Result<Duration> {
        let updates = PREFIXES.announcement(0..prefixes, self.feed.address);
        let Self { feed, lookups, lookup, .. } = self;
        let begin = Instant::now();
        thread::scope(|scope| {
            let sender = scope.spawn(|| feed.say(&updates));
            let loaded = loop {
                // First the cheap question: the last prefix tends to come last.
                if lookups.is_present(*lookup, prefixes - 1)?
                    && lookups.present(*lookup, prefixes)? == prefixes
                {
                    break begin.elapsed();
                }
                interrupt::check()?;
                ensure!(begin.elapsed() < LIMIT, "not all of {prefixes} prefixes were there after {LIMIT:?}");
                thread::sleep(PAUSE);
            };
            sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))??;
            Ok(loaded)
        })
    }

    /// Sends the messages and gives the time until the prefix with that number is there, or is gone.
    pub(super) fn change(&mut self, messages: &[u8], number: u32, is_there: bool) -> Result<Duration> {
        let begin = Instant::now();
        self.feed.say(messages)?;
        while self.lookups.is_present(self.lookup, number)? != is_there {
            interrupt::check()?;
            ensure!(begin.elapsed() < LIMIT, "a change of one prefix was not seen after {LIMIT:?}");
        }
        Ok(begin.elapsed())
    }

    /// Bytes that the learner occupies for itself.
    pub(super) fn resident(&self) -> Result<f64> {
        let process = match &self.learner {
            Learner::Daemon(daemon) => daemon.process(),
            Learner::Bird(bird) => bird.process(),
        };
        Ok(machine::resident_alone(process.context("nobody runs")?.pid())? as f64)
    }

    /// The programs, and the daemon if it is the learner.
    pub(super) fn table(&mut self) -> (&mut Lookups<'a>, Option<&Daemon>) {
        let daemon = if let Learner::Daemon(daemon) = &self.learner { Some(daemon) } else { None };
        (&mut self.lookups, daemon)
    }

    /// Ends the session and the learner.
    pub(super) fn finish(self) -> Result<()> {
        drop((self.feed, self.lookups));
        match self.learner {
            Learner::Daemon(daemon) => daemon.finish(),
            Learner::Bird(_) => Ok(()),
        }
    }
}
