//! `dataplane flow list`, `flow stats`, `flow end`, and `nat list` and `nat stats`, which show the same for translations.

mod filter;
mod tally;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddrV4},
    ops::ControlFlow,
};

use anyhow::Result;
use dataplane_common::{
    family::V4,
    flow::{
        record::{flags, seconds},
        rule::Rule,
        tuple::{Tuple, protocol},
    },
    ports::{ROW_TCP, ROW_UDP},
};
use serde::Serialize;

pub use self::filter::{By, Filter};
use self::tally::Tally;
use super::output::Output;
use crate::{
    commands,
    control::{
        Request,
        answers::{FlowEnd, FlowEntry, FlowStats, FlowTuple, Translation},
        client::Client,
    },
    kernel::{
        flow_ports::FlowPorts,
        flows::{FlowTable, Snapshot},
        interface,
    },
    show,
};

/// Prints the flows that the filter lets through, at most `limit`.
///
/// # Errors
///
/// Where no data path of this version is pinned, or its tables cannot be read.
pub fn flow_list(client: &Client, json: bool, filter: &Filter, limit: Option<u64>) -> Result<()> {
    let table = FlowTable::open(&super::pinned(client)?)?;
    let mut list = List::new(json, show::flow::FLOWS);
    let mut names = Names { table: &table, interfaces: HashMap::new() };
    let mut left = limit.unwrap_or(u64::MAX);
    table.each(|flow, now| {
        if !filter.accepts(flow) {
            return Ok(ControlFlow::Continue(()));
        }
        if left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        left -= 1;
        list.entry(&names.entry(flow, now), show::flow::flow)
    })?;
    list.end("no flows\n")
}

/// Ends the flows that the filter lets through: the next packet of each is judged anew.
///
/// # Errors
///
/// Where no data path of this version is pinned, or its tables cannot be written.
pub fn flow_end(client: &Client, json: bool, filter: &Filter) -> Result<()> {
    let table = FlowTable::open(&super::pinned(client)?)?;
    let ended = table.end(|flow| filter.accepts(flow))?;
    commands::print(json, &FlowEnd { ended }, show::flow::end)
}

/// Prints how full the table is, and what became of flows that did not fit.
///
/// # Errors
///
/// As [`flow_list`].
pub fn flow_stats(client: &Client, json: bool) -> Result<()> {
    let pinned = super::pinned(client)?;
    let table = FlowTable::open(&pinned)?;
    let tally = Tally::of(&table, |_| true)?;
    let ports = FlowPorts::pinned(&pinned)?;
    let answer = FlowStats {
        table: tally.stats(&pinned, &table)?,
        by: tally.by.clone(),
        translated: tally.translated,
        usable_ports: [("tcp", ports.count(ROW_TCP)), ("udp", ports.count(ROW_UDP))].into(),
        // Only the daemon knows; the rest is told without one.
        respect: client.ask(&Request::Respect).ok().flatten(),
    };
    commands::print(json, &answer, show::flow::stats)
}

/// Prints the translations.
///
/// # Errors
///
/// As [`flow_list`].
pub fn nat_list(client: &Client, json: bool) -> Result<()> {
    let table = FlowTable::open(&super::pinned(client)?)?;
    let mut list = List::new(json, show::nat::TRANSLATIONS);
    table.each(|flow, now| match flow.is_translated() {
        true => list.entry(&translation(flow, now), show::nat::translation),
        false => Ok(ControlFlow::Continue(())),
    })?;
    list.end("no translations\n")
}

/// Prints how full the table is, of translations alone.
///
/// # Errors
///
/// As [`flow_list`].
pub fn nat_stats(client: &Client, json: bool) -> Result<()> {
    let pinned = super::pinned(client)?;
    let table = FlowTable::open(&pinned)?;
    let stats = Tally::of(&table, Snapshot::is_translated)?.stats(&pinned, &table)?;
    commands::print(json, &stats, show::nat::stats)
}

/// A list that begins with its first entry, since it says so where there is none.
struct List {
    json: bool,
    heading: &'static str,
    output: Option<Output>,
}

