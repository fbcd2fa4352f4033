//! What the tests take for granted of BIRD itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::{Bird, Fabric, Neighbour, Node, RoutingDaemon as _, Speaker, eventually};

use super::require_root;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn two_birds_exchange_their_blocks_and_write_them_into_the_kernels() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
    let speaker = |own: &Node, other: &Node, block| {
        Speaker::of(own).block(block).neighbour(Neighbour::new(other.address))
    };
    let bird1 = Bird::start(&node1, &speaker(&node1, &node2, "172.19.35.0/24"))?;
    let mut bird2 = Bird::start(&node2, &speaker(&node2, &node1, "172.19.36.0/26"))?;
    bird1.await_established(node2.address)?;
    bird2.await_established(node1.address)?;
    let kernel_has = |node: &Node, prefix: &str, wanted: &str| {
        eventually(PATIENCE, || {
            let route = node.ip(&format!("route show {prefix} proto bird"))?;
            ensure!(route.starts_with(wanted) && route.is_empty() == wanted.is_empty(), "{route:?}");
            Ok(())
        })
    };
    kernel_has(&node1, "172.19.36.0/26", "172.19.36.0/26 via 10.141.0.2 dev eth0")?;
    kernel_has(&node1, "172.19.35.0/24", "blackhole 172.19.35.0/24")?;
    kernel_has(&node2, "172.19.35.0/24", "172.19.35.0/24 via 10.141.0.1 dev eth0")?;

    bird2.change(&speaker(&node2, &node1, "172.19.37.0/24"))?;
    kernel_has(&node1, "172.19.36.0/26", "")?;
    kernel_has(&node1, "172.19.37.0/24", "172.19.37.0/24 via 10.141.0.2 dev eth0")?;
    bird2.stop()?;
    assert_eq!(node2.ip("route show proto bird")?, "");
    // The peer agreed to a graceful restart, and gets one.
    bird2.launch()?;
    bird1.await_established(node2.address)?;
    kernel_has(&node1, "172.19.37.0/24", "172.19.37.0/24 via 10.141.0.2 dev eth0")
}
