//! BGP messages as the speaker uses them, and the one place that knows the library which reads and writes them.
//!
//! `rustbgpd-wire` keeps to RFC 7606 and does not panic on anything; its interface changes often, so that nothing
//! of it is visible outside.

mod open;
mod update;

use bytes::Bytes;
use rustbgpd_wire as codec;

pub use open::{GracefulRestart, Open};
pub use update::{EndOfRib, announcements, end_of_rib, withdrawals};

/// The longest message (RFC 4271 section 4.1).
pub const MAX_MESSAGE: usize = codec::MAX_MESSAGE_LEN as usize;

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE, not decoded yet.
    Update(Raw),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH; whether it asks for IPv4 unicast, the one family of which anything is sent.
    RouteRefresh {
        /// It does.
        ipv4: bool,
    },
}

/// An UPDATE of which only the parts were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(codec::UpdateMessage);

/// What a session needs to know to read an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// AS numbers have four octets (RFC 6793).
    pub four_octets: bool,
    /// The peer is in another autonomous system.
    pub external: bool,
}

/// Why a session ends, as one side tells the other (RFC 4271 section 4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data.
    pub data: Vec<u8>,
}

impl Notification {
    /// Hold Timer Expired.
    pub const HOLD_TIMER_EXPIRED: Self = Self::new(4, 0);
    /// Finite State Machine Error: a message that was not expected before an OPEN (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_SENT: Self = Self::new(5, 1);
    /// The same, before the first KEEPALIVE.
    pub const UNEXPECTED_IN_OPEN_CONFIRM: Self = Self::new(5, 2);
    /// The same, after it.
    pub const UNEXPECTED_IN_ESTABLISHED: Self = Self::new(5, 3);
    /// Cease: Maximum Number of Prefixes Reached (RFC 4486).
    pub const MAX_PREFIXES: Self = Self::new(6, 1);
    /// Cease: Administrative Shutdown.
    pub const SHUTDOWN: Self = Self::new(6, 2);
    /// Cease: Peer De-configured.
    pub const DECONFIGURED: Self = Self::new(6, 3);
    /// Cease: Connection Rejected.
    pub const REJECTED: Self = Self::new(6, 5);
    /// Cease: Other Configuration Change.
    pub const CONFIGURATION_CHANGE: Self = Self::new(6, 6);
    /// Cease: Connection Collision Resolution.
    pub const COLLISION: Self = Self::new(6, 7);

    /// One without data.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    /// What the codes say, and the words that an operator sent along (RFC 9003).
    pub fn text(&self) -> String {
        let code = codec::NotificationCode::from_u8(self.code);
        let what = match codec::notification::description(code, self.subcode) {
            what if what.starts_with("Unknown") => format!("code {}, subcode {}", self.code, self.subcode),
            what if self.code == 6 && !what.starts_with("Cease") => format!("Cease: {what}"),
            what => what.to_owned(),
        };
        let data = Bytes::from(self.data.clone());
        let message = codec::NotificationMessage::new(code, self.subcode, data);
        match codec::notification::extract_shutdown_communication(&message) {
            Ok(Some(words)) if !words.is_empty() => format!("{what} ({})", printable(words)),
            _ => what,
        }
    }

    fn of(error: &codec::DecodeError) -> Self {
        let (code, subcode, data) = error.to_notification();
        Self { code: code.as_u8(), subcode, data: data.to_vec() }
    }
}

/// A peer's words go to the terminal and the log: without what steers them, or changes how the rest is shown.
fn printable(words: &str) -> String {
    words.chars().filter(|c| !c.is_control() && !is_format(*c)).collect()
}

/// Marks of direction, joiners, invisible operators and tags (Unicode's general category Cf, and the separators of
/// lines and paragraphs).
fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// A message that cannot be read: what is told to the peer, and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// For the peer.
    pub notification: Notification,
    /// For people.
    pub detail: String,
}

impl From<codec::DecodeError> for Unreadable {
    fn from(error: codec::DecodeError) -> Self {
        Self { notification: Notification::of(&error), detail: error.to_string() }
    }
}

/// The length in bytes of the message that begins here; `None` while its header is not whole.
///
/// # Errors
///
/// Where no message can begin like this.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, Unreadable> {
    Ok(codec::peek_message_length(bytes, codec::MAX_MESSAGE_LEN)?.map(usize::from))
}

/// Reads one whole message.
///
/// # Errors
///
/// Where it breaks the rules of its kind.
pub fn decode(mut bytes: Bytes) -> Result<Message, Unreadable> {
    Ok(match codec::decode_message(&mut bytes, codec::MAX_MESSAGE_LEN)? {
        codec::Message::Open(open) => Message::Open(Open::from(open)),
        codec::Message::Update(update) => Message::Update(Raw(update)),
        codec::Message::Notification(notification) => Message::Notification(Notification {
            code: notification.code.as_u8(),
            subcode: notification.subcode,
            data: notification.data.to_vec(),
        }),
        codec::Message::RouteRefresh(refresh) => Message::RouteRefresh {
            ipv4: (refresh.afi(), refresh.safi()) == (Some(codec::Afi::Ipv4), Some(codec::Safi::Unicast)),
        },
        _ => Message::Keepalive,
    })
}

/// Writes an OPEN.
pub fn encode_open(open: &Open) -> Vec<u8> {
    encode(&codec::Message::Open(open.into()))
}

/// Writes a KEEPALIVE.
pub fn encode_keepalive() -> Vec<u8> {
    encode(&codec::Message::Keepalive)
}

/// Writes a NOTIFICATION.
pub fn encode_notification(notification: &Notification) -> Vec<u8> {
    encode(&codec::Message::Notification(codec::NotificationMessage::new(
        codec::NotificationCode::from_u8(notification.code),
        notification.subcode,
        Bytes::from(notification.data.clone()),
    )))
}

fn encode(message: &codec::Message) -> Vec<u8> {
    codec::encode_message(message).expect("the speaker's own messages fit").to_vec()
}

#[cfg(test)]
mod tests;
