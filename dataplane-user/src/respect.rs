//! `netfilter = "respect"`: the kernel decides about each connection, and BPF carries it from when it is established.
//!
//! Programs name some of the connections whose packets they leave to the kernel, by a sample. A thread looks these up in the
//! kernel's connection tracking, hands the established ones over as flows with whatever translation the kernel gave them, and
//! keeps their entries fresh. A flow is on lease: without the thread, its packets are the kernel's again after [`LEASE`].
//!
//! Connections are sampled, and not followed by conntrack's events, of which each costs the kernel's path a message: what is over
//! after some packets is hardly ever named and costs nothing, entries that are older than the daemon are found as well as new
//! ones, and what was lost or missed is named again by a later packet. So there is one way back from every fault: to end all
//! flows that the kernel decided, and begin anew.

mod judge;
pub mod rules;
mod worker;

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::RingBuf};
use dataplane_common::{flow::record::flags, names::MAP_FLOW_SEEN};
use rustix::event::{EventfdFlags, eventfd};

pub use judge::{Cause, Settings};

use crate::{
    control::answers,
    kernel::{flows::FlowTable, offers::Offers, pinned::Pinned},
};
use worker::Worker;

/// How long BPF carries a connection without hearing from the daemon.
pub const LEASE: Duration = Duration::from_secs(30);

/// Where the kernel counts the entries of connection tracking of this namespace.
const ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// What the thread did, and how it stands.
#[derive(Clone, Debug, Default)]
struct Report {
    carried: u64,
    offered: u64,
    renewed: u64,
    refreshed: u64,
    destroyed: u64,
    resynchronized: u64,
    left: BTreeMap<Cause, u64>,
    /// What keeps it from working.
    failure: Option<String>,
}

/// What daemon and thread share.
#[derive(Debug)]
struct Shared {
    settings: Mutex<Settings>,
    report: Mutex<Report>,
    /// Readable when the settings are others.
    wake: OwnedFd,
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The daemon's side.
#[derive(Debug)]
pub struct Respect {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Respect {
    /// Starts the thread for the programs of that object, whose maps are pinned there.
    ///
    /// # Errors
    ///
    /// Where the object was not built from this source tree, or the kernel refuses a descriptor or the thread.
    pub fn start(object: &mut Ebpf, pinned: Pinned, settings: Settings) -> Result<Self> {
        let seen = object.take_map(MAP_FLOW_SEEN);
        let seen =
            RingBuf::try_from(seen.with_context(|| format!("no map {MAP_FLOW_SEEN} in the BPF object"))?)?;
        let offers = Offers::open(object, pinned.directory())?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { settings: Mutex::new(settings), report: Mutex::default(), wake });
        let worker = Worker::new(Arc::clone(&shared), seen, offers, pinned);
        let thread = thread::Builder::new()
            .name("respect".to_owned())
            .spawn(move || worker.run())
            .context("cannot start a thread")?;
        Ok(Self { shared, thread })
    }

    /// Lets these hold from now on.
    pub fn set(&self, settings: Settings) {
        let mut current = self.shared.settings();
        if *current != settings {
            *current = settings;
            // A full counter is readable as well.
            let _ = rustix::io::write(self.shared.wake.as_fd(), &1_u64.to_ne_bytes());
        }
    }

    /// What keeps connections from being carried.
    pub fn complaint(&self) -> Option<String> {
        if self.thread.is_finished() {
            return Some("the thread that looks connections up has ended, and no connection is carried: restart the daemon".to_owned());
        }
        let paused = self.shared.settings().paused.clone();
        paused.or_else(|| self.shared.report().failure.clone())
    }

    /// How it stands.
    pub fn status(&self) -> answers::Respect {
        let report = self.shared.report().clone();
        let causes = Cause::ALL
            .iter()
            .map(|cause| (cause.name().to_owned(), report.left.get(cause).copied().unwrap_or_default()));
        answers::Respect {
            tracked: fs::read_to_string(ENTRIES).ok().and_then(|text| text.trim().parse().ok()),
            carried: report.carried,
            offered: report.offered,
            renewed: report.renewed,
            refreshed: report.refreshed,
            destroyed: report.destroyed,
            resynchronized: report.resynchronized,
            left: causes.collect(),
            every_packet: Vec::new(),
        }
    }
}

/// Ends the flows that a daemon left which decided otherwise, or which knows nothing of them any more: with `respect` all, else
/// those that the kernel decided. Their packets are the kernel's, or begin flows anew.
///
/// # Errors
///
/// Where the table cannot be mapped.
pub fn end_leftovers(pinned: &Pinned, respect: bool) -> Result<u64> {
    let table = FlowTable::open(pinned)?;
    table.end(|flow| respect || flow.flags & flags::BY_KERNEL != 0)
}
