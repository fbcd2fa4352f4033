//! Frames made by a test, sent from an interface as they are.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};

use super::netns::Namespace;

/// A packet socket (packet(7)) that sends whole Ethernet frames from one interface.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    ifindex: i32,
}

impl Injector {
    /// Opens it on that interface of the namespace: on a container's `eth0`, the node receives the frames.
    ///
    /// # Errors
    /// If there is no such interface, or the kernel refuses.
    pub fn new(namespace: &Namespace, interface: &str) -> Result<Self> {
        let ifindex = i32::try_from(namespace.ifindex(interface)?)?;
        let socket = namespace.enter(|| {
            // Protocol 0: it receives nothing.
            // SAFETY: socket() touches no memory.
            let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            if socket < 0 {
                return Err(io::Error::last_os_error()).context("cannot open a packet socket");
            }
            // SAFETY: the descriptor is new and has no other owner.
            Ok(unsafe { OwnedFd::from_raw_fd(socket) })
        })?;
        Ok(Self { socket, ifindex })
    }

    /// Sends one frame, from its destination MAC on.
    ///
    /// # Errors
    /// If it is larger than the interface's MTU and the Ethernet header, or the interface is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let length = libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_ll>())?;
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_ifindex = self.ifindex;
        // SAFETY: both pointers are to live values of the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("cannot send the frame");
        }
        ensure!(usize::try_from(sent)? == frame.len(), "only {sent} of {} bytes were sent", frame.len());
        Ok(())
    }
}
