//! A netlink socket, driven by the runtime.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
};

use anyhow::{Context, Result};
use netlink_sys::{Socket, SocketAddr};
use tokio::io::{Interest, unix::AsyncFd};

/// The kernel fills dumps into datagrams of at most 32 KiB (`netlink_dump()` in net/netlink/af_netlink.c), and
/// an event is one message.
const DATAGRAM: usize = 64 << 10;

/// The socket, and room for one datagram.
#[derive(Debug)]
pub(super) struct NetlinkSocket {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

/// One datagram, as it was received.
#[derive(Debug)]
pub(super) struct Datagram<'a> {
    pub(super) bytes: &'a [u8],
    /// The namespace that it came from, by the number that ours has for it; `None` for our own.
    pub(super) netnsid: Option<i32>,
    /// It did not fit, and its end is lost.
    pub(super) truncated: bool,
}

impl NetlinkSocket {
    /// A socket of the protocol in the calling thread's namespace; `prepare` runs before anything is received.
    pub(super) fn open(protocol: isize, prepare: impl FnOnce(&Socket) -> io::Result<()>) -> Result<Self> {
        let mut socket = Socket::new(protocol).context("cannot open a netlink socket")?;
        socket.set_non_blocking(true).context("cannot make a netlink socket non-blocking")?;
        socket.bind_auto().context("cannot bind a netlink socket")?;
        prepare(&socket).context("cannot set up a netlink socket")?;
        // SAFETY: the socket owns its descriptor, always gives the same one, and lives as long as the registration.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(io::Error::from)
            .context("cannot register a netlink socket with the runtime")?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Sends to the kernel, which works on the request before this returns.
    pub(super) fn send(&self, request: &[u8]) -> io::Result<()> {
        let sent = self.socket.get_ref().send_to(request, &SocketAddr::new(0, 0), 0)?;
        if sent == request.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next datagram of the kernel. Nothing is lost where the future is dropped.
    pub(super) async fn receive(&mut self) -> io::Result<Datagram<'_>> {
        let received = loop {
            // Most answers are there already: asking the reactor first would double the cost of a request.
            match receive(self.socket.get_ref().as_fd(), &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break done?,
            }
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            if let Ok(done) = ready.try_io(|socket| receive(socket.get_ref().as_fd(), buffer)) {
                break done?;
            }
        };
        Ok(Datagram {
            bytes: &self.buffer[..received.length],
            netnsid: received.netnsid,
            truncated: received.truncated,
        })
    }

    /// Throws away what is queued, and what comes meanwhile.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        loop {
            match receive(self.socket.get_ref().as_fd(), &mut self.buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sets how many bytes of datagrams may wait, whatever `net.core.rmem_max` says.
pub(super) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the option takes a pointer to an int and its size, and both are those of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            ptr::from_ref(&value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Received {
    length: usize,
    netnsid: Option<i32>,
    truncated: bool,
}

/// One `recvmsg(2)`; datagrams that are not the kernel's are thrown away.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    loop {
        // The namespace's number takes CMSG_SPACE(4) = 24 bytes; words, because the header must be aligned.
        let mut control = [0_u64; 8];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: both are plain C structures of numbers and pointers, for which all zeroes is a valid value.
        let (mut sender, mut header): (libc::sockaddr_nl, libc::msghdr) = unsafe { mem::zeroed() };
        header.msg_name = ptr::from_mut(&mut sender).cast();
        header.msg_namelen = mem::size_of_val(&sender) as libc::socklen_t;
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = mem::size_of_val(&control);
        // SAFETY: every pointer in `header` is to a live object of the length beside it.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_DONTWAIT) };
        let Ok(length) = usize::try_from(length) else {
            return Err(io::Error::last_os_error());
        };
        // Any process may send to our port; the kernel's is 0.
        if sender.nl_pid == 0 {
            let truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
            return Ok(Received { length, netnsid: namespace_of(&header), truncated });
        }
    }
}

/// The namespace's number in the control messages of a received datagram.
fn namespace_of(header: &libc::msghdr) -> Option<i32> {
    // SAFETY: `header` was filled by recvmsg(), so its control messages are whole, and they are still there.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a header that lies within the control buffer.
        let control = unsafe { *next };
        if (control.cmsg_level, control.cmsg_type) == (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID) {
            // SAFETY: the kernel put an int behind this header (netlink_cmsg_listen_all_nsid()).
            return Some(unsafe { libc::CMSG_DATA(next).cast::<libc::c_int>().read_unaligned() });
        }
        // SAFETY: as for CMSG_FIRSTHDR; `next` is a header of the same buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    None
}
