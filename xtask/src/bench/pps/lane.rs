//! One path for packets: a generator at its beginning and a sink at its end.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::harness::topology::HOST_MAC;
use tests::harness::{Fabric, eventually};

use super::Way;
use crate::bench::Bench;
use crate::bench::baseline::Path;
use crate::bench::generator::{Flows, Generator, Vary};
use crate::bench::interrupt;
use crate::bench::sink::Sink;
use crate::bench::site::{GATEWAY, Site, address, port_of, take_redirected};

/// Pause before each measurement.
const BREAK: Duration = Duration::from_millis(30);

/// How long it may take until BPF carries all flows that the kernel decided.
const CARRIED_LIMIT: Duration = Duration::from_secs(60);

/// Fewest frames before a measurement: its length is guessed from how long they take.
const LEAST_WARM_UP: u32 = 1 << 14;

/// Flows of a lane.
pub(super) const FLOWS: u32 = 1 << 16;

/// Number of the site with the other ends of the flows, which is not there.
pub(in crate::bench) const SENDERS: u8 = 200;

/// Its containers; the last byte is the flow's.
const SENDER: [u8; 4] = [172, 19, SENDERS, 0];

/// Hosts of the outside (RFC 5737); the last byte is the flow's.
pub(in crate::bench) const OUTSIDE: [u8; 4] = [203, 0, 113, 0];

/// Its MAC.
pub(in crate::bench) const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, SENDERS];

/// What goes through a lane.
#[derive(Clone, Copy)]
pub(in crate::bench) struct Load {
    /// Which way.
    pub(in crate::bench) way: Way,
    /// How many flows.
    pub(in crate::bench) flows: u32,
    /// The first of many /26 and their number, where the packets from the container go to all of them.
    pub(in crate::bench) spread: Option<(Ipv4Addr, u32)>,
}

impl Load {
    /// The usual flows.
    pub(super) fn of(way: Way) -> Self {
        Self { way, flows: FLOWS, spread: None }
    }

    /// Frames before all measurements: every flow twice, so that connection tracking knows it.
    fn introduction(self) -> u32 {
        2 * self.warm_up()
    }

    /// Frames before each measurement: every flow once, so that caches are as they stay.
    fn warm_up(self) -> u32 {
        self.flows.max(LEAST_WARM_UP)
    }
}

/// A generator, and the sink where its packets come out of what is between.
pub(in crate::bench) struct Lane<'a> {
    pub(super) name: String,
    pub(super) generator: Generator<'a>,
    pub(super) sink: Sink<'a>,
    /// Frames before each measurement.
    pub(super) warm_up: u32,
}

impl<'a> Lane<'a> {
    /// Through the site's node.
    pub(in crate::bench) fn through(
        bench: &Bench,
        load: Load,
        fabric: &'a Fabric,
        site: &'a Site,
    ) -> Result<Self> {
        let Load { way, flows, spread } = load;
        let introduction = load.introduction();
        site.know_neighbour(&address(SENDERS), SENDER_MAC)?;
        site.know_neighbour(GATEWAY, SENDER_MAC)?;
        let port = port_of(fabric, &site.node)?;
        take_redirected(&site.node, "eth0")?;
        take_redirected(&site.node, &site.container.interface)?;
        let mut inbound = Generator::new(&bench.object, fabric, &port, bench.cpu)?;
        inbound.aim(&inbound_flows([SENDER_MAC, site.node.mac("eth0")?], site, flows))?;
        let mut outbound = Generator::new(&bench.object, &site.container, "eth0", bench.cpu)?;
        let to = if way == Way::Masquerade { OUTSIDE } else { SENDER };
        let outbound_flows = outbound_flows([site.container.mac("eth0")?, HOST_MAC], site, to, flows);
        outbound.aim(&Flows { spread, ..outbound_flows })?;
        // Connections that were answered, as nearly all that a node carries are: connection tracking does
        // more for others, and rules accept these first.
        let (generator, sink) = match way {
            Way::Deliver => {
                let sink = Sink::in_raw_table(&site.container)?;
                inbound.run(introduction)?;
                outbound.run(introduction)?;
                await_carried(site, load, || {
                    outbound.run(load.flows)?;
                    inbound.run(load.flows).map(drop)
                })?;
                (inbound, sink)
            }
            Way::Egress => {
                outbound.run(introduction)?;
                inbound.run(introduction)?;
                (outbound, Sink::in_xdp(&bench.object, fabric, &port)?)
            }
            Way::Masquerade => {
                let _unheard = Sink::in_raw_table(&site.container)?;
                let macs = [SENDER_MAC, site.node.mac("eth0")?];
                inbound.aim(&replies(macs, site.node.address.octets(), flows))?;
                outbound.run(introduction)?;
                inbound.run(introduction)?;
                await_carried(site, load, || {
                    outbound.run(load.flows)?;
                    inbound.run(load.flows).map(drop)
                })?;
                (outbound, Sink::in_xdp(&bench.object, fabric, &port)?)
            }
        };
        Ok(Self { name: site.path.name().to_owned(), generator, sink, warm_up: load.warm_up() })
    }

