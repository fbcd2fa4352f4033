//! The thread that hands connections over and keeps them fresh.

mod look;
mod take;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use dataplane_common::{
    flow::{
        offer::{Ends, Offer, Verb},
        record::ticks,
        tuple::protocol,
    },
    net::Ipv4Be,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::{Cause, Settings, Shared};
use crate::kernel::{
    flows::FlowTable,
    netlink::conntrack::{Conntrack, Destroyed, Entry, Tuple},
    offers::Offers,
    pinned::Pinned,
};

/// Between two looks at what was named: a burst costs one look, and a connection is carried soon enough.
const GATHER: Duration = Duration::from_millis(10);
/// How often a carried connection is looked at: whether it is still in use, and whether its entry is still fresh.
const PERIOD: u32 = 10;
/// After so many looks in a row without a packet, a connection is the kernel's again: what is silent costs nothing.
const SILENT_LOOKS: u8 = 6;
/// Connections that are looked at in one go.
const AT_ONCE: usize = 1 << 14;
/// Left connections that are remembered, so that each is not asked about with every sample.
const REMEMBERED: usize = 1 << 14;
/// How long one is that may be established any moment.
const SHORTLY: Duration = Duration::from_millis(100);
/// How long others are.
const FOR_A_WHILE: Duration = Duration::from_secs(5);
/// How long nothing is asked about after more ended at once than could be heard of.
const SETTLE: Duration = Duration::from_secs(1);
/// How long nothing is tried after a fault.
const PAUSE: Duration = Duration::from_secs(5);

/// A connection that BPF carries.
struct Carried {
    reply: Tuple,
    /// Packets that BPF has carried, as of the last look.
    packets: u64,
    /// The packets at which its entry was fresh.
    fresh_packets: u64,
    /// Full timeout of its entry, in seconds.
    timeout: u32,
    /// When it is looked at next, in seconds since the thread began.
    due: u32,
    /// Looks in a row at which it was silent.
    silent: u8,
}

/// The sockets; opened again after a fault.
struct Sockets {
    conntrack: Conntrack,
    destroyed: Destroyed,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    seen: RingBuf<MapData>,
    offers: Offers,
    pinned: Pinned,
    /// The settings that hold for what is carried.
    settings: Settings,
    timeouts: Timeouts,
    /// Whether IPVS has services, and until when that is not looked at again.
    ipvs: (bool, Instant),
    began: Instant,
    carried: HashMap<Tuple, Carried>,
    /// Original tuples by when they are looked at. One whose connection says otherwise is out of date.
    due: VecDeque<(u32, Tuple)>,
    /// Until when a connection is not asked about again.
    left: HashMap<Tuple, Instant>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, seen: RingBuf<MapData>, offers: Offers, pinned: Pinned) -> Self {
        Self {
            shared,
            seen,
            offers,
            pinned,
            settings: Settings::default(),
            timeouts: Timeouts::default(),
            ipvs: (false, Instant::now()),
            began: Instant::now(),
            carried: HashMap::new(),
            due: VecDeque::new(),
            left: HashMap::new(),
        }
    }

