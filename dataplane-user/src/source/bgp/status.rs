//! What a peer is doing, and why its last session went down: in words.

use std::{fmt, io, net::SocketAddrV4};

use tokio::time::Instant;

use super::{
    negotiation::Negotiated,
    wire::{Notification, Unreadable},
};

/// The states of RFC 4271 section 8.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It failed, and is left alone for a moment.
    #[default]
    Idle,
    /// A connection is being made.
    Connect,
    /// A connection is waited for, or the time for the next try.
    Active,
    /// Our OPEN is sent.
    OpenSent,
    /// The peer's OPEN has come, too.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// The name in `--json` output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        }
    }
}

/// Why a session, or the attempt at one, ended.
#[derive(Debug)]
pub enum Fall {
    /// We ended it.
    Sent(Unreadable),
    /// The peer ended it.
    Received(Notification),
    /// The connection is gone.
    Lost(io::Error),
    /// It could not be made.
    Unreachable(String),
    /// The peer takes nothing any more (RFC 9687).
    SendHold,
    /// The peer connected anew.
    Replaced,
}

impl Fall {
    /// We ended it for what the notification says.
    pub fn sent(notification: Notification) -> Self {
        Self::Sent(Unreadable { detail: notification.text(), notification })
    }

    /// Whether the peer announced more than `max-prefixes`.
    pub fn is_excess(&self) -> bool {
        matches!(self, Self::Sent(why) if why.notification == Notification::MAX_PREFIXES)
    }

    /// Whether it may be a restart of the peer, during which its routes are kept (RFC 4724 section 4.2): its
    /// connection went, and nobody said why; or it keeps another one.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Replaced) || self.is_collision()
    }

    /// Whether the peer keeps another connection in the place of this one.
    pub fn is_collision(&self) -> bool {
        matches!(self, Self::Received(why) if *why == Notification::COLLISION)
    }
}

impl fmt::Display for Fall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(Unreadable { notification, detail }) => {
                let text = notification.text();
                write!(f, "we ended the session: {text}")?;
                if *detail != text { write!(f, ": {detail}") } else { Ok(()) }
            }
            Self::Received(notification) => {
                write!(f, "the peer ended the session: {}", notification.text())?;
                match (notification.code, notification.subcode) {
                    (2, 2) => f.write_str(" (it expects another `asn` of us)"),
                    (2, 3) => f.write_str(" (it has the same `router-id`, or does not like ours)"),
                    _ => Ok(()),
                }
            }
            Self::Lost(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    f.write_str("the peer closed the connection without a NOTIFICATION")
                }
                io::ErrorKind::ConnectionReset => f.write_str("the peer reset the connection"),
                io::ErrorKind::TimedOut => f.write_str("the connection timed out"),
                _ => write!(f, "the connection was lost: {error}"),
            },
            Self::Unreachable(why) => f.write_str(why),
            Self::SendHold => {
                f.write_str("we ended the session: Send Hold Timer Expired: the peer takes no data")
            }
            Self::Replaced => f.write_str("the peer connected anew: it has restarted"),
        }
    }
}

/// What there is to say about a peer.
#[derive(Debug, Default)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Since when it is established.
    pub established: Option<Instant>,
    /// How often it was.
    pub sessions: u64,
    /// What holds for the session.
    pub negotiated: Option<Negotiated>,
    /// Our end of its connection.
    pub local: Option<SocketAddrV4>,
    /// Why the last session went down, or was refused by either side, and when. A peer that cannot be reached
    /// afterwards does not make that forgotten.
    pub last_down: Option<(String, Instant)>,
    /// Why it last failed, and when.
    pub last_error: Option<(String, Instant)>,
    /// Prefixes that it was told.
    pub announced: usize,
    /// The last version of `Shared::announced` that it was told.
    pub told: u64,
    /// IPv6 prefixes that it announces.
    pub ipv6_prefixes: usize,
    /// UPDATEs with faults that cost less than the session (RFC 7606).
    pub faulty_updates: u64,
    /// What was wrong with the last of them.
    pub last_fault: Option<String>,
    /// Until when its routes are kept while it restarts.
    pub stale_until: Option<Instant>,
    /// Until when it gets no session, because it exceeded `max-prefixes`.
    pub excluded_until: Option<Instant>,
}

impl Status {
    /// Notes why it failed, and whether that was a session, or only a try at one.
    pub fn failed(&mut self, why: &Fall, session: bool) {
        let error = (why.to_string(), Instant::now());
        if session || matches!(why, Fall::Sent(_) | Fall::Received(_)) {
            self.last_down = Some(error.clone());
        }
        self.last_error = Some(error);
    }
}
