//! A connection on its way to a session: OPENs are exchanged, then KEEPALIVEs.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    connection::{Break, Connection},
    negotiation::{Negotiated, negotiate},
    shared::Timing,
    socket::Drops,
    status::Fall,
    wire::{self, Message, Notification, Open},
};

/// Such a connection.
#[derive(Debug)]
pub struct Attempt {
    connection: Connection,
    ours: Open,
    asn: u32,
    /// What the OPENs agree on, once the peer's has come.
    pub opened: Option<Negotiated>,
    deadline: Instant,
    /// When it is time to wonder why the peer says nothing.
    silent_at: Option<Instant>,
    /// How long that is.
    patience: Duration,
    /// What the kernel had dropped when it began.
    pub drops: Drops,
    /// Our KEEPALIVE is on its way: nothing else is said before the peer's comes.
    confirmed: bool,
    /// The peer's KEEPALIVE came before ours was sent.
    early: bool,
}

/// What became of an attempt.
#[derive(Debug)]
pub enum Progress {
    /// The peer has said nothing more for as long as a connection may take to be made. It may still.
    Silent,
    /// The peer's OPEN has come, and it is acceptable.
    Opened,
    /// The session stands.
    Established,
    /// It failed; the connection is to be closed with this, which tells the peer why.
    Failed(Fall),
}

impl Attempt {
    /// Begins with our OPEN to a peer that must be in the autonomous system `asn`.
    pub fn new(mut connection: Connection, ours: Open, asn: u32, timing: &Timing) -> Self {
        connection.writer.push(&wire::encode_open(&ours));
        let (deadline, silent_at) = (Instant::now() + timing.open, Some(Instant::now() + timing.dial));
        let drops = Drops::read();
        Self {
            connection,
            ours,
            asn,
            opened: None,
            deadline,
            silent_at,
            patience: timing.dial,
            drops,
            confirmed: false,
            early: false,
        }
    }

    /// Waits for the next step. May be cancelled without loss.
    pub async fn progress(&mut self) -> Progress {
        loop {
            if self.confirmed && std::mem::take(&mut self.early) {
                return Progress::Established;
            }
            let Connection { reader, writer, .. } = &mut self.connection;
            let received = tokio::select! {
                received = reader.message() => received,
                sent = writer.flush(), if !writer.is_empty() => match sent {
                    Ok(()) => continue,
                    Err(error) => Err(Break::Lost(error)),
                },
                () = tokio::time::sleep_until(self.silent_at.unwrap_or(self.deadline)), if self.silent_at.is_some() => {
                    self.silent_at = None;
                    return Progress::Silent;
                }
                () = tokio::time::sleep_until(self.deadline) => {
                    return Progress::Failed(Fall::sent(Notification::HOLD_TIMER_EXPIRED));
                }
            };
            return match received {
                Ok(Message::Keepalive) if self.opened.is_some() && !self.confirmed => {
                    self.early = true;
                    continue;
                }
                Ok(message) => self.take(message),
                Err(Break::Lost(error)) => Progress::Failed(Fall::Lost(error)),
                Err(Break::Unreadable(unreadable)) => Progress::Failed(Fall::Sent(unreadable)),
            };
        }
    }

    fn take(&mut self, message: Message) -> Progress {
        let failed = |notification| Progress::Failed(Fall::sent(notification));
        match (message, self.confirmed) {
            (Message::Notification(notification), _) => Progress::Failed(Fall::Received(notification)),
            (Message::Open(theirs), false) => match negotiate(&self.ours, &theirs, self.asn) {
                Ok(negotiated) => {
                    self.opened = Some(negotiated);
                    Progress::Opened
                }
                Err(unreadable) => Progress::Failed(Fall::Sent(unreadable)),
            },
            (Message::Keepalive, true) => Progress::Established,
            (_, false) => failed(Notification::UNEXPECTED_IN_OPEN_SENT),
            (_, true) => failed(Notification::UNEXPECTED_IN_OPEN_CONFIRM),
        }
    }

    /// Accepts the peer's OPEN.
    pub fn confirm(&mut self) {
        self.confirmed = true;
        self.silent_at = Some(Instant::now() + self.patience);
        self.connection.writer.push(&wire::encode_keepalive());
        if let Some(hold) = self.opened.and_then(|negotiated| negotiated.hold) {
            self.deadline = Instant::now() + hold;
        }
    }

    /// Our OPEN.
    pub fn ours(&self) -> &Open {
        &self.ours
    }

    /// The connection, and what was agreed on, if it was.
    pub fn into_parts(self) -> (Connection, Option<Negotiated>) {
        (self.connection, self.opened)
    }

    /// Gives up, and tells the peer why.
    pub fn close_with(self, notification: Notification) {
        self.connection.close_with(notification);
    }
}

/// The next step of an attempt, if there is one; else it waits for ever.
pub async fn progress(attempt: &mut Option<Attempt>) -> Progress {
    match attempt {
        Some(attempt) => attempt.progress().await,
        None => std::future::pending().await,
    }
}