    /// Straight into the sink.
    pub(in crate::bench) fn direct(
        bench: &Bench,
        load: Load,
        fabric: &'a Fabric,
        site: &'a Site,
    ) -> Result<Self> {
        let Load { way, flows, spread } = load;
        let (generator, sink) = match way {
            Way::Deliver => {
                take_redirected(&site.container, "eth0")?;
                let interface = &site.container.interface;
                let mut generator = Generator::new(&bench.object, &site.node, interface, bench.cpu)?;
                generator.aim(&inbound_flows([HOST_MAC, site.container.mac("eth0")?], site, flows))?;
                (generator, Sink::in_raw_table(&site.container)?)
            }
            Way::Egress | Way::Masquerade => {
                let port = port_of(fabric, &site.node)?;
                let sink = Sink::in_xdp(&bench.object, fabric, &port)?;
                let mut generator = Generator::new(&bench.object, &site.node, "eth0", bench.cpu)?;
                let flows = outbound_flows([site.node.mac("eth0")?, SENDER_MAC], site, SENDER, flows);
                generator.aim(&Flows { spread, ..flows })?;
                (generator, sink)
            }
        };
        Ok(Self { name: "direct".to_owned(), generator, sink, warm_up: load.warm_up() })
    }

    /// Packets that arrive in a second.
    pub(in crate::bench) fn rate(&self, time: Duration) -> Result<f64> {
        interrupt::check()?;
        // The generator keeps all others from the CPU: who waited has its turn now, and not in between.
        thread::sleep(BREAK);
        let warm_up = self.generator.run(self.warm_up)?;
        let expected = f64::from(self.warm_up) / warm_up.elapsed.as_secs_f64();
        let before = self.sink.count()?;
        let run = self.generator.run((expected * time.as_secs_f64()) as u32 + 1)?;
        let arrived = self.sink.count()? - before;
        ensure!(
            arrived as f64 >= 0.95 * f64::from(run.sent),
            "of {} packets only {arrived} came out of {}: a rate of the rest would mean nothing",
            run.sent,
            self.name
        );
        Ok(arrived as f64 / run.elapsed.as_secs_f64())
    }
}

/// Where the kernel decides, lets every flow go on until nearly all are carried: connection tracking holds datagrams for a
/// connection that lasts when they have gone both ways for two seconds (`nf_conntrack_udp_packet()`).
fn await_carried(site: &Site, load: Load, traffic: impl Fn() -> Result<()>) -> Result<()> {
    if site.path != Path::Respect {
        return Ok(());
    }
    eventually(CARRIED_LIMIT, || {
        interrupt::check()?;
        traffic()?;
        thread::sleep(BREAK);
        let stats = site.ask(&["flow", "stats"])?.context("no daemon")?;
        let carried = stats["respect"]["carried"].as_u64().context("flow stats without respect")?;
        ensure!(
            carried * 100 >= u64::from(load.flows) * 99,
            "{carried} of {} flows are carried: {stats}",
            load.flows
        );
        Ok(())
    })
}

fn inbound_flows(macs: [[u8; 6]; 2], site: &Site, flows: u32) -> Flows {
    let addresses = [SENDER, site.container.address.octets()];
    Flows { macs, addresses, vary: Vary::Source, flows, spread: None }
}

/// What the outside answers to packets that left by MASQUERADE with that address: every path keeps the source port, since each
/// flow has a remote end of its own.
pub(super) fn replies(macs: [[u8; 6]; 2], to: [u8; 4], flows: u32) -> Flows {
    Flows { macs, addresses: [OUTSIDE, to], vary: Vary::Source, flows, spread: None }
}

/// From the container to 256 addresses from that one on.
pub(in crate::bench) fn outbound_flows(macs: [[u8; 6]; 2], site: &Site, to: [u8; 4], flows: u32) -> Flows {
    let addresses = [site.container.address.octets(), to];
    Flows { macs, addresses, vary: Vary::Destination, flows, spread: None }
}
