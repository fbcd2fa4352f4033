//! Steps that send packets.

use std::net::Ipv4Addr;

use ::tests::harness::Namespace;
use ::tests::harness::traffic::{self, Ping};
use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};

use crate::demo::network::{NOBODY_ON_NODE1, NOBODY_ON_NODE2};
use crate::demo::screen::Told;
use crate::demo::site::{Managed, Site};

/// Echo requests that should be answered.
const REQUESTS: u32 = 5;
/// Echo requests that should not.
const VAIN_REQUESTS: u32 = 3;
/// Bytes of a download.
pub(super) const DOWNLOAD: u64 = 20_000_000;

pub(super) fn same_host(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    ping(told, ("c1", site.c1()), site.c2().address)
}

pub(super) fn across_hosts(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    ping(told, ("c1", site.c1()), site.c3().address)
}

pub(super) fn host_and_back(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    ping(told, ("c1", site.c1()), site.node1().address)?;
    ping(told, ("node1", site.node1()), site.c1().address)
}

pub(super) fn ping(told: &mut Told<'_>, (name, from): (&str, &Namespace), to: Ipv4Addr) -> Result<()> {
    told.command(name, format!("ping -c {REQUESTS} {to}"));
    let ping = traffic::ping(from, to, REQUESTS)?;
    ping.all_answered()?;
    ensure!(ping.sent == REQUESTS, "only {} of {REQUESTS} requests were sent", ping.sent);
    let time = round_trip(&ping).context("ping tells no times")?;
    told.result(format!("{} of {} answered, round trip {time} ms on average", ping.received, ping.sent));
    Ok(())
}

/// The average of ping's line `rtt min/avg/max/mdev = 0.021/0.034/0.058/0.013 ms`.
fn round_trip(ping: &Ping) -> Option<&str> {
    let (_, times) = ping.text.split_once("min/avg/max/mdev = ")?;
    times.split('/').nth(1)
}

pub(super) fn nobody(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    vain(site, told, NOBODY_ON_NODE1, (&site.daemon1, "node1", Hook::FromContainer))?;
    vain(site, told, NOBODY_ON_NODE2, (&site.daemon2, "node2", Hook::FromUplink))
}

/// Pings an address that nobody has; the daemon's node drops that at the hook.
fn vain(
    site: &Site<'_>,
    told: &mut Told<'_>,
    address: &str,
    (managed, node, hook): (&Managed, &str, Hook),
) -> Result<()> {
    let reason = Reason::NoEndpoint;
    let before = managed.daemon.drops(hook, reason)?;
    told.command("c1", format!("ping -c {VAIN_REQUESTS} -W 0.2 {address}"));
    let ping = traffic::ping_with(site.c1(), address, VAIN_REQUESTS, &["-W", "0.2"])?;
    ping.none_answered()?;
    let after = managed.daemon.drops(hook, reason)?;
    let row = format!("`dataplane drops` on {node}: {} {}, {before} -> {after}", hook.name(), reason.name());
    ensure!(after - before == u64::from(VAIN_REQUESTS), "{VAIN_REQUESTS} packets went, and {row}");
    told.result(format!("nothing came back; {row} packets"));
    Ok(())
}

pub(super) fn hops(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let to = site.c3().address;
    let path = [site.node1().address, site.network.host2.node.address, to];
    told_hops(told, ("c1", site.c1()), to, &path)
}

/// Asks for the hops to an address, which must be these.
pub(super) fn told_hops(
    told: &mut Told<'_>,
    (name, from): (&str, &Namespace),
    to: Ipv4Addr,
    path: &[Ipv4Addr],
) -> Result<()> {
    told.command(name, format!("traceroute -n -q 1 {to}"));
    let hops = traffic::traceroute(from, to)?;
    let name = |address: Option<Ipv4Addr>| address.map_or("*".to_owned(), |address| address.to_string());
    let seen: Vec<String> = hops.iter().map(|hop| name(hop.address)).collect();
    let path: Vec<String> = path.iter().map(Ipv4Addr::to_string).collect();
    ensure!(seen == path, "the path should be {}, and is {}", path.join(", "), seen.join(", "));
    told.result(seen.join(" -> "));
    Ok(())
}

pub(super) fn download(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    told.command(
        "c1",
        format!("(random bytes from c3, {}, each compared with what was sent)", site.c3().address),
    );
    let transfer = traffic::tcp_download(site.c1(), site.c3(), site.c3().address, DOWNLOAD)?;
    told.result(format!(
        "{} bytes, all as they were sent, {:.1} Gbit/s",
        transfer.bytes,
        transfer.bits_per_second() / 1e9
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_round_trip_is_found() {
        let ping =
            |text: &str| Ping { sent: 1, received: 1, duplicates: 0, errors: 0, text: text.to_owned() };
        let told = ping("1 received\nrtt min/avg/max/mdev = 0.021/0.034/0.058/0.013 ms\n");
        assert_eq!(round_trip(&told), Some("0.034"));
        assert_eq!(round_trip(&ping("0 received")), None);
    }
}
