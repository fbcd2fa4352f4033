//! As much traffic as the machine carries, on several ways at once, while something happens.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use super::{Load, TcpPair, UdpPair, ip_forw_datagrams, tcp_losses};
use crate::harness::netns::Namespace;

/// Answers that are awaited on each way before, during and after what happens.
const ROUNDS: u64 = 3000;

/// Held by the test that loads the machine: two of them would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Between whom packets go: a client, a server, and the address by which the one finds the other.
pub type Way<'a> = (&'a Namespace, &'a Namespace, Ipv4Addr);

/// Puts UDP at full rate and so many TCP connections on each way while something happens: every datagram comes back
/// once, TCP sends nothing twice, no connection ends, and the kernel of `node` forwards nothing.
///
/// What happens is given a function that waits until traffic has gone on for a while on each way.
///
/// # Errors
/// If any of that is not so, or with the error of what happened.
pub fn under_load(
    node: &Namespace,
    ways: &[Way<'_>],
    connections: usize,
    happens: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hosts: Vec<&Namespace> = ways.iter().flat_map(|(client, server, _)| [*client, *server]).collect();
    hosts.sort_by_key(|host| host.name());
    hosts.dedup_by_key(|host| host.name());
    let losses = || hosts.iter().map(|host| tcp_losses(host)).sum::<Result<u64>>();
    let (lost_before, by_kernel) = (losses()?, ip_forw_datagrams(node)?);
    let mut loads = Vec::new();
    for &(client, server, address) in ways {
        loads.push(Load::udp(UdpPair::new(client, server, address)?)?);
        let pairs = (0..connections).map(|_| TcpPair::connect(client, server, address));
        loads.push(Load::tcp(pairs.collect::<Result<_>>()?));
    }
    let go_on = || loads.iter().try_for_each(|load| load.continues(ROUNDS));
    go_on().context("before")?;
    happens(&go_on)?;
    go_on().context("afterwards")?;
    for load in loads {
        let account = load.finish()?;
        ensure!((account.lost, account.duplicates) == (0, 0), "{account:?}");
    }
    ensure!(losses()? == lost_before, "{} TCP segments were lost", losses()? - lost_before);
    let forwarded = ip_forw_datagrams(node)? - by_kernel;
    ensure!(forwarded == 0, "the kernel forwarded {forwarded} packets");
    Ok(())
}