    /// Works until the process ends.
    pub(super) fn run(mut self) {
        loop {
            let Err(error) = self.work() else { continue };
            let failure = format!(
                "no connection is carried (`netfilter = \"respect\"`), the kernel forwards all: {error:#}; load the module \
                 nf_conntrack_netlink if it is missing; the daemon tries again every {} s",
                PAUSE.as_secs()
            );
            warn!("{failure}");
            self.shared.report().failure = Some(failure);
            // Nobody hears of ends meanwhile.
            if let Err(error) = self.end_all() {
                warn!("carried connections go on until their lease ends: {error:#}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Until a fault.
    fn work(&mut self) -> Result<()> {
        let mut sockets = Sockets { conntrack: Conntrack::open()?, destroyed: Destroyed::listen()? };
        // Says at once whether it may ask.
        sockets.conntrack.lookup(&[NOBODY])?;
        self.timeouts = Timeouts::read();
        self.settings = Settings::default();
        self.shared.report().failure = None;
        self.end_all()?;
        loop {
            self.wait(sockets.destroyed.fd())?;
            let mut settings = self.shared.settings().clone();
            if settings.paused.is_none() && self.has_ipvs() {
                settings.paused = Some(IPVS.to_owned());
            }
            if settings != self.settings {
                // What was carried by the ones before may not be by these.
                self.end_all()?;
                self.shared.report().failure = settings.paused.clone();
                self.settings.clone_from(&settings);
            }
            self.end_destroyed(&mut sockets.destroyed)?;
            let named = self.named();
            if settings.paused.is_some() {
                self.count(Cause::Paused, named.len());
            } else {
                self.take(&mut sockets.conntrack, named, &settings)?;
            }
            self.look(&mut sockets.conntrack, &settings)?;
            self.shared.report().carried = self.carried.len() as u64;
            thread::sleep(GATHER);
        }
    }

    fn now(&self) -> u32 {
        self.began.elapsed().as_secs() as u32
    }

    /// Whether IPVS has services here: it has entries of its own, which end unless it sees packets, and take conntrack's along.
    fn has_ipvs(&mut self) -> bool {
        let now = Instant::now();
        if self.ipvs.1 <= now {
            let services = fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default();
            let is_service =
                |line: &str| ["TCP ", "UDP ", "SCTP ", "FWM "].iter().any(|kind| line.starts_with(kind));
            self.ipvs = (services.lines().any(is_service), now + FOR_A_WHILE);
        }
        self.ipvs.0
    }

    /// Waits until there is something to do.
    fn wait(&self, destroyed: BorrowedFd<'_>) -> Result<()> {
        // SAFETY: the ring's descriptor is open as long as `self` is.
        let seen = unsafe { BorrowedFd::borrow_raw(self.seen.as_raw_fd()) };
        let wake = self.shared.wake.as_fd();
        let mut fds = [seen, destroyed, wake].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let next = self.due.front().map(|(due, _)| Duration::from_secs((*due).into()));
        let timeout = next.map(|next| {
            let rest = next.saturating_sub(self.began.elapsed());
            Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(wake, &mut count);
        Ok(())
    }

    /// Has every packet be the kernel's again, and forgets everything: what is in use is named again.
    fn end_all(&mut self) -> Result<()> {
        FlowTable::open(&self.pinned)?.end(|_| true)?;
        self.carried.clear();
        self.due.clear();
        self.left.clear();
        Ok(())
    }

    fn count(&self, cause: Cause, connections: usize) {
        if connections > 0 {
            *self.shared.report().left.entry(cause).or_default() += connections as u64;
        }
    }

    /// Ends flows whose entries are gone.
    fn end_destroyed(&mut self, destroyed: &mut Destroyed) -> Result<()> {
        let (carried, mut ends) = (&mut self.carried, Vec::new());
        let is_whole = destroyed.drain(|original| {
            if let Some(connection) = carried.remove(&original) {
                ends.push(offer(Verb::End, original, connection.reply, 0));
            }
        })?;
        if !is_whole {
            info!(
                "conntrack events were lost: every carried connection is returned to the kernel, and looked up again if it is in use"
            );
            self.shared.report().resynchronized += 1;
            self.end_all()?;
            // Whoever ends so many is not through yet.
            thread::sleep(SETTLE);
            return Ok(());
        }
        self.shared.report().destroyed += ends.len() as u64;
        self.offers.hand_over(&mut ends)
    }

    /// The connections that programs named, each once; without those that were asked about a moment ago.
    fn named(&mut self) -> HashSet<Tuple> {
        let (mut named, now) = (HashSet::new(), Instant::now());
        while let Some(item) = self.seen.next() {
            let Ok(ends) = bytemuck::try_pod_read_unaligned::<Ends>(&item) else { continue };
            let tuple = ends.tuple();
            if self.left.get(&tuple).is_none_or(|until| *until <= now) {
                named.insert(tuple);
            }
        }
        named
    }

    /// Counts that the connection is not carried, and does not look it up for a while.
    fn leave(&mut self, tuple: Tuple, cause: Cause) {
        if self.left.len() >= REMEMBERED {
            self.left.clear();
        }
        // It may be established any moment.
        let is_opening = matches!(cause, Cause::NotAssured | Cause::NotTracked);
        self.left.insert(tuple, Instant::now() + if is_opening { SHORTLY } else { FOR_A_WHILE });
        self.count(cause, 1);
    }
}

/// Why nothing is carried where IPVS has services.
const IPVS: &str = "IPVS has services (kube-proxy's mode `ipvs`), whose own entries expire unless it sees every packet: no \
                    connection is carried";

/// Timeouts of connection tracking, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Timeouts {
    /// Of TCP established.
    established: u32,
    /// The longest of those that replace it for a while: data is not acknowledged, or is sent again and again.
    interim: u32,
}

impl Timeouts {
    /// Those of this network namespace.
    fn read() -> Self {
        let read = |name: &str| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{name}");
            fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
        };
        Self { established: read("established"), interim: read("unacknowledged").max(read("max_retrans")) }
    }

    /// What an entry's timeout is when a packet has come, as far as what remains of it tells.
    fn full(&self, entry: &Entry) -> u32 {
        let is_interim = entry.original.protocol == protocol::TCP && entry.timeout <= self.interim;
        if is_interim { self.established.max(entry.timeout) } else { entry.timeout }
    }
}

/// A connection that nobody has: addresses of documentation (RFC 5737), and the discard port.
const NOBODY: Tuple = Tuple {
    source: Ipv4Be::from_host(0xc000_0201),
    destination: Ipv4Be::from_host(0xc000_0202),
    source_port: 9,
    destination_port: 9,
    protocol: protocol::UDP,
};

fn offer(verb: Verb, original: Tuple, reply: Tuple, seconds: u32) -> Offer {
    let lease = ticks(seconds);
    Offer { original: original.into(), reply: reply.into(), lease, verb: verb as u16, outcome: 0, packets: 0 }
}
