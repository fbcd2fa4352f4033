//! Translations outlive tables of another layout, or of other sizes.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::names::LAYOUT_VERSION;
use serde_json::Value;
use tests::harness::{
    Daemon,
    daemon::place,
    traffic::{self, TcpPair, UdpPair},
};

use super::{Egress, FAR, NODE, RULE, config, require_root};

/// Connections of each kind, open all the time.
const CONNECTIONS: usize = 20;

/// Connections that stay open of those that are opened while a daemon starts.
const MOST_OPEN: usize = 100;

/// Flows of a node, and what is known of each before its tables change.
struct Open {
    tcp: Vec<TcpPair>,
    udp: UdpPair,
    flows: Vec<Value>,
}

impl Open {
    fn new(net: &Egress) -> Result<Self> {
        let tcp = (0..CONNECTIONS).map(|_| {
            let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
            pair.exchange()?;
            Ok(pair)
        });
        let tcp = tcp.collect::<Result<_>>()?;
        let udp = UdpPair::new(&net.c2, &net.outside, FAR)?;
        udp.exchange(b"hello")?;
        traffic::ping(&net.c1, FAR, 1)?.all_answered()?;
        let flows = list(&net.daemon)?;
        ensure!(flows.len() >= CONNECTIONS + 2, "{flows:?}");
        Ok(Self { tcp, udp, flows })
    }

    /// All of them work, and go by BPF alone.
    fn go_on(&self, net: &Egress) -> Result<()> {
        net.by_bpf(|| {
            self.tcp.iter().try_for_each(TcpPair::exchange)?;
            ensure!(self.udp.exchange(b"still there")?.ip() == NODE);
            Ok(())
        })
    }

    /// They are known as before, and work.
    fn are_kept(&self, net: &Egress) -> Result<()> {
        let now = list(&net.daemon)?;
        for before in &self.flows {
            let same =
                |flow: &&Value| flow["original"] == before["original"] && flow["remote"] == before["remote"];
            let after = now.iter().find(same).with_context(|| format!("{before} is gone"))?;
            for member in ["protocol", "translated", "state"] {
                ensure!(after[member] == before[member], "{after} and not {before}");
            }
            for member in ["bytes", "packets", "age_seconds"] {
                ensure!(after[member].as_u64() >= before[member].as_u64(), "{after} and not {before}");
            }
        }
        self.go_on(net)
    }
}

fn list(daemon: &Daemon) -> Result<Vec<Value>> {
    daemon.cli(&["nat", "list", "--json"])?.as_array().cloned().context("the list is none")
}

/// Starts the next daemon while connections are opened all the time: each of them gets through.
fn launch_under_new_connections(net: &mut Egress) -> Result<()> {
    let Egress { daemon, c2, outside, .. } = net;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let opener = scope.spawn(|| -> Result<Vec<TcpPair>> {
            let mut opened = Vec::new();
            while !done.load(Relaxed) {
                let pair = TcpPair::connect(c2, outside, FAR)?;
                pair.exchange()?;
                // The others are closed: they are flows that end.
                if opened.len() < MOST_OPEN {
                    opened.push(pair);
                }
            }
            Ok(opened)
        });
        let launched = daemon.launch();
        done.store(true, Relaxed);
        let opened = opener.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        launched?;
        ensure!(!opened.is_empty(), "no connection was opened meanwhile");
        opened.iter().try_for_each(TcpPair::exchange)
    })
}

#[test]
fn translations_are_taken_over_by_another_layout() -> Result<()> {
    require_root!();
    let name = "netns::masquerade::upgrade::translations_are_taken_over_by_another_layout";
    let Some(newer) = place::next_layout_binary(name) else { return Ok(()) };
    let mut net = Egress::new()?;
    let open = Open::new(&net)?;
    net.daemon.kill()?;
    net.daemon.use_binary(newer.clone());
    launch_under_new_connections(&mut net)?;
    open.are_kept(&net)?;
    let sets: Vec<_> = sets(&net.daemon)?;
    ensure!(sets == [format!("v{}", LAYOUT_VERSION + 1)], "{sets:?}");

    // The one before does not know what is there now, says so, and leaves it as it is.
    net.daemon.stop()?;
    net.daemon.use_binary(place::binary()?);
    let refused = format!("{:#}", net.daemon.launch().err().context("the older daemon started")?);
    let expected = format!("is of layout {}, which a newer dataplane made", LAYOUT_VERSION + 1);
    ensure!(refused.contains(&expected) && refused.contains("dataplane detach"), "{refused}");
    open.go_on(&net)?;
    net.daemon.use_binary(newer);
    net.daemon.launch()?;
    open.are_kept(&net)?;

    // But it can take it away.
    net.daemon.stop()?;
    net.daemon.use_binary(place::binary()?);
    net.daemon.detach()?;
    let left = net.daemon.leftovers()?;
    ensure!(left.is_empty(), "{left:?}");
    net.daemon.launch()?;
    TcpPair::connect(&net.c1, &net.outside, FAR)?.exchange()?;
    net.finish().map(drop)
}

#[test]
fn translations_are_taken_over_by_tables_of_other_sizes() -> Result<()> {
    require_root!();
    let mut net = Egress::new()?;
    let open = Open::new(&net)?;
    for (key, size) in [("max-flows", 20_000), ("max-endpoints", 64), ("max-flows", 100_000)] {
        net.daemon.stop()?;
        net.daemon.write_config(&config().datapath(key, size).table(RULE))?;
        launch_under_new_connections(&mut net).with_context(|| format!("{key} = {size}"))?;
        open.are_kept(&net).with_context(|| format!("{key} = {size}"))?;
        ensure!(sets(&net.daemon)? == [format!("v{LAYOUT_VERSION}")], "{:?}", sets(&net.daemon)?);
    }
    net.finish().map(drop)
}

#[test]
fn translations_of_a_layout_without_a_reader_end_with_a_word() -> Result<()> {
    require_root!();
    let mut net = Egress::new()?;
    let open = Open::new(&net)?;
    net.daemon.stop()?;
    let set = |version| net.daemon.bpf_dir().join(format!("v{version}"));
    fs::rename(set(LAYOUT_VERSION), set(1))?;
    open.go_on(&net)?;
    net.daemon.launch()?;
    let log = net.daemon.process().map(|process| process.output(tests::harness::Stream::Stderr));
    ensure!(log.as_ref().is_some_and(|log| log.contains("no reader for layout 1")), "{log:?}");
    ensure!(list(&net.daemon)?.is_empty());
    ensure!(sets(&net.daemon)? == [format!("v{LAYOUT_VERSION}")], "{:?}", sets(&net.daemon)?);
    net.by_bpf(|| TcpPair::connect(&net.c1, &net.outside, FAR)?.exchange())?;
    net.finish().map(drop)
}

fn sets(daemon: &Daemon) -> Result<Vec<String>> {
    let entries = fs::read_dir(daemon.bpf_dir())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
