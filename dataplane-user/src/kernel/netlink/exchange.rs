//! A request and its answers.

use std::{error::Error, fmt, io};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkMessage,
    NetlinkSerializable, NlasIterator,
};
use tokio::sync::Mutex;

use super::{decode, socket::NetlinkSocket};

/// `NLMSGERR_ATTR_MSG` of linux/netlink.h: a sentence of the kernel.
const ERROR_TEXT: u16 = 1;
/// The error number, and the header of the request that it is about.
const ERROR_HEADER: usize = 4 + 16;

/// The kernel's "no" to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive (`EEXIST`).
    pub errno: i32,
    /// What the kernel says besides, e.g. `Nexthop has invalid gateway`.
    pub text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refuses: {}", io::Error::from_raw_os_error(self.errno))?;
        self.text.iter().try_for_each(|text| write!(f, ": {text}"))
    }
}

impl Error for Refusal {}

/// How the answers to a request ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// Done, and all of it was given.
    Complete,
    /// What was dumped changed meanwhile: something may be missing.
    Interrupted,
    /// Not done.
    Refused(Refusal),
}

/// The socket for requests, one at a time.
#[derive(Debug)]
pub(super) struct Requests {
    protocol: isize,
    /// Taken out during an exchange. One that is given up midway (an error, or its future dropped) leaves
    /// nothing here, and the next one opens a new socket, on which no late answers can come.
    idle: Mutex<Option<Channel>>,
}

impl Requests {
    pub(super) fn open(protocol: isize) -> Result<Self> {
        Ok(Self { protocol, idle: Mutex::new(Some(Channel::open(protocol)?)) })
    }

    /// A socket that is opened with the first request.
    pub(super) fn closed(protocol: isize) -> Self {
        Self { protocol, idle: Mutex::new(None) }
    }

    /// Sends the request and gives the payload of each answer to `each`.
    pub(super) async fn exchange(
        &self,
        request: NetlinkMessage<impl NetlinkSerializable>,
        each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Answer> {
        let mut idle = self.idle.lock().await;
        let mut channel = match idle.take() {
            Some(channel) => channel,
            None => Channel::open(self.protocol)?,
        };
        let answer = channel.exchange(request, each).await?;
        *idle = Some(channel);
        Ok(answer)
    }
}

#[derive(Debug)]
struct Channel {
    socket: NetlinkSocket,
    sequence: u32,
    request: Vec<u8>,
}

impl Channel {
    fn open(protocol: isize) -> Result<Self> {
        let socket = NetlinkSocket::open(protocol, |socket| {
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            // The kernel then heeds the filters of a dump, and leaves cached exceptions out of it.
            socket.set_netlink_get_strict_chk(true)
        })?;
        Ok(Self { socket, sequence: 0, request: Vec::new() })
    }

    async fn exchange(
        &mut self,
        mut request: NetlinkMessage<impl NetlinkSerializable>,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Answer> {
        self.sequence = self.sequence.wrapping_add(1);
        request.header.sequence_number = self.sequence;
        request.finalize();
        self.request.clear();
        self.request.resize(request.buffer_len(), 0);
        request.serialize(&mut self.request);
        self.socket.send(&self.request).context("cannot send a netlink request")?;

        let mut answer = Answer::Complete;
        loop {
            // Answers are there as soon as they are asked for: without this, a long listing or a row of
            // requests would starve other tasks.
            tokio::task::consume_budget().await;
            let datagram = self.socket.receive().await.context("cannot receive a netlink answer")?;
            if datagram.truncated {
                bail!("a netlink answer is longer than the {} bytes there are for it", datagram.bytes.len());
            }
            for message in decode::messages(datagram.bytes) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    answer = Answer::Interrupted;
                }
                match message.kind {
                    NLMSG_NOOP => {}
                    // Both end an answer with an error number that is zero when all is well.
                    NLMSG_ERROR | NLMSG_DONE => {
                        let refusal = refusal(&message)?;
                        return Ok(refusal.map_or(answer, Answer::Refused));
                    }
                    _ => each(message.payload)?,
                }
            }
        }
    }
}

fn refusal(message: &decode::Message<'_>) -> Result<Option<Refusal>> {
    let errno = match message.payload.first_chunk() {
        Some(errno) => i32::from_ne_bytes(*errno),
        None => bail!("a netlink answer ends without an error number"),
    };
    if errno == 0 {
        return Ok(None);
    }
    // NLMSG_DONE has no header of a request in it.
    let skip = if message.kind == NLMSG_ERROR { ERROR_HEADER } else { 4 };
    let with_text = message.flags & NLM_F_ACK_TLVS != 0;
    let attributes = message.payload.get(skip..).filter(|_| with_text).unwrap_or_default();
    let text = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == ERROR_TEXT)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned());
    Ok(Some(Refusal { errno: errno.saturating_neg(), text }))
}
