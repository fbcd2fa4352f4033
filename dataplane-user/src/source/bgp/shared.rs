//! What the tasks of the speaker share. They run on one thread: nothing is held while one waits.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::Ipv4Net;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    table::{PeerId, Table},
    wire::{GracefulRestart, Open},
};

/// Changes that may wait for the daemon before no more UPDATEs are read: TCP then slows the peers down.
const PENDING: usize = 64 * 1024;

/// Times that no key of the configuration gives. The tests have others.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a connection may take to come about.
    pub dial: Duration,
    /// How long a peer may take to send its OPEN; "a large value" (RFC 4271 section 8.2.2).
    pub open: Duration,
    /// How long a failed peer is left alone the first time. It doubles with each failure, up to `retry_limit`.
    pub retry: Duration,
    /// The longest that a failed peer is left alone.
    pub retry_limit: Duration,
    /// How long a peer is left alone that exceeded `max-prefixes`. It doubles each time, up to `excess_limit`.
    pub excess: Duration,
    /// The longest that such a peer is left alone.
    pub excess_limit: Duration,
    /// How long a session goes on beside another connection over which the peer has sent an OPEN. A peer that did not
    /// restart closes one of the two by then.
    pub takeover: Duration,
    /// How long TCP may take nothing of what there is to send; twice the hold time where that is more (RFC 9687).
    pub send_hold: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            open: Duration::from_secs(240),
            retry: Duration::from_secs(1),
            retry_limit: Duration::from_secs(30),
            excess: Duration::from_secs(300),
            excess_limit: Duration::from_secs(3600),
            takeover: Duration::from_secs(1),
            send_hold: Duration::from_secs(480),
        }
    }
}

/// What the speaker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Our autonomous system.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Where connections are made from; `None` leaves it to the kernel.
    pub address: Option<Ipv4Addr>,
    /// The next hop of what is announced; `None` for our address at the connection.
    pub next_hop: Option<Ipv4Addr>,
    /// How long peers are to keep our routes while we restart; 0 for not at all.
    pub restart_seconds: u16,
}

/// Our own restart (RFC 4724 section 4.1): routes of the run before are kept until the peers have told all.
#[derive(Debug)]
struct Restart {
    /// Peers that have not told all yet.
    waiting: BTreeSet<PeerId>,
    /// Until when they are waited for.
    deadline: Instant,
}

/// The state of the speaker.
#[derive(Debug)]
pub struct Shared {
    /// What the speaker says of itself.
    pub local: Cell<Local>,
    /// What the peers said.
    pub table: RefCell<Table>,
    /// The table may have changes, or the restart be over.
    pub news: Notify,
    /// Changes were taken.
    pub room: Notify,
    /// What is announced to every peer; `None` until the daemon has said it for the first time.
    pub announced: watch::Sender<Option<BTreeSet<Ipv4Net>>>,
    /// Counts the changes of `announced`.
    pub version: Cell<u64>,
    /// A session has handed its peer what is announced.
    pub told: Notify,
    /// Times.
    pub timing: Timing,
    /// The data path kept forwarding since an earlier run.
    preserved: bool,
    /// The daemon has told what the node has and reaches: before, every route looks unusable.
    pub informed: Cell<bool>,
    restart: RefCell<Option<Restart>>,
}

impl Shared {
    /// The state at the start. `preserved`: the data path holds what an earlier run learned.
    pub fn new(local: Local, table: Table, timing: Timing, preserved: bool) -> Self {
        let deadline = Instant::now() + Duration::from_secs(local.restart_seconds.into());
        let restart = preserved.then_some(Restart { waiting: BTreeSet::new(), deadline });
        Self {
            local: Cell::new(local),
            table: RefCell::new(table),
            news: Notify::new(),
            room: Notify::new(),
            announced: watch::Sender::default(),
            version: Cell::new(0),
            told: Notify::new(),
            timing,
            preserved,
            informed: Cell::new(false),
            restart: RefCell::new(restart),
        }
    }

    /// Our OPEN to a peer; `again`: it had a session with this run, since which the data path went on.
    pub fn open(&self, hold_seconds: u16, again: bool) -> Open {
        let local = self.local.get();
        let restart = GracefulRestart {
            restarting: self.restarting(),
            seconds: local.restart_seconds,
            ipv4: Some(self.preserved || again),
        };
        Open {
            asn: local.asn,
            hold_seconds,
            identifier: local.router_id,
            four_octets: true,
            ipv4: true,
            ipv6: true,
            route_refresh: true,
            graceful_restart: (local.restart_seconds != 0).then_some(restart),
        }
    }

    /// Whether so much waits for the daemon that no more is to be read.
    pub fn is_full(&self) -> bool {
        self.table.borrow().pending() >= PENDING
    }

    /// Whether the peers have not told all yet since we restarted.
    pub fn restarting(&self) -> bool {
        self.restart.borrow().is_some()
    }

    /// A peer of whom everything is still to come.
    pub fn await_peer(&self, peer: PeerId) {
        if let Some(restart) = &mut *self.restart.borrow_mut() {
            restart.waiting.insert(peer);
        }
    }

    /// A peer has told all, or will not any more.
    pub fn heard_all_of(&self, peer: PeerId) {
        if let Some(restart) = &mut *self.restart.borrow_mut() {
            restart.waiting.remove(&peer);
        }
        self.news.notify_one();
    }

    /// Notes that the restart is over, if it is; true exactly once.
    pub fn end_restart(&self) -> bool {
        let over = self.restart.borrow().as_ref().is_some_and(|restart| {
            restart.waiting.is_empty() && self.informed.get() || restart.deadline <= Instant::now()
        });
        if over {
            *self.restart.borrow_mut() = None;
        }
        over
    }

    /// Until when the restart lasts at most.
    pub fn restart_deadline(&self) -> Option<Instant> {
        self.restart.borrow().as_ref().map(|restart| restart.deadline)
    }
}
