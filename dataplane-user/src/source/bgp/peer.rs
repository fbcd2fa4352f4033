//! The life of a peer: connections are made or taken, collisions decided, sessions held, and failures slept off.

mod retry;
mod session;

use std::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddrV4},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use self::retry::GOOD_SESSION;
pub use self::retry::Retry;
use super::{
    admission::{Accepted, Place, spare_descriptors},
    attempt::{Attempt, Progress, progress},
    connection::Connection,
    negotiation::{Negotiated, ours_survives},
    quiet::{Kind, LeftOut, Quiet},
    shared::Shared,
    socket::{self, Drops, Password},
    status::{Fall, State, Status},
    table::PeerId,
    wire::{GracefulRestart, Notification},
};
use crate::config::BgpPeer;

/// A peer's task.
pub struct Peer {
    pub(super) config: BgpPeer,
    pub(super) password: Option<Password>,
    pub(super) shared: Rc<Shared>,
    pub(super) id: PeerId,
    /// Connections that the peer made.
    pub(super) accepted: mpsc::Receiver<Accepted>,
    /// Ends the task: the peer is told this.
    pub(super) stop: mpsc::Receiver<Notification>,
    /// The configuration was read again: who is left alone is tried at once.
    pub(super) reloaded: Rc<Notify>,
    pub(super) status: Rc<RefCell<Status>>,
    pub(super) retry: Retry,
    /// What the peer said of its restarts in its last session.
    pub(super) graceful_restart: Option<GracefulRestart>,
    /// Which lines of the log it may still cause.
    pub(super) quiet: RefCell<Quiet>,
}

/// A connection over which a session stands.
pub(super) struct Up {
    connection: Connection,
    negotiated: Negotiated,
}

/// Which of the two connections that a peer can have on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Dialled,
    Accepted,
}

type Dial = Pin<Box<dyn Future<Output = Result<TcpStream, String>>>>;

impl Peer {
    /// Runs until the peer is removed.
    pub async fn run(mut self) {
        let mut accepted = None;
        while let Some(up) = self.establish(accepted.take()).await {
            let begin = Instant::now();
            let Some((fall, next)) = self.session(up).await else { break };
            accepted = next;
            self.fallen(&fall, begin.elapsed());
        }
        self.shared.heard_all_of(self.id);
        self.shared.table.borrow_mut().remove_peer(self.id);
        self.shared.news.notify_one();
    }

