//! The life of a peer: connections are made or taken, collisions decided, sessions held, and failures slept off.

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

use super::{
    admission::{Accepted, Place, spare_descriptors},
    attempt::{Attempt, Progress, progress},
    connection::Connection,
    negotiation::{Negotiated, ours_survives},
    shared::{Shared, Timing},
    socket::{self, Drops, Password},
    status::{Fall, State, Status},
    table::PeerId,
    wire::{GracefulRestart, Notification},
};
use crate::config::BgpPeer;

/// A session that lasted this long was a good one: the next failure is the first again.
const GOOD_SESSION: Duration = Duration::from_secs(10);

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
}

/// When a peer is tried again.
#[derive(Debug)]
pub(super) struct Retry {
    /// Nothing is done before.
    idle_until: Instant,
    /// No connection is made before.
    dial_at: Instant,
    /// How long the next failure is slept off.
    wait: Duration,
    /// How long the next excess of prefixes is.
    excess_wait: Duration,
}

impl Retry {
    pub(super) fn new(timing: &Timing) -> Self {
        let now = Instant::now();
        Self { idle_until: now, dial_at: now, wait: timing.retry, excess_wait: timing.excess }
    }

    /// Three quarters to all of the time: peers that failed together do not come back together (RFC 4271
    /// section 10).
    fn jittered(time: Duration) -> Duration {
        use std::hash::{BuildHasher as _, RandomState};
        let random = RandomState::new().hash_one(0) % 1024;
        time * 3 / 4 + time * random as u32 / 4096
    }

    fn fail(&mut self, limit: Duration, idle: bool) {
        let until = Instant::now() + Self::jittered(self.wait);
        self.wait = (self.wait * 2).min(limit);
        self.dial_at = until;
        if idle {
            self.idle_until = until;
        }
    }

    /// Leaves the peer alone for longer: until when. With the same prefixes the next session would end as this one.
    fn exclude(&mut self, limit: Duration) -> Instant {
        let until = Instant::now() + Self::jittered(self.excess_wait);
        self.excess_wait = (self.excess_wait * 2).min(limit);
        (self.dial_at, self.idle_until) = (until, until);
        until
    }
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

    fn show(&self, state: State) {
        self.status.borrow_mut().state = state;
    }

    /// A session ended: what becomes of its routes, and when the next one may begin.
    fn fallen(&mut self, fall: &Fall, lasted: Duration) {
        warn!("BGP peer {}: {fall}", self.address());
        let timing = self.shared.timing;
        if lasted >= GOOD_SESSION {
            self.retry.wait = timing.retry;
        }
        if lasted >= timing.excess_limit {
            self.retry.excess_wait = timing.excess;
        }
        let kept = self.graceful_restart.filter(|restart| restart.ipv4.is_some() && restart.seconds != 0);
        let mut table = self.shared.table.borrow_mut();
        let stale_until = match kept {
            Some(restart) if fall.is_silent() => {
                table.make_stale(self.id);
                let kept = table.counts(self.id).stale;
                info!("BGP peer {}: {kept} routes are kept for {} s", self.address(), restart.seconds);
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
        let now = Instant::now();
        (self.retry.dial_at, self.retry.idle_until) = (now, now);
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
            warn!(
                "BGP peer {}: {} routes of before its restart are removed",
                self.address(),
                table.counts(self.id).stale
            );
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
        if known {
            debug!("BGP peer {}: {why}", self.address());
        } else {
            warn!("BGP peer {}: {why}", self.address());
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
