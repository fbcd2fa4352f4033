//! The changes that the kernel reports.

use std::{collections::VecDeque, io};

use anyhow::{Context, Result};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE, NETLINK_XFRM};

use super::{
    decode::{self, Message},
    device, nexthop,
    socket::{Datagram, NetlinkSocket, set_receive_buffer},
    types::{Event, Peer, Place},
    xfrm,
};

/// `RTNLGRP_IPV4_NETCONF` and `RTM_NEWNETCONF` of `linux/rtnetlink.h`: settings of `net.ipv4.conf`.
const IPV4_NETCONF: u32 = 24;
const RTM_NEWNETCONF: u16 = 80;

/// Changes of links, IPv4 addresses, routes, rules and forwarding in this namespace, and of links in others.
#[derive(Debug)]
pub struct Events {
    /// This namespace alone.
    own: NetlinkSocket,
    /// Links of every namespace. A socket of its own, so that it need not hear of the others' routes, and a
    /// crowd of containers cannot crowd out the events of this namespace.
    everywhere: NetlinkSocket,
    /// What the devices of this namespace can do, where the kernel tells.
    devices: Option<NetlinkSocket>,
    /// IPsec policies, where the kernel has them.
    ipsec: Option<NetlinkSocket>,
    waiting: VecDeque<Event>,
}

impl Events {
    pub(super) fn open(receive_buffer: usize) -> Result<Self> {
        let own = NetlinkSocket::open(NETLINK_ROUTE, |socket| {
            set_receive_buffer(socket, receive_buffer)?;
            for group in [
                libc::RTNLGRP_LINK,
                libc::RTNLGRP_IPV4_IFADDR,
                libc::RTNLGRP_IPV4_ROUTE,
                libc::RTNLGRP_IPV4_RULE,
                nexthop::GROUP,
                IPV4_NETCONF,
            ] {
                socket.add_membership(group)?;
            }
            Ok(())
        })
        .context("following the kernel's events needs CAP_NET_ADMIN")?;
        let everywhere = NetlinkSocket::open(NETLINK_ROUTE, |socket| {
            set_receive_buffer(socket, receive_buffer)?;
            socket.set_listen_all_namespaces(true)?;
            socket.add_membership(libc::RTNLGRP_LINK)
        })
        .context("following the links of containers needs CAP_NET_ADMIN and CAP_NET_BROADCAST")?;
        let join = |socket: &netlink_sys::Socket| socket.add_membership(xfrm::GROUP);
        let ipsec = NetlinkSocket::open(NETLINK_XFRM, join).context("following IPsec policies");
        let ipsec = super::without_support(ipsec)?;
        Ok(Self { own, everywhere, devices: None, ipsec, waiting: VecDeque::new() })
    }

    /// Follows what devices can do from now on; `group` is where the kernel tells.
    ///
    /// # Errors
    ///
    /// Where the group cannot be joined.
    pub fn follow_devices(&mut self, group: u32) -> Result<()> {
        let join = |socket: &netlink_sys::Socket| socket.add_membership(group);
        self.devices =
            Some(NetlinkSocket::open(NETLINK_GENERIC, join).context("following the devices' features")?);
        Ok(())
    }

    /// The next change. Nothing is lost where the future is dropped before it is done.
    ///
    /// # Errors
    ///
    /// Where the socket fails or a message cannot be read. Events are lost then: do not go on with these.
    pub async fn next(&mut self) -> Result<Event> {
        // Under a flood there is always something to receive; other tasks get their turn here.
        tokio::task::consume_budget().await;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let complete = tokio::select! {
                received = self.own.receive() => take(received, &mut self.waiting, own_event),
                received = self.everywhere.receive() => take(received, &mut self.waiting, peer_event),
                received = receive(&mut self.devices) => take(received, &mut self.waiting, device::event),
                received = receive(&mut self.ipsec) => take(received, &mut self.waiting, ipsec_event),
            }?;
            if !complete {
                // What is still queued is older than what was lost: it must not be taken for news after the
                // dump that follows. The kernel also goes on losing until the queue is empty
                // (`NETLINK_S_CONGESTED` in net/netlink/af_netlink.c).
                self.own.drain().context("cannot receive the kernel's events")?;
                self.everywhere.drain().context("cannot receive the kernel's events")?;
                for socket in [&mut self.devices, &mut self.ipsec].into_iter().flatten() {
                    socket.drain().context("cannot receive the kernel's events")?;
                }
                self.waiting.clear();
                return Ok(Event::Overrun);
            }
        }
    }
}

