//! A TCP connection that carries messages.

use std::{io, net::SocketAddrV4, time::Duration};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout},
};

use super::{
    admission::Place,
    wire::{self, Message, Notification, Unreadable},
};

/// Bytes taken from a socket at once: some sixteen full messages, after which the other sessions have their turn.
const READ: usize = 64 * 1024;

/// How long a peer is given to take a NOTIFICATION.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why no more messages come.
#[derive(Debug)]
pub enum Break {
    /// The connection is gone.
    Lost(io::Error),
    /// What came is no message.
    Unreadable(Unreadable),
}

/// Both halves.
#[derive(Debug)]
pub struct Connection {
    /// What comes.
    pub reader: Reader,
    /// What goes.
    pub writer: Writer,
    /// Our end.
    pub local: SocketAddrV4,
    /// Where the peer made it: its place among the peer's connections, until it is closed.
    pub place: Option<Place>,
}

impl Connection {
    /// Takes over a socket.
    ///
    /// # Errors
    ///
    /// Where it is closed already, or not IPv4.
    pub fn new(stream: TcpStream, place: Option<Place>) -> io::Result<Self> {
        // A KEEPALIVE must not wait for more to send.
        stream.set_nodelay(true)?;
        let std::net::SocketAddr::V4(local) = stream.local_addr()? else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: Reader { half: reader, buffer: BytesMut::new() },
            writer: Writer { half: writer, buffer: BytesMut::new(), waiting_since: Instant::now() },
            local,
            place,
        })
    }

    /// Tells the peer why, and closes; takes no longer than [`FAREWELL`], in a task of its own.
    pub fn close_with(mut self, notification: Notification) {
        tokio::task::spawn_local(async move {
            let farewell = async {
                self.writer.push(&wire::encode_notification(&notification));
                while !self.writer.is_empty() {
                    self.writer.flush().await?;
                }
                self.writer.half.shutdown().await?;
                // Unread bytes would make the kernel reset the connection, and the peer lose our last words.
                while self.reader.half.read_buf(&mut self.reader.buffer).await? != 0 {
                    self.reader.buffer.clear();
                }
                io::Result::Ok(())
            };
            if timeout(FAREWELL, farewell).await.is_err() {
                // Whoever does not listen does not hear it, and is not to hold the connection for a living one: a
                // reset needs no answer, which the kernel may drop for its TTL.
                let _ = self.writer.half.as_ref().set_zero_linger();
            }
            drop(self);
        });
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    /// Waits for bytes. May be cancelled without loss.
    ///
    /// # Errors
    ///
    /// Where the connection is gone, by whichever side.
    pub async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ);
        match self.half.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next message of those that came whole.
    ///
    /// # Errors
    ///
    /// Where the bytes are none; nothing after them can be read then.
    pub fn next(&mut self) -> Result<Option<Message>, Unreadable> {
        match wire::length(&self.buffer)? {
            Some(length) if length <= self.buffer.len() => {
                wire::decode(self.buffer.split_to(length).freeze()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Waits for a message. May be cancelled without loss.
    pub async fn message(&mut self) -> Result<Message, Break> {
        loop {
            match self.next() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => self.fill().await.map_err(Break::Lost)?,
                Err(unreadable) => return Err(Break::Unreadable(unreadable)),
            }
        }
    }
}

/// The half that sends. What it holds is bounded by its user, who adds to it only when it is empty.
#[derive(Debug)]
pub struct Writer {
    half: OwnedWriteHalf,
    buffer: BytesMut,
    waiting_since: Instant,
}

impl Writer {
    /// Adds a message to what is to be sent.
    pub fn push(&mut self, message: &[u8]) {
        if self.buffer.is_empty() {
            self.waiting_since = Instant::now();
        }
        self.buffer.extend_from_slice(message);
    }

    /// Whether everything was handed to TCP.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Since when the peer's TCP has taken nothing of what there is to send (RFC 9687).
    pub fn waiting_since(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.waiting_since)
    }

    /// Sends a part. May be cancelled without loss.
    ///
    /// # Errors
    ///
    /// Where the connection is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        let written = self.half.write(&self.buffer).await?;
        self.buffer.advance(written);
        self.waiting_since = Instant::now();
        Ok(())
    }
}
