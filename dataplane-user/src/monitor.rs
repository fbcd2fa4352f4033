//! `dataplane monitor`: packets that are dropped or left to the kernel, one line each, as it happens.
//!
//! It reads the pinned maps itself: the data path forwards and drops without a daemon, and that is when it is looked at.

mod packet;

use std::{
    io::{self, ErrorKind, Write as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use dataplane_common::{
    monitor::{Event, bit, bits},
    reason::{Class, Reason},
    stats::Hook,
};
use serde::Serialize;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use crate::kernel::{
    interface,
    monitor::{Listener, Wanted, since_start},
    pinned::Pinned,
};
pub use packet::Summary;

/// How often the lease is renewed, and told what was not shown: twice in a period.
const RENEWAL: Duration = Duration::from_millis(500);

/// Events that are written at a time; signals and the renewal have their turn in between.
const BATCH: usize = 256;

/// What is to be shown.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Drops alone.
    pub drops: bool,
    /// These reasons; all of the classes if there are none.
    pub reasons: Vec<Reason>,
    /// Packets that came in by this interface.
    pub interface: Option<String>,
    /// IPv4 packets from or to this address.
    pub address: Option<Ipv4Addr>,
    /// Events for each reason, on each CPU, in about a second.
    pub limit: u32,
    /// Where the maps are pinned; else where the daemon of the state directory had them.
    pub bpf_dir: Option<PathBuf>,
}

/// A line of `dataplane monitor --json`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Line {
    /// A packet.
    Packet {
        /// When, as RFC 3339 writes it.
        time: String,
        /// `drop` or `pass`.
        class: &'static str,
        /// The reason's name.
        reason: String,
        /// The hook.
        hook: String,
        /// The interface that it came in by.
        interface: String,
        /// Length of the frame; of an aggregate, that of the whole.
        length_bytes: u32,
        /// Payload of each segment of an aggregate; 0 for a single packet.
        segment_bytes: u32,
        /// What it carries.
        #[serde(flatten)]
        packet: Summary,
    },
    /// Packets that were not shown.
    Suppressed {
        /// When this was found.
        time: String,
        /// `drop` or `pass`.
        class: &'static str,
        /// The reason's name.
        reason: &'static str,
        /// How many since the last such line.
        packets: u64,
    },
}

/// Shows packets until a signal ends it, or nobody reads any more.
///
/// # Errors
///
/// Where no data path is found, it goes away, or as many monitors as can are listening.
pub async fn run(options: &Options, state_dir: &Path, json: bool) -> Result<()> {
    let listener = Listener::new(&Pinned::find(options.bpf_dir.as_deref(), state_dir)?, &wanted(options)?)?;
    // SAFETY: the descriptor is the ring buffer's, which the listener keeps as long as it lives.
    let mut listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut renewal = tokio::time::interval(RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    eprintln!(
        "listening; at most {} a second are shown for each reason and CPU (Ctrl-C ends)",
        options.limit
    );
    loop {
        let lines = tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = renewal.tick() => {
                let listener = listener.get_mut();
                listener.renew()?;
                suppressed(listener)?
            }
            ready = listener.readable_mut() => {
                let mut ready = ready.context("cannot wait for events")?;
                let listener = ready.get_inner_mut();
                let events: Vec<Event> = listener.take(BATCH).collect();
                if events.len() < BATCH {
                    ready.clear_ready();
                }
                let clock = Clock::read();
                events.iter().map(|event| shown(event, clock)).collect()
            }
        };
        if !write(&lines, json).context("cannot write")? {
            return Ok(());
        }
    }
}

fn wanted(options: &Options) -> Result<Wanted> {
    let reasons = if options.reasons.is_empty() {
        bits(Class::Drop) | if options.drops { 0 } else { bits(Class::Pass) }
    } else {
        options.reasons.iter().fold(0, |all, reason| all | bit(*reason as u32))
    };
    let ifindex = options.interface.as_deref().map(interface::index).transpose()?;
    Ok(Wanted { reasons, ifindex, address: options.address, limit: options.limit })
}

fn shown(event: &Event, clock: Clock) -> Line {
    let reason = Reason::from_number(event.reason);
    let hook = Hook::ALL.get(event.hook as usize);
    let captured = event.bytes.get(..event.captured as usize).unwrap_or(&event.bytes);
    Line::Packet {
        time: clock.time(Duration::from_nanos(event.time)),
        class: reason.map_or("?", |reason| reason.class().name()),
        reason: reason.map_or_else(|| format!("#{}", event.reason), |reason| reason.name().to_owned()),
        hook: hook.map_or_else(|| format!("#{}", event.hook), |hook| hook.name().to_owned()),
        interface: interface::name(event.ifindex),
        length_bytes: event.length,
        segment_bytes: event.segment,
        packet: Summary::of(captured),
    }
}

fn suppressed(listener: &mut Listener) -> Result<Vec<Line>> {
    let clock = Clock::read();
    let lines = listener.suppressed()?.into_iter().map(|(reason, packets)| Line::Suppressed {
        time: clock.time(clock.since_start),
        class: reason.class().name(),
        reason: reason.name(),
        packets,
    });
    Ok(lines.collect())
}

/// The time of day, and since the start of the machine: read once for the events of a batch, so that their order shows.
#[derive(Clone, Copy)]
struct Clock {
    since_start: Duration,
    time_of_day: SystemTime,
}

impl Clock {
    fn read() -> Self {
        Self { since_start: since_start(), time_of_day: SystemTime::now() }
    }

    /// A moment since the start of the machine, as a time of day.
    fn time(&self, moment: Duration) -> String {
        let ago = self.since_start.saturating_sub(moment);
        humantime::format_rfc3339_micros(self.time_of_day - ago).to_string()
    }
}

/// Writes the lines; says whether anybody reads them.
fn write(lines: &[Line], json: bool) -> Result<bool> {
    let mut text = String::new();
    for line in lines {
        text += &if json { serde_json::to_string(line)? } else { line.text() };
        text.push('\n');
    }
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Packet { time, class, reason, hook, interface, length_bytes, segment_bytes, packet } => {
                let segments = match segment_bytes {
                    0 => String::new(),
                    bytes => format!(", segments of {bytes}"),
                };
                format!(
                    "{time} {class} {reason} {hook} {interface} {}, {length_bytes} bytes{segments}",
                    packet.text()
                )
            }
            Self::Suppressed { time, class, reason, packets } => {
                format!("{time} {class} {reason} {packets} more, not shown")
            }
        }
    }
}
