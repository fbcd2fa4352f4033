//! TCP MD5 signatures, right, wrong and missing.

use std::fs;

use anyhow::Result;
use tests::harness::{Daemon, Fabric, Neighbour, Node, RoutingDaemon, Speaker};

use super::{await_error, await_established, await_route, config, peer, with_daemons};

with_daemons!(bird: Bird, frr: Frr, gobgp: GoBgp => [right_wrong_and_missing]);

fn right_wrong_and_missing<R: RoutingDaemon>() -> Result<()> {
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
    let secret = tempfile::NamedTempFile::new()?;
    fs::write(secret.path(), "right\n")?;
    let with = |keys: &str| peer(config(&node1, "172.19.35.0/24"), node2.address, keys);
    let signed = with(&format!("password-file = '{}'", secret.path().display()));
    let speaker = |password: Option<&str>| {
        let neighbour = Neighbour { password: password.map(str::to_owned), ..Neighbour::new(node1.address) };
        Speaker::of(&node2).block("172.19.36.0/24").neighbour(neighbour)
    };
    let daemon = Daemon::start(&node1, &signed)?;
    let mut other = R::start(&node2, &speaker(Some("right")))?;
    await_established(&daemon, node2.address)?;
    await_route(&daemon, "172.19.36.9", node2.address)?;

    other.change(&speaker(Some("wrong")))?;
    await_error(&daemon, node2.address, "the passwords differ")?;
    other.change(&speaker(None))?;
    await_error(&daemon, node2.address, "the peer has no password for us")?;

    // The other way round: the file changes, and a reload takes it.
    other.change(&speaker(Some("other")))?;
    daemon.write_config(&with(""))?;
    daemon.reload()?;
    await_error(&daemon, node2.address, "`password-file` is not set")?;
    fs::write(secret.path(), "other\n")?;
    daemon.write_config(&signed)?;
    daemon.reload()?;
    await_established(&daemon, node2.address)?;
    fs::write(secret.path(), "")?;
    let refused = daemon.cli_output(&["reload"]);
    assert!(refused.code() == Some(2) && refused.stderr.contains("is empty"), "{refused:?}");
    await_established(&daemon, node2.address).map(drop)
}
