//! An established session: routes come and go, and both sides hear of each other in time.

use std::{
    collections::{BTreeSet, HashSet},
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::{Peer, Up};
use crate::source::bgp::{
    attempt::{Attempt, Progress, progress},
    connection::{Connection, Writer},
    filter::Refusal,
    negotiation::Negotiated,
    quiet::Kind,
    status::{Fall, State},
    table::Table,
    wire::{self, EndOfRib, Message, Notification, Raw, Unreadable},
};

/// What a session keeps beside the table.
struct Session {
    negotiated: Negotiated,
    /// The next hop of what we announce.
    next_hop: Ipv4Addr,
    /// What the peer was told.
    sent: BTreeSet<Ipv4Net>,
    /// It was told that this was all.
    told_all: bool,
    /// It may not know all that it is to know.
    must_tell: bool,
    /// It asked for everything once more (RFC 2918).
    refresh: bool,
    /// It told us that this was all, or is taken to have.
    heard_all: bool,
    hold_until: Option<Instant>,
    keepalive_at: Option<Instant>,
    ipv6: HashSet<Ipv6Net>,
}

impl Session {
    fn new(negotiated: Negotiated, next_hop: Ipv4Addr) -> Self {
        Self {
            negotiated,
            next_hop,
            sent: BTreeSet::new(),
            told_all: negotiated.graceful_restart.is_none(),
            must_tell: true,
            refresh: false,
            heard_all: false,
            hold_until: None,
            keepalive_at: None,
            ipv6: HashSet::new(),
        }
    }

    fn alive(&mut self) {
        self.hold_until = self.negotiated.hold.map(|hold| Instant::now() + hold);
    }

    /// A third of the hold time (RFC 4271 section 4.4), less the jitter.
    fn plan_keepalive(&mut self) {
        let interval = self.negotiated.hold.map(|hold| super::Retry::jittered(hold / 3));
        self.keepalive_at = interval.map(|interval| Instant::now() + interval);
    }

    /// Writes the difference between what the peer was sent and what it is to have; after a ROUTE-REFRESH all of
    /// that, and what it is to forget as well: a withdrawal may have waited when the request came.
    fn advertise(&mut self, wanted: &BTreeSet<Ipv4Net>, asn: u32, mut push: impl FnMut(&[u8])) {
        if !self.negotiated.ipv4 {
            return;
        }
        let refresh = std::mem::take(&mut self.refresh);
        let gone: Vec<_> = self.sent.difference(wanted).copied().collect();
        let new: Vec<_> =
            wanted.iter().filter(|prefix| refresh || !self.sent.contains(prefix)).copied().collect();
        for message in wire::withdrawals(&gone) {
            push(&message);
        }
        for message in wire::announcements(&new, self.next_hop, asn, self.negotiated.encoding) {
            push(&message);
        }
        self.sent.clone_from(wanted);
        if !self.told_all {
            self.told_all = true;
            push(&wire::end_of_rib());
        }
    }
}

impl Peer {
    /// Holds a session until it falls: why it did, and the connection that takes its place, if there is one.
    /// `None`: the peer was removed.
    pub(super) async fn session(&mut self, up: Up) -> Option<(Fall, Option<Attempt>)> {
        let Up { connection, negotiated } = up;
        let mut session = self.begin(&connection, negotiated);
        let Connection { mut reader, mut writer, local, place } = connection;
        let send_hold = self.shared.timing.send_hold.max(2 * negotiated.hold.unwrap_or_default());
        let mut announced = self.shared.announced.subscribe();
        let mut replacement: Option<Attempt> = None;
        let mut takeover_at = None;
        // UPDATEs may have come together with the KEEPALIVE that established the session.
        let mut taken = self.take_all(&mut session, || reader.next());
        let fall = loop {
            if let Err(fall) = taken {
                break fall;
            }
            if writer.is_empty() {
                self.tell(&mut session, &mut writer, &mut announced);
            }
            let full = self.shared.is_full();
            let send_until = writer.waiting_since().map(|since| since + send_hold);
            let stale_until = self.status.borrow().stale_until;
            let hold_until = session.hold_until.filter(|_| !full);
            let wake = [hold_until, session.keepalive_at, send_until, stale_until, takeover_at];
            let wake = wake.into_iter().flatten().min();
            tokio::select! {
                told = self.stop.recv() => {
                    Connection { reader, writer, local, place }.close_with(told.unwrap_or(Notification::SHUTDOWN));
                    return None;
                }
                filled = reader.fill(), if !full => {
                    if let Err(error) = filled {
                        break Fall::Lost(error);
                    }
                    taken = self.take_all(&mut session, || reader.next());
                    // A peer that always has more to say must not keep the others waiting.
                    tokio::task::yield_now().await;
                }
                // What waited in the socket meanwhile counts as if it came now.
                () = self.shared.room.notified(), if full => session.alive(),
                flushed = writer.flush(), if !writer.is_empty() => {
                    if let Err(error) = flushed {
                        break Fall::Lost(error);
                    }
                }
                _ = announced.changed(), if writer.is_empty() => session.must_tell = true,
                Some(new) = self.accepted.recv() => {
                    let restarts = negotiated.graceful_restart.is_some();
                    match self.attempt(new.stream, Some(new.place)) {
                        Some(attempt) if restarts => (replacement, takeover_at) = (Some(attempt), None),
                        Some(attempt) => attempt.close_with(Notification::COLLISION),
                        None => {}
                    }
                }
                step = progress(&mut replacement) => match step {
                    // The session that there is says more of the peer.
                    Progress::Silent => {}
                    // A valid OPEN over a new connection: the old one is dead (RFC 4724 section 5), unless both sides
                    // have dialled at once, and the peer is about to close one. Of a dead one the peer's host tells,
                    // when it gets something over it.
                    Progress::Opened | Progress::Established => {
                        takeover_at = Some(Instant::now() + self.shared.timing.takeover);
                        if writer.is_empty() {
                            writer.push(&wire::encode_keepalive());
                        }
                    }
                    Progress::Failed(fall) => {
                        takeover_at = None;
                        debug!("BGP peer {}: a second connection: {fall}", self.address());
                        if let (Some(attempt), Fall::Sent(why)) = (replacement.take(), fall) {
                            attempt.close_with(why.notification);
                        }
                    }
                },
                () = sleep_until(wake.unwrap_or_else(far)) => {
                    let now = Instant::now();
                    let due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
                    if due(hold_until) {
                        break Fall::sent(Notification::HOLD_TIMER_EXPIRED);
                    }
                    if due(send_until) {
                        break Fall::SendHold;
                    }
                    if due(takeover_at) {
                        break Fall::Replaced;
                    }
                    if due(session.keepalive_at) {
                        // A writer that is not empty says as much, and must not grow.
                        if writer.is_empty() {
                            writer.push(&wire::encode_keepalive());
                        }
                        session.plan_keepalive();
                    }
                    self.forget_stale();
                }
            }
        };
        if let Some(attempt) = replacement.as_mut().filter(|attempt| attempt.opened.is_some()) {
            attempt.confirm();
        }
        if let Fall::Sent(why) = &fall {
            Connection { reader, writer, local, place }.close_with(why.notification.clone());
        }
        Some((fall, replacement))
    }

    /// Tells the peer what it does not know yet; notes what it was told once TCP has all of it.
    fn tell(
        &self,
        session: &mut Session,
        writer: &mut Writer,
        announced: &mut watch::Receiver<Option<BTreeSet<Ipv4Net>>>,
    ) {
        // As long as nobody knows what there is to tell, an End-of-RIB would make the peer forget what we announced
        // before a restart.
        if session.must_tell
            && let Some(wanted) = &*announced.borrow_and_update()
        {
            session.must_tell = false;
            session.advertise(wanted, self.shared.local.get().asn, |message| writer.push(message));
        }
        if writer.is_empty() {
            let mut status = self.status.borrow_mut();
            (status.announced, status.told) = (session.sent.len(), self.shared.version.get());
            self.shared.told.notify_waiters();
        }
    }

    fn begin(&mut self, connection: &Connection, negotiated: Negotiated) -> Session {
        self.shared.table.borrow_mut().set_identifier(self.id, negotiated.identifier);
        self.graceful_restart = negotiated.graceful_restart;
        let mut status = self.status.borrow_mut();
        if status.stale_until.is_some() {
            let forwarding = negotiated.graceful_restart.and_then(|restart| restart.ipv4) == Some(true);
            if forwarding {
                let limit = self.shared.local.get().restart_seconds.max(1);
                status.stale_until = Some(Instant::now() + Duration::from_secs(limit.into()));
            } else {
                if let Some(left_out) = self.may_log(Kind::Stale) {
                    let address = self.address();
                    warn!(
                        "BGP peer {address}: it did not keep forwarding: its old routes are removed{left_out}"
                    );
                }
                self.shared.table.borrow_mut().remove_stale(self.id);
                self.shared.news.notify_one();
                status.stale_until = None;
            }
        }
        status.state = State::Established;
        status.established = Some(Instant::now());
        status.sessions += 1;
        status.negotiated = Some(negotiated);
        status.local = Some(connection.local);
        drop(status);
        if let Some(left_out) = self.may_log(Kind::Up) {
            info!(
                "BGP peer {}: established (AS {}, identifier {}, hold time {} s){left_out}",
                self.address(),
                self.config.asn,
                negotiated.identifier,
                negotiated.hold.unwrap_or_default().as_secs()
            );
        }
        let next_hop = self.shared.local.get().next_hop.unwrap_or(*connection.local.ip());
        let mut session = Session::new(negotiated, next_hop);
        session.alive();
        session.plan_keepalive();
        session
    }

    fn take_all(
        &mut self,
        session: &mut Session,
        next: impl FnMut() -> Result<Option<Message>, Unreadable>,
    ) -> Result<(), Fall> {
        let result = self.take_each(session, next);
        self.shared.news.notify_one();
        result
    }

    fn take_each(
        &mut self,
        session: &mut Session,
        mut next: impl FnMut() -> Result<Option<Message>, Unreadable>,
    ) -> Result<(), Fall> {
        while let Some(message) = next().map_err(Fall::Sent)? {
            match message {
                Message::Keepalive => {
                    session.alive();
                    // A peer without End-of-RIB says so by having nothing more to say.
                    if session.negotiated.graceful_restart.is_none() {
                        self.heard_all(session);
                    }
                }
                Message::Update(raw) => {
                    session.alive();
                    self.update(session, &raw)?;
                }
                Message::RouteRefresh { ipv4 } => {
                    if ipv4 {
                        session.refresh = true;
                        session.must_tell = true;
                    }
                }
                Message::Notification(notification) => return Err(Fall::Received(notification)),
                Message::Open(_) => return Err(Fall::sent(Notification::UNEXPECTED_IN_ESTABLISHED)),
            }
        }
        Ok(())
    }

    fn update(&mut self, session: &mut Session, raw: &Raw) -> Result<(), Fall> {
        let update = raw.decode(session.negotiated.encoding).map_err(Fall::Sent)?;
        if let Some(fault) = update.fault {
            let mut status = self.status.borrow_mut();
            status.faulty_updates += 1;
            if let Some(left_out) = self.may_log(Kind::Update) {
                warn!("BGP peer {}: an UPDATE is malformed: {fault}{left_out}", self.address());
            }
            status.last_fault = Some(fault);
        }
        let beyond = |table: &Table| table.counts(self.id).refused[Refusal::NextHopLimit as usize];
        {
            let mut table = self.shared.table.borrow_mut();
            let before = beyond(&table);
            table.withdraw(self.id, &update.withdrawn);
            for announced in update.announced.into_iter().filter(|_| session.negotiated.ipv4) {
                table.announce(self.id, &announced.prefixes, announced.attributes);
            }
            if before == 0
                && beyond(&table) != 0
                && let Some(left_out) = self.may_log(Kind::NextHops)
            {
                let (address, limit) = (self.address(), self.config.max_next_hops);
                warn!(
                    "BGP peer {address}: its routes have more than `max-next-hops` ({limit}) next hops: \
                     those with others are not used{left_out}"
                );
            }
        }
        for prefix in &update.withdrawn_ipv6 {
            session.ipv6.remove(prefix);
        }
        if session.negotiated.ipv6 {
            session.ipv6.extend(update.announced_ipv6);
        }
        self.status.borrow_mut().ipv6_prefixes = session.ipv6.len();
        let received = self.shared.table.borrow().counts(self.id).received.max(session.ipv6.len());
        if received > self.config.max_prefixes as usize {
            return Err(Fall::Sent(Unreadable {
                notification: Notification::MAX_PREFIXES,
                detail: format!(
                    "more than `max-prefixes` ({}): raise it, or have the peer announce less",
                    self.config.max_prefixes
                ),
            }));
        }
        if update.end_of_rib == Some(EndOfRib::Ipv4) {
            self.heard_all(session);
        }
        Ok(())
    }

    /// The peer has told everything: what it did not say again since a restart is gone.
    fn heard_all(&mut self, session: &mut Session) {
        if session.heard_all {
            return;
        }
        session.heard_all = true;
        self.status.borrow_mut().stale_until = None;
        self.shared.table.borrow_mut().remove_stale(self.id);
        self.shared.heard_all_of(self.id);
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[cfg(test)]
mod tests;
