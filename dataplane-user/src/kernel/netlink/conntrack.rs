//! The kernel's connection tracking (ctnetlink): entries looked up, kept fresh, and heard of when they are destroyed.
//!
//! The calls wait for the kernel, which answers at once: they are for a thread of their own.

mod wire;

use std::{
    io,
    num::NonZeroI32,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context as _, Result, bail, ensure};
use dataplane_common::{family::V4, flow::tuple};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute as Attribute, ConntrackMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use self::wire::{entry, messages, parts, request};
use super::socket::set_receive_buffer;

/// Addresses and ports of one direction.
pub type Tuple = tuple::Tuple<V4>;

/// `NFNLGRP_CONNTRACK_DESTROY` of linux/netfilter/nfnetlink.h.
const GROUP_DESTROY: u32 = 3;

/// Requests that are sent at a time: their answers fit the receive buffer.
const BATCH: usize = 64;

/// Bytes of answers that may wait.
const ANSWERS: usize = 1 << 20;

/// Bytes of events that may wait: some ten thousand of them.
const EVENTS: usize = 8 << 20;

/// What connection tracking knows of a connection, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The tuple of packets of the original direction, as they come.
    pub original: Tuple,
    /// The tuple of packets of the reply direction, as they come.
    pub reply: Tuple,
    /// Whether it has seen traffic in both directions and is not dropped early (`IPS_ASSURED`, `IPS_SEEN_REPLY`).
    pub is_assured: bool,
    /// Whether it is being removed.
    pub is_dying: bool,
    /// Whether a flowtable of nftables has it.
    pub is_offloaded: bool,
    /// Whether a helper reads it, or its sequence numbers are adjusted: each packet must pass the kernel.
    pub is_helped: bool,
    /// For TCP, whether its state is ESTABLISHED.
    pub is_established: bool,
    /// For TCP, whether packets beyond the window are taken in both directions (`IP_CT_TCP_FLAG_BE_LIBERAL`).
    pub is_liberal: bool,
    /// Seconds until it ends, unless a packet comes.
    pub timeout: u32,
    /// The connection's mark.
    pub mark: u32,
    /// Its zone; 0 for none.
    pub zone: u16,
}

/// What is to be changed of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its original tuple.
    pub original: Tuple,
    /// Seconds that it is to live from now on, where that is to change.
    pub timeout: Option<u32>,
    /// What is to become of what it knows of TCP's sequence numbers.
    pub tcp: TcpChange,
}

/// What is to become of what an entry knows of TCP's sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpChange {
    /// It stays, or it is not TCP.
    None,
    /// Packets beyond the window are taken from now on: connection tracking misses those that BPF carries, as it misses those of a
    /// flowtable (`flow_offload_fixup_tcp()` in net/netfilter/nf_flow_table_core.c).
    Liberal,
    /// Besides, nothing is waited for any more: neither that data be acknowledged, which shortens the timeout, nor for a RST with
    /// a number that was acknowledged before. To be done when BPF carries it: the next packet in the kernel makes it anew.
    Forget,
}

