//! Bulk TCP with and without the offloads, and with jumbo frames: aggregates cross the data path whole.

use anyhow::Result;
use tests::harness::{Namespace, traffic::TcpPair};

use super::{
    network::{Network, Setup},
    require_root,
};

const TWENTY_MEGABYTES: u64 = 20_000_000;

fn switch(namespace: &Namespace, interface: &str, state: &str) -> Result<()> {
    let features = ["tso", state, "gso", state, "gro", state, "tx", state];
    namespace.run(["ethtool", "-K", interface].iter().chain(&features)).ok().map(drop)
}

/// Every interface on the way, at both ends.
fn switch_all(network: &Network, state: &str) -> Result<()> {
    let Network { c1, c2, c3, c4, node1, node2, .. } = network;
    for container in [c1, c2, c3, c4] {
        switch(container, "eth0", state)?;
    }
    for (node, interfaces) in [(node1, ["eth0", "cali1", "cali2"]), (node2, ["eth0", "cali3", "cali4"])] {
        for interface in interfaces {
            switch(node, interface, state)?;
        }
    }
    Ok(())
}

fn transfer_both_ways(network: &Network) -> Result<()> {
    network.by_bpf(|| {
        for to in [&network.c2, &network.c3] {
            let pair = TcpPair::connect(&network.c1, to, to.address)?;
            pair.upload(TWENTY_MEGABYTES)?;
            pair.download(TWENTY_MEGABYTES)?;
        }
        Ok(())
    })
}

#[test]
fn twenty_megabytes_without_offloads() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    switch_all(&network, "off")?;
    transfer_both_ways(&network)?;
    switch_all(&network, "on")?;
    transfer_both_ways(&network)
}

#[test]
fn twenty_megabytes_in_jumbo_frames() -> Result<()> {
    require_root!();
    let network = Network::with(Setup { fabric_mtu: 9000, container_mtu: 9000, ..Setup::default() })?;
    transfer_both_ways(&network)?;
    network.by_bpf(|| {
        let options = ["-s", "8972", "-M", "do"];
        tests::harness::traffic::ping_with(&network.c1, network.c3.address, 3, &options)?.all_answered()
    })?;
    switch_all(&network, "off")?;
    transfer_both_ways(&network)
}