impl List {
    fn new(json: bool, heading: &'static str) -> Self {
        Self { json, heading, output: None }
    }

    fn entry<T: Serialize>(&mut self, entry: &T, text: impl Fn(&T) -> String) -> Result<ControlFlow<()>> {
        match &mut self.output {
            Some(output) => output.entry(entry, text),
            none => none.insert(Output::start(self.json, self.heading)?).entry(entry, text),
        }
    }

    fn end(self, none: &str) -> Result<()> {
        match self.output {
            Some(output) => output.end(),
            None => Output::start(self.json, none)?.end(),
        }
    }
}

/// The flow that lives in a record of the table.
///
/// # Errors
///
/// Where the table cannot be mapped.
pub(super) fn entry_at(table: &FlowTable, slot: u32) -> Result<Option<FlowEntry>> {
    let mut names = Names { table, interfaces: HashMap::new() };
    Ok(table.at(slot)?.map(|(flow, now)| names.entry(&flow, now)))
}

/// What numbers in a record stand for.
struct Names<'a> {
    table: &'a FlowTable,
    interfaces: HashMap<u32, String>,
}

impl Names<'_> {
    fn entry(&mut self, flow: &Snapshot, now: u32) -> FlowEntry {
        let interface = match flow.binding.ifindex() {
            0 => None,
            index => Some(self.interfaces.entry(index).or_insert_with(|| interface::name(index)).clone()),
        };
        let [original_packets, reply_packets] = flow.packets;
        let [original_bytes, reply_bytes] = flow.bytes;
        FlowEntry {
            protocol: protocol_name(flow.original.protocol),
            original: tuple(&flow.original),
            reply: tuple(&flow.reply),
            state: flow.life.state().name(),
            by: By::of(flow).map(By::name),
            snat: flow.flags & flags::SNAT != 0,
            dnat: flow.flags & flags::DNAT != 0,
            rule_source: self.rule(flow).map(source),
            interface,
            age_seconds: seconds(now.saturating_sub(flow.opened)),
            expires_seconds: seconds(flow.life.deadline().saturating_sub(now)),
            original_packets,
            original_bytes,
            reply_packets,
            reply_bytes,
        }
    }

    /// The rule of translation, as long as its number is one of the set that holds.
    fn rule(&self, flow: &Snapshot) -> Option<&Rule> {
        let holds = u32::from(flow.binding.epoch()) == self.table.settings().epoch;
        self.table.rules().get(usize::from(flow.binding.rule())).filter(|_| holds && flow.is_translated())
    }
}

/// `source` of a rule, as in the file.
fn source(rule: &Rule) -> String {
    let [address, mask]: [u32; 2] = bytemuck::cast(rule.source);
    format!("{}/{}", std::net::Ipv4Addr::from(u32::from_be(address)), mask.count_ones())
}

fn tuple(tuple: &Tuple<V4>) -> FlowTuple {
    FlowTuple {
        source: IpAddr::V4(tuple.source.into()),
        source_port: tuple.source_port,
        destination: IpAddr::V4(tuple.destination.into()),
        destination_port: tuple.destination_port,
    }
}

fn translation(flow: &Snapshot, now: u32) -> Translation {
    let (original, reply) = (&flow.original, &flow.reply);
    let ([bytes_out, bytes_in], [packets_out, packets_in]) = (flow.bytes, flow.packets);
    Translation {
        protocol: protocol_name(original.protocol).to_owned(),
        original: SocketAddrV4::new(original.source.into(), original.source_port),
        translated: SocketAddrV4::new(reply.destination.into(), reply.destination_port),
        remote: SocketAddrV4::new(original.destination.into(), original.destination_port),
        state: flow.life.state().name().to_owned(),
        age_seconds: seconds(now.saturating_sub(flow.opened)),
        expires_seconds: seconds(flow.life.deadline().saturating_sub(now)),
        bytes: bytes_out + bytes_in,
        bytes_out,
        bytes_in,
        packets_out,
        packets_in,
    }
}

fn protocol_name(number: u8) -> &'static str {
    match number {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        _ => "icmp",
    }
}