/// The way to ask.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Conntrack {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let socket = open(ANSWERS)?;
        Ok(Self { socket, buffer: vec![0; 1 << 16], sequence: 0 })
    }

    /// The entry of each tuple, whichever direction the tuple is of; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Where the kernel has no connection tracking, or refuses to tell.
    pub fn lookup(&mut self, tuples: &[Tuple]) -> Result<Vec<Option<Entry>>> {
        let mut entries = Vec::with_capacity(tuples.len());
        for tuples in tuples.chunks(BATCH) {
            let requests = tuples.iter().map(|tuple| {
                (NLM_F_REQUEST, ConntrackMessage::Get(vec![Attribute::CtaTupleOrig(parts(tuple))]))
            });
            for answer in self.exchange(requests.collect())? {
                entries.push(match answer {
                    Answer::Entry(attributes) => entry(&attributes),
                    Answer::Missing => None,
                    Answer::Refused(errno) => {
                        return Err(io::Error::from_raw_os_error(errno))
                            .context("connection tracking refuses to tell");
                    }
                    Answer::Done => bail!("connection tracking answered without an entry"),
                });
            }
        }
        Ok(entries)
    }

    /// Changes the entries; says of each whether it was there and could be changed.
    ///
    /// # Errors
    ///
    /// As [`Self::lookup`].
    pub fn change(&mut self, changes: &[Change]) -> Result<Vec<bool>> {
        let mut done = Vec::with_capacity(changes.len());
        for changes in changes.chunks(BATCH) {
            let requests = changes.iter().map(|change| (NLM_F_REQUEST | NLM_F_ACK, request(change)));
            let answers = self.exchange(requests.collect())?;
            done.extend(answers.into_iter().map(|answer| matches!(answer, Answer::Done)));
        }
        Ok(done)
    }

    /// Sends the requests at once, each of which has one answer.
    fn exchange(&mut self, requests: Vec<(u16, ConntrackMessage)>) -> Result<Vec<Answer>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let count = requests.len();
        for (flags, request) in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
            let payload = NetlinkPayload::from(NetfilterMessage::new(header, request));
            let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
            message.header.flags = flags;
            message.header.sequence_number = self.sequence;
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(&mut bytes[start..]);
        }
        let sent = self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0);
        ensure!(sent.context("cannot ask connection tracking")? == bytes.len(), "a request was cut short");
        let mut answers: Vec<Option<Answer>> = (0..count).map(|_| None).collect();
        let mut missing = count;
        while missing > 0 {
            wait(self.socket.as_fd())?;
            let length =
                receive(&self.socket, &mut self.buffer).context("cannot hear from connection tracking")?;
            for message in messages(&self.buffer[..length]) {
                let message = message?;
                let place = message.header.sequence_number.wrapping_sub(first) as usize;
                // Of an exchange before, which ended with an error.
                let Some(answer) = answers.get_mut(place).filter(|answer| answer.is_none()) else { continue };
                *answer = Some(Answer::new(message.payload)?);
                missing -= 1;
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

/// What became of a request.
enum Answer {
    Entry(Vec<Attribute>),
    Missing,
    Refused(i32),
    Done,
}

impl Answer {
    fn new(payload: NetlinkPayload<NetfilterMessage>) -> Result<Self> {
        match payload {
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                ..
            }) => Ok(Self::Entry(attributes)),
            NetlinkPayload::Error(error) => match error.code.map(NonZeroI32::get) {
                None => Ok(Self::Done),
                Some(code) if -code == libc::ENOENT => Ok(Self::Missing),
                Some(code) => Ok(Self::Refused(-code)),
            },
            other => bail!("connection tracking answered with {other:?}"),
        }
    }
}

/// What tells of entries that are destroyed: by `conntrack -D`, by kube-proxy, or in time.
#[derive(Debug)]
pub struct Destroyed {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Destroyed {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the socket.
    pub fn listen() -> Result<Self> {
        let socket = open(EVENTS)?;
        socket.add_membership(GROUP_DESTROY).context("cannot listen to connection tracking")?;
        Ok(Self { socket, buffer: vec![0; 1 << 16] })
    }

    /// Readable when there is something to tell.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Gives each original tuple whose entry is gone, of those that are heard of by now. False where some were lost.
    ///
    /// # Errors
    ///
    /// Where the socket fails.
    pub fn drain(&mut self, mut each: impl FnMut(Tuple)) -> Result<bool> {
        loop {
            let length = match receive(&self.socket, &mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(false),
                Err(error) => return Err(error).context("cannot hear from connection tracking"),
            };
            for message in messages(&self.buffer[..length]) {
                if let NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::Delete(attributes)),
                    ..
                }) = message?.payload
                    && let Some(entry) = entry(&attributes)
                {
                    each(entry.original);
                }
            }
        }
    }
}

fn open(receive_buffer: usize) -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)
        .context("cannot open a netfilter socket (the kernel needs CONFIG_NETFILTER_NETLINK)")?;
    socket.set_non_blocking(true).context("cannot make a netlink socket non-blocking")?;
    socket.bind_auto().context("cannot bind a netlink socket")?;
    set_receive_buffer(&socket, receive_buffer).context("cannot enlarge a netlink socket's buffer")?;
    Ok(socket)
}

/// One datagram of the kernel's; those of others are thrown away.
fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let (length, sender) = socket.recv_from(&mut &mut buffer[..], 0)?;
        if sender.port_number() == 0 {
            return Ok(length);
        }
    }
}

/// Waits for an answer, which is there as soon as the request is sent: where none comes it was lost.
fn wait(socket: BorrowedFd<'_>) -> Result<()> {
    let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => bail!("connection tracking does not answer"),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for connection tracking"),
        }
    }
}