/// The next datagram; never, where there is no socket.
async fn receive(socket: &mut Option<NetlinkSocket>) -> io::Result<Datagram<'_>> {
    match socket {
        Some(socket) => socket.receive().await,
        None => std::future::pending().await,
    }
}

/// Puts the events of a datagram into `waiting`; `false` where some were lost.
fn take(
    received: io::Result<Datagram<'_>>,
    waiting: &mut VecDeque<Event>,
    event: fn(&Message<'_>, Option<i32>) -> Result<Option<Event>>,
) -> Result<bool> {
    let datagram = match received {
        Ok(datagram) if datagram.truncated => return Ok(false),
        Ok(datagram) => datagram,
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(false),
        Err(error) => return Err(error).context("cannot receive the kernel's events"),
    };
    for message in decode::messages(datagram.bytes) {
        let message = message?;
        let event = event(&message, datagram.netnsid)
            .with_context(|| format!("a netlink event of type {}", message.kind))?;
        waiting.extend(event);
    }
    Ok(true)
}

fn own_event(message: &Message<'_>, _netnsid: Option<i32>) -> Result<Option<Event>> {
    let payload = message.payload;
    Ok(match message.kind {
        libc::RTM_NEWLINK => decode::link(payload)?.map(Event::Link),
        libc::RTM_DELLINK => decode::link_index(payload)?.map(Event::LinkGone),
        libc::RTM_NEWADDR => decode::address(payload)?.map(Event::Address),
        libc::RTM_DELADDR => decode::address(payload)?.map(Event::AddressGone),
        libc::RTM_NEWROUTE => decode::route(payload)?.map(|route| Event::Route(route, place(message.flags))),
        libc::RTM_DELROUTE => decode::route(payload)?.map(Event::RouteGone),
        nexthop::RTM_NEWNEXTHOP => Some(Event::NextHop(nexthop::decode(payload)?)),
        nexthop::RTM_DELNEXTHOP => Some(Event::NextHopGone(nexthop::decode(payload)?.id)),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Event::Rules),
        RTM_NEWNETCONF => Some(Event::Forwarding),
        _ => None,
    })
}

/// Whatever the group tells of: all policies are listed again.
fn ipsec_event(_message: &Message<'_>, _netnsid: Option<i32>) -> Result<Option<Event>> {
    Ok(Some(Event::Ipsec))
}

/// `fib_table_insert()` in net/ipv4/fib_trie.c repeats the flags of the request that decided the place.
fn place(flags: u16) -> Place {
    if flags & NLM_F_REPLACE != 0 {
        Place::Replace
    } else if flags & NLM_F_APPEND != 0 {
        Place::Last
    } else {
        Place::First
    }
}

fn peer_event(message: &Message<'_>, netnsid: Option<i32>) -> Result<Option<Event>> {
    // Links of this namespace come without a number, and by the other socket.
    let Some(netnsid) = netnsid else { return Ok(None) };
    let peer = |ifindex| Peer { ifindex, netnsid: Some(netnsid) };
    Ok(match message.kind {
        libc::RTM_NEWLINK => decode::link(message.payload)?.map(|link| Event::PeerLink {
            peer: peer(link.index),
            mac: link.mac,
            gone: false,
        }),
        libc::RTM_DELLINK => decode::link_index(message.payload)?.map(|index| Event::PeerLink {
            peer: peer(index),
            mac: None,
            gone: true,
        }),
        _ => None,
    })
}
