//! `dataplane trace`: the loaded programs, run on a described packet, telling their steps.
//!
//! A second copy of the programs is loaded with recording switched on. It shares the pinned tables with
//! the attached ones and is made from the same code, so it decides as they do; it counts nothing, and a
//! redirect under `BPF_PROG_TEST_RUN` goes nowhere.

mod frame;
mod words;

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, MapData},
};
use bytemuck::Zeroable as _;
use dataplane_common::{
    flow::state::flags,
    names::MAP_TRACE_LOG,
    net::MacAddr,
    reason::{Class, Reason},
    stats::Hook,
    trace::{Step, StepCode, TRACE_STEPS, TraceLog},
};
use serde::{Deserialize, Serialize};

use crate::{
    control::answers,
    kernel::object::{self, Program, Purpose, Sizes},
};

pub use words::Namer;

/// A packet to be traced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// The interface that it comes in by.
    pub interface: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Source address.
    pub source: Ipv4Addr,
    /// Source port of UDP and TCP; the identifier of ICMP echo.
    pub source_port: u16,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port of UDP and TCP.
    pub destination_port: u16,
    /// Flags of TCP.
    pub tcp_flags: Vec<TcpFlag>,
}

/// Protocols of a traced packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// An ICMP echo request.
    Icmp,
    /// A TCP segment; a SYN where no flags are given.
    Tcp,
    /// A UDP datagram.
    Udp,
}

/// Flags of a traced TCP segment (RFC 9293, section 3.1), by the bit that each has in the header.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
#[value(rename_all = "UPPER")]
pub enum TcpFlag {
    /// No more data from the sender.
    Fin = flags::FIN,
    /// Opens a connection.
    Syn = flags::SYN,
    /// Ends a connection at once.
    Rst = flags::RST,
    /// Data is to be delivered at once.
    Psh = 0x08,
    /// The acknowledgement number is valid.
    Ack = flags::ACK,
    /// The urgent pointer is valid.
    Urg = 0x20,
    /// Echo of a congestion mark (RFC 3168).
    Ece = 0x40,
    /// Congestion window reduced (RFC 3168).
    Cwr = 0x80,
}

/// Where a probe comes in.
pub struct Entrance {
    /// The hooks that a packet comes to, in order, as long as each lets it pass.
    pub hooks: Vec<Hook>,
    /// The interface's index.
    pub ifindex: u32,
    /// The interface's own MAC.
    pub mac: MacAddr,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Log(TraceLog);

// SAFETY: transparent over a type that is plain old data already.
unsafe impl aya::Pod for Log {}

/// Runs the hook's program on the packet, with the maps pinned in `maps`, all of which are there.
///
/// # Errors
///
/// Where the programs cannot be loaded or run, or leave no verdict.
pub fn run(
    maps: &Path,
    sizes: Sizes,
    probe: &Probe,
    entrance: &Entrance,
    namer: &Namer<'_>,
) -> Result<answers::Trace> {
    let mut object = object::load(maps, sizes, Purpose::Trace)?;
    let log = object.take_map(MAP_TRACE_LOG).context("no trace log in the BPF object")?;
    let mut log: Array<MapData, Log> = Array::try_from(log)?;
    let frame = frame::build(probe, entrance.mac);

    let mut story = Vec::new();
    let mut hooks = entrance.hooks.iter().peekable();
    while let Some(&hook) = hooks.next() {
        log.set(0, Log(TraceLog::zeroed()), 0)?;
        put(&mut object, hook, entrance.ifindex, &frame).context("BPF_PROG_TEST_RUN failed")?;
        let Log(log) = log.get(&0, 0)?;
        let (steps, verdict) = read(&log)?;
        story.extend(steps.iter().filter_map(|step| narrate(step, namer)));
        if verdict.class() == Class::Pass && hooks.peek().is_some() {
            let text = format!("{} leaves it to tc ({}): {}", hook.name(), verdict.name(), verdict.text());
            story.push(answers::TraceStep { step: "xdp".to_owned(), text });
            continue;
        }
        return Ok(answers::Trace {
            hook: hook.name().to_owned(),
            interface: probe.interface.clone(),
            steps: story,
            verdict: verdict.class().name().to_owned(),
            reason: verdict.name().to_owned(),
            text: namer.verdict(verdict, &steps),
            flow: flow_of(&steps, namer),
        });
    }
    bail!("no program at {}", probe.interface)
}

/// Runs the hook's program on the frame.
fn put(object: &mut Ebpf, hook: Hook, ifindex: u32, frame: &[u8]) -> Result<()> {
    if hook == Hook::XdpFromUplink {
        let context = frame::xdp_context(ifindex, frame.len());
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::new() };
        object::xdp(object)?.test_run(options)?;
    } else {
        let context = frame::context(ifindex);
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::new() };
        object::classifier(object, Program::Walk(hook))?.test_run(options)?;
    }
    Ok(())
}

/// The steps of a walk, and how it ended.
fn read(log: &TraceLog) -> Result<(Vec<Step>, Reason)> {
    let mut steps = log.steps[..(log.count as usize).min(TRACE_STEPS)].to_vec();
    // A program that goes on with a packet begins at its beginning: what it finds once more is told once.
    let mut told = Vec::new();
    steps.retain(|step| {
        !told.contains(step) && {
            told.push(*step);
            true
        }
    });
    let verdict = steps
        .last()
        .filter(|step| StepCode::from_number(step.code) == Some(StepCode::Verdict))
        .and_then(|step| Reason::from_number(step.words[0]))
        .ok_or_else(|| anyhow!("the program left no verdict: a fault of the data path, please report it"))?;
    Ok((steps, verdict))
}

/// The flow that the packet was found to belong to last.
fn flow_of(steps: &[Step], namer: &Namer<'_>) -> Option<answers::TraceFlow> {
    let step = steps.iter().rev().find(|step| step.code == StepCode::Flow as u32)?;
    let flow = (namer.flow)(step.words[0])?;
    Some(answers::TraceFlow { direction: words::direction(step.words[2]), flow })
}

fn narrate(step: &Step, namer: &Namer<'_>) -> Option<answers::TraceStep> {
    let code = StepCode::from_number(step.code)?;
    let (step, text) = namer.step(code, step.words)?;
    Some(answers::TraceStep { step: step.to_owned(), text })
}