    fn remote(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.config.address, self.config.port)
    }

    fn address(&self) -> Ipv4Addr {
        self.config.address
    }

    fn may_log(&self, kind: Kind) -> Option<LeftOut> {
        self.quiet.borrow_mut().admit(kind, Instant::now())
    }

    fn show(&self, state: State) {
        self.status.borrow_mut().state = state;
    }

    /// A session ended: what becomes of its routes, and when the next one may begin.
    fn fallen(&mut self, fall: &Fall, lasted: Duration) {
        if let Some(left_out) = self.may_log(Kind::Down) {
            warn!("BGP peer {}: {fall}{left_out}", self.address());
        }
        let timing = self.shared.timing;
        self.retry.lasted(lasted, &timing);
        let kept = self.graceful_restart.filter(|restart| restart.ipv4.is_some() && restart.seconds != 0);
        let mut table = self.shared.table.borrow_mut();
        let stale_until = match kept {
            Some(restart) if fall.is_silent() => {
                // What was stale already is forgotten (RFC 4724 section 4.2), but not for two connections at once.
                if !fall.is_collision() {
                    table.remove_stale(self.id);
                }
                table.make_stale(self.id);
                let kept = table.counts(self.id).stale;
                if let Some(left_out) = self.may_log(Kind::Stale) {
                    let (address, seconds) = (self.address(), restart.seconds);
                    info!("BGP peer {address}: {kept} routes are kept for {seconds} s{left_out}");
                }
                Some(Instant::now() + Duration::from_secs(restart.seconds.into()))
            }
            _ => {
                table.remove_all(self.id);
                None
            }
        };
        drop(table);
        self.shared.news.notify_one();
        {
            let mut status = self.status.borrow_mut();
            status.failed(fall, true);
            status.stale_until = stale_until;
            (status.established, status.negotiated, status.local) = (None, None, None);
            (status.announced, status.ipv6_prefixes) = (0, 0);
        }
        // A restarting peer is back any moment; who broke the rules is left alone for a while.
        let idle = !(fall.is_silent() && lasted >= GOOD_SESSION);
        if fall.is_excess() {
            let until = self.retry.exclude(timing.excess_limit);
            self.status.borrow_mut().excluded_until = Some(until);
        } else if !matches!(fall, Fall::Replaced) {
            self.retry.fail(timing.retry_limit, idle);
        }
    }

    /// Whether the peer gets no session for now, because it exceeded `max-prefixes`.
    fn is_excluded(&self) -> bool {
        let mut status = self.status.borrow_mut();
        status.excluded_until = status.excluded_until.filter(|until| Instant::now() < *until);
        status.excluded_until.is_some()
    }

    /// Ends that.
    fn readmit(&mut self) {
        self.retry.end();
        self.status.borrow_mut().excluded_until = None;
    }

    /// Closes a connection of a peer that gets no session.
    fn reject(&self, Accepted { stream, place }: Accepted) {
        if let Ok(connection) = Connection::new(stream, Some(place)) {
            connection.close_with(Notification::REJECTED);
        }
    }

    /// The time for which the routes of a restarting peer are kept is over.
    fn forget_stale(&mut self) {
        let mut status = self.status.borrow_mut();
        if status.stale_until.is_some_and(|until| until <= Instant::now()) {
            status.stale_until = None;
            let mut table = self.shared.table.borrow_mut();
            if let Some(left_out) = self.may_log(Kind::Stale) {
                let (address, stale) = (self.address(), table.counts(self.id).stale);
                warn!("BGP peer {address}: {stale} routes of before its restart are removed{left_out}");
            }
            table.remove_stale(self.id);
            self.shared.news.notify_one();
        }
    }

    /// Gets a connection to where routes can be exchanged. `None`: the peer was removed.
    async fn establish(&mut self, mut accepted: Option<Attempt>) -> Option<Up> {
        let mut dialled: Option<Attempt> = None;
        let mut dial: Option<Dial> = None;
        loop {
            let now = Instant::now();
            let idle = now < self.retry.idle_until && accepted.is_none();
            let excluded = self.is_excluded();
            let quiet = dial.is_none() && dialled.is_none() && accepted.is_none();
            if quiet && !idle && !self.config.passive && now >= self.retry.dial_at {
                dial = Some(self.dial());
            }
            self.show(state_of(idle, dial.is_some(), &dialled, &accepted));
            let wake = self.wake(idle, quiet && dial.is_none());
            let (origin, step) = tokio::select! {
                told = self.stop.recv() => {
                    for attempt in [dialled, accepted].into_iter().flatten() {
                        attempt.close_with(told.clone().unwrap_or(Notification::SHUTDOWN));
                    }
                    return None;
                }
                () = self.reloaded.notified(), if excluded => {
                    self.readmit();
                    continue;
                }
                Some(new) = self.accepted.recv(), if excluded || !idle => {
                    if excluded {
                        self.reject(new);
                    } else {
                        // One that was there before is from before the peer started again.
                        accepted = self.attempt(new.stream, Some(new.place));
                    }
                    continue;
                }
                result = finished(&mut dial) => {
                    dial = None;
                    match result {
                        Ok(stream) => dialled = self.attempt(stream, None),
                        Err(why) => self.missed(&Fall::Unreachable(why)),
                    }
                    continue;
                }
                step = progress(&mut dialled) => (Origin::Dialled, step),
                step = progress(&mut accepted) => (Origin::Accepted, step),
                () = sleep_until(wake) => {
                    self.forget_stale();
                    continue;
                }
            };
            let (this, other) = match origin {
                Origin::Dialled => (&mut dialled, &mut accepted),
                Origin::Accepted => (&mut accepted, &mut dialled),
            };
            match step {
                Progress::Silent => self.silent(this),
                Progress::Opened => self.resolve_collision(origin, this, other),
                Progress::Established => {
                    if let Some(other) = other.take() {
                        other.close_with(Notification::COLLISION);
                    }
                    let (connection, negotiated) = this.take()?.into_parts();
                    return Some(Up { connection, negotiated: negotiated? });
                }
                Progress::Failed(fall) => {
                    let failed = this.take();
                    if let (Some(attempt), Fall::Sent(unreadable)) = (failed, &fall) {
                        attempt.close_with(unreadable.notification.clone());
                    }
                    match other {
                        // The peer may have decided a collision.
                        Some(_) => debug!("BGP peer {}: one of two connections: {fall}", self.address()),
                        None => self.missed(&fall),
                    }
                }
            }
        }
    }

    /// When something is to be done though nothing happens.
    fn wake(&self, idle: bool, will_dial: bool) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let idle = idle.then_some(self.retry.idle_until);
        let dial = (will_dial && !self.config.passive).then_some(self.retry.dial_at);
        let stale = self.status.borrow().stale_until;
        idle.or(dial).into_iter().chain(stale).min().unwrap_or(far)
    }

    fn attempt(&self, stream: TcpStream, place: Option<Place>) -> Option<Attempt> {
        // It may be closed already.
        let connection = Connection::new(stream, place);
        let connection =
            connection.inspect_err(|error| debug!("BGP peer {}: {error}", self.address())).ok()?;
        let again = self.status.borrow().sessions != 0;
        let ours = self.shared.open(self.config.hold_seconds, again);
        Some(Attempt::new(connection, ours, self.config.asn, &self.shared.timing))
    }

    /// There is a connection, and nothing comes over it.
    fn silent(&self, attempt: &Option<Attempt>) {
        let (signed, hops) = (self.password.is_some(), self.config.ttl_security_hops);
        let before = attempt.as_ref().map(|attempt| attempt.drops);
        let dropped = before.and_then(|before| Drops::read().explain_since(before, signed, hops.is_some()));
        let why = dropped
            .unwrap_or("it is busy, or drops what we say: it may see more hops than its TTL security allows");
        self.note(&Fall::Unreachable(format!("a connection is there, and no KEEPALIVE comes: {why}")));
    }

    fn note(&self, fall: &Fall) {
        let why = fall.to_string();
        let mut status = self.status.borrow_mut();
        let known = status.last_error.as_ref().is_some_and(|(last, _)| *last == why);
        match (!known).then(|| self.may_log(Kind::Attempt)).flatten() {
            Some(left_out) => warn!("BGP peer {}: {why}{left_out}", self.address()),
            None => debug!("BGP peer {}: {why}", self.address()),
        }
        status.failed(fall, false);
    }

    /// No session came about.
    fn missed(&mut self, fall: &Fall) {
        self.note(fall);
        let broke_rules = matches!(fall, Fall::Sent(_) | Fall::Received(_));
        self.retry.fail(self.shared.timing.retry_limit, broke_rules);
    }

    fn dial(&self) -> Dial {
        let (local, remote) = (self.shared.local.get().address, self.remote());
        let (password, patience) = (self.password.clone(), self.shared.timing.dial);
        let hops = self.config.ttl_security_hops;
        Box::pin(async move {
            let before = Drops::read();
            match timeout(patience, socket::dial(local, remote, password.as_ref(), hops)).await {
                Ok(Ok(stream)) => spare_descriptors(&stream).map(|()| stream),
                Ok(Err(error)) => Err(format!("{error:#}")),
                Err(_) => {
                    let why =
                        format!("no answer from port {} within {} s", remote.port(), patience.as_secs());
                    let drops = Drops::read().explain_since(before, password.is_some(), hops.is_some());
                    Err(match (drops, password) {
                        (Some(explanation), _) => format!("{why}: {explanation}"),
                        (None, Some(_)) => {
                            format!("{why}: it is away, or has another password, or none, for us")
                        }
                        (None, None) => format!("{why}: it is away, or has a password for us"),
                    })
                }
            }
        })
    }

    /// The peer's OPEN has come over one connection: of two, one goes (RFC 4271 section 6.8). A connection over
    /// which none has come yet proves nothing, and waits.
    fn resolve_collision(&self, origin: Origin, this: &mut Option<Attempt>, other: &mut Option<Attempt>) {
        let Some(attempt) = this else { return };
        let collides = other.as_ref().is_some_and(|other| other.opened.is_some());
        let survives = attempt.opened.as_ref().is_none_or(|theirs| {
            ours_survives(attempt.ours(), theirs, self.config.asn) == (origin == Origin::Dialled)
        });
        match (collides, survives) {
            (true, false) => {
                if let Some(loser) = this.take() {
                    loser.close_with(Notification::COLLISION);
                }
            }
            (true, true) => {
                attempt.confirm();
                if let Some(loser) = other.take() {
                    loser.close_with(Notification::COLLISION);
                }
            }
            (false, _) => attempt.confirm(),
        }
    }
}

fn state_of(idle: bool, dialling: bool, dialled: &Option<Attempt>, accepted: &Option<Attempt>) -> State {
    let attempts = || dialled.iter().chain(accepted);
    if attempts().any(|attempt| attempt.opened.is_some()) {
        State::OpenConfirm
    } else if attempts().next().is_some() {
        State::OpenSent
    } else if idle {
        State::Idle
    } else if dialling {
        State::Connect
    } else {
        State::Active
    }
}

/// The end of a dial, if there is one; else it waits for ever.
async fn finished(dial: &mut Option<Dial>) -> Result<TcpStream, String> {
    match dial {
        Some(dial) => dial.await,
        None => std::future::pending().await,
    }
}
