//! TCP MD5 signatures, right, wrong and missing.

use std::fs;

use anyhow::Result;
use tests::harness::{Bird, Daemon, Fabric, Neighbour, Node, RoutingDaemon as _, Speaker};

use super::{await_error, await_established, await_route, config, peer, require_root};

#[test]
fn right_wrong_and_missing() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
    let secret = tempfile::NamedTempFile::new()?;
    fs::write(secret.path(), "right\n")?;
    let with = |keys: &str| peer(config(&node1, "172.19.35.0/24"), node2.address, keys);
    let signed = with(&format!("password-file = '{}'", secret.path().display()));
    let bird = |password: Option<&str>| {
        let neighbour = Neighbour { password: password.map(str::to_owned), ..Neighbour::new(node1.address) };
        Speaker::of(&node2).block("172.19.36.0/24").neighbour(neighbour)
    };
    let daemon = Daemon::start(&node1, &signed)?;
    let mut other = Bird::start(&node2, &bird(Some("right")))?;
    await_established(&daemon, node2.address)?;
    await_route(&daemon, "172.19.36.9", node2.address)?;

    other.change(&bird(Some("wrong")))?;
    await_error(&daemon, node2.address, "the passwords differ")?;
    other.change(&bird(None))?;
    await_error(&daemon, node2.address, "the peer has no password for us")?;

    // The other way round: the file changes, and a reload takes it.
    other.change(&bird(Some("other")))?;
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
