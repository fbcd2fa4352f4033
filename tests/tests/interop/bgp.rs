//! The daemon speaks BGP itself, with its like and with other routing daemons, whose nodes forward by their kernels.

mod faults;
mod mesh;
mod next_hops;
mod password;
mod reload;
mod restart;
mod ttl_security;

use std::{fmt::Display, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::harness::{Config, Container, Daemon, Node, RoutingDaemon, eventually, traffic};

use super::{require_root, with_daemons};

const PATIENCE: Duration = Duration::from_secs(30);

/// The file of a node that speaks BGP, with a block.
fn config(node: &Node, block: &str) -> Config {
    let address = node.address;
    Config::new()
        .node("uplinks", r#"["eth0"]"#)
        .pool("172.19.0.0/16")
        .block(block)
        .table(&format!("[bgp]\nasn = 64512\nrouter-id = \"{address}\"\nlisten = \"{address}:179\""))
}

/// The same with a peer more, and perhaps keys of its own.
fn peer(config: Config, address: impl Display, keys: &str) -> Config {
    config.table(&format!("[[bgp.peer]]\naddress = \"{address}\"\nasn = 64512\n{keys}"))
}

/// Has the kernel of a routing daemon's node lead to another's block, where the daemon itself does not see to that.
fn lead<R: RoutingDaemon>(node: &Node, block: &str, other: &Node) -> Result<()> {
    if R::PROTOCOLS.is_empty() { node.route_via(block, other.address) } else { Ok(()) }
}

/// What `dataplane bgp peers` says of one.
fn bgp_peer(daemon: &Daemon, address: impl Display) -> Result<Value> {
    let (peers, address) = (daemon.cli(&["bgp", "peers", "--json"])?, address.to_string());
    let peer = peers.as_array().into_iter().flatten().find(|peer| peer["address"] == address.as_str());
    peer.cloned().with_context(|| format!("no peer {address}: {peers}"))
}

/// Waits until it says that.
fn await_peer(
    daemon: &Daemon,
    address: impl Display,
    what: &str,
    is: impl Fn(&Value) -> bool,
) -> Result<Value> {
    eventually(PATIENCE, || {
        let peer = bgp_peer(daemon, &address)?;
        ensure!(is(&peer), "not {what}: {peer:#}");
        Ok(peer)
    })
}

fn await_established(daemon: &Daemon, address: impl Display) -> Result<Value> {
    await_peer(daemon, address, "established", |peer| peer["state"] == "established")
}

/// Waits until the last error of a peer has these words.
fn await_error(daemon: &Daemon, address: impl Display, words: &str) -> Result<()> {
    let said = |peer: &Value| {
        let errors = [&peer["last_down_reason"], &peer["last_error"]];
        errors.iter().filter_map(|error| error.as_str()).any(|error| error.contains(words))
    };
    await_peer(daemon, address, words, said).map(drop)
}

/// Waits until packets to an address leave by that router, learned by BGP.
fn await_route(daemon: &Daemon, address: impl Display, via: impl Display) -> Result<()> {
    let via = via.to_string();
    eventually(PATIENCE, || {
        let route = daemon.route_get(&address)?["route"].take();
        ensure!(route["via"] == via.as_str() && route["source"] == "bgp", "{address} takes {route}");
        Ok(())
    })
}

/// Waits until an address takes no route that was learned by BGP.
fn await_no_route(daemon: &Daemon, address: impl Display) -> Result<()> {
    eventually(PATIENCE, || {
        let route = daemon.route_get(&address)?["route"].take();
        ensure!(route["source"] != "bgp", "{address} takes {route}");
        Ok(())
    })
}

/// Pings both ways, of which a node with the data path forwards nothing by its kernel.
fn traffic_by_bpf(nodes: &[&Node], one: &Container, other: &Container) -> Result<()> {
    let kernels = || nodes.iter().map(|node| traffic::ip_forw_datagrams(node)).collect::<Result<Vec<_>>>();
    let before = kernels()?;
    for (from, to) in [(one, other), (other, one)] {
        traffic::ping(from, to.address, 5)?.all_answered()?;
        traffic::tcp_transfer(from, to, to.address, 1_000_000)?;
    }
    let after = kernels()?;
    ensure!(before == after, "the kernels forwarded: {before:?}, {after:?}");
    Ok(())
}
