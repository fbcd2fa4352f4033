//! Steps towards the outside, which sees the head node's address alone.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use ::tests::harness::packet::Payload;
use ::tests::harness::{Capture, traffic};
use anyhow::{Result, ensure};

use super::traffic::{DOWNLOAD, ping, told_hops};
use crate::demo::screen::Told;
use crate::demo::site::Site;

/// How long what was captured may take to be told.
const CAPTURE_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn translated(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let outside = &site.network.outside;
    told.command("outside", "tcpdump -n -i eth0 icmp");
    let capture = Capture::start(outside, "eth0", "icmp")?;
    for (name, container) in [("c1", site.c1()), ("c3", site.c3())] {
        ping(told, (name, container), outside.address)?;
    }
    let source = |payload: &Payload| match payload {
        Payload::Ipv4(ipv4) if ipv4.destination == outside.address => Some(ipv4.source),
        _ => None,
    };
    capture.wait_for(CAPTURE_LIMIT, |frame| source(&frame.payload).is_some())?;
    let seen: BTreeSet<Ipv4Addr> =
        capture.stop()?.iter().filter_map(|frame| source(&frame.payload)).collect();
    let only = BTreeSet::from([outside.node_address]);
    ensure!(seen == only, "the outside saw packets from {seen:?}, not only from {}", outside.node_address);
    told.result(format!("the outside saw {} alone", outside.node_address));
    told.command("", site.head.command("nat list"));
    told.paste(&site.head.daemon.cli_output(&["nat", "list"]).ok()?);
    Ok(())
}

pub(super) fn hops(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let outside = site.network.outside.address;
    let path = [site.node1().address, site.network.head.address, outside];
    told_hops(told, ("c1", site.c1()), outside, &path)
}

pub(super) fn download(site: &Site<'_>, told: &mut Told<'_>) -> Result<()> {
    let outside = &site.network.outside;
    told.command(
        "c1",
        format!("(random bytes from the outside, {}, each compared with what was sent)", outside.address),
    );
    let transfer = traffic::tcp_download(site.c1(), outside, outside.address, DOWNLOAD)?;
    told.result(format!(
        "{} bytes, all as they were sent, {:.1} Gbit/s",
        transfer.bytes,
        transfer.bits_per_second() / 1e9
    ));
    Ok(())
}
