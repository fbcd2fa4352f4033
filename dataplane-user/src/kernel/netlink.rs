//! The one module that speaks netlink: links, IPv4 addresses, IPv4 routes and rules, the host's sockets, and what devices can do.
//!
//! It gives and takes plain types of its own ([`Link`], [`Address`], [`Route`], [`Event`]); nothing of the wire
//! format leaks out. Everything happens in the network namespace of the thread that calls
//! [`Netlink::connect`], and the same thread should make the requests.
//!
//! The sockets are driven here instead of by the `rtnetlink` crate, for three reasons. That crate drops a
//! message when any one of its attributes is unknown to it, and a mirror that silently lacks a link or a route
//! is worse than none. Its event queue has no bound. And it does not pass on which namespace an event came from.

mod decode;
mod device;
mod events;
mod exchange;
pub mod filters;
mod nexthop;
mod request;
mod socket;
mod sockets;
mod types;

use anyhow::{Context, Result, bail};
use dataplane_common::{names, net::MacAddr};
use ipnet::Ipv4Net;
use netlink_packet_core::{NetlinkMessage, NetlinkSerializable};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use self::exchange::{Answer, Requests};
pub use self::{
    device::Device,
    events::Events,
    exchange::Refusal,
    nexthop::{NextHop, NextHopTarget},
    sockets::{BoundSocket, Sockets, Transport},
    types::{Added, Address, Event, Link, OwnRoute, OwnTarget, Peer, Place, Route, RouteKind},
};

/// How often a dump is begun again when the kernel says that what it walked changed meanwhile.
const DUMP_ATTEMPTS: usize = 16;

/// How often a route is tried again when the one in its way is gone by the time it is looked at.
const ADD_ATTEMPTS: usize = 8;

/// Bytes of unread events that the kernel keeps for us: about 100,000 route changes.
const RECEIVE_BUFFER: usize = 64 << 20;

/// The way to ask the kernel and to write routes.
#[derive(Debug)]
pub struct Netlink {
    requests: Requests,
    /// Generic netlink.
    generic: Requests,
}

impl Netlink {
    /// Opens the sockets in the calling thread's network namespace, inside a tokio runtime.
    ///
    /// Events are collected from now on, so that a dump made later and the events since then together miss
    /// nothing.
    ///
    /// # Errors
    ///
    /// Where a socket cannot be had or set up: it needs `CAP_NET_ADMIN` (receive buffer) and
    /// `CAP_NET_BROADCAST` (links of the containers' namespaces).
    pub fn connect() -> Result<(Self, Events)> {
        Self::connect_with_receive_buffer(RECEIVE_BUFFER)
    }

    /// [`Self::connect`] with that many bytes for unread events.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub fn connect_with_receive_buffer(bytes: usize) -> Result<(Self, Events)> {
        let events = Events::open(bytes)?;
        let (requests, generic) = (Requests::open(NETLINK_ROUTE)?, Requests::open(NETLINK_GENERIC)?);
        Ok((Self { requests, generic }, events))
    }

    /// Every link of this namespace.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, or its answer cannot be read.
    pub async fn links(&self) -> Result<Vec<Link>> {
        self.dump("links", request::links, decode::link).await
    }

    /// Every IPv4 address of this namespace.
    ///
    /// # Errors
    ///
    /// As [`Self::links`].
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        self.dump("addresses", request::addresses, decode::address).await
    }

    /// Every nexthop object.
    ///
    /// # Errors
    ///
    /// As [`Self::links`].
    pub async fn nexthops(&self) -> Result<Vec<NextHop>> {
        self.dump("nexthop objects", nexthop::dump, |payload| nexthop::decode(payload).map(Some)).await
    }

    /// Every IPv4 route of every table (`local` and `main` among them), each table in the kernel's own order;
    /// without cached exceptions.
    ///
    /// # Errors
    ///
    /// As [`Self::links`].
    pub async fn routes(&self) -> Result<Vec<Route>> {
        self.dump("routes", || request::routes(None), decode::route).await
    }

    /// The MAC address of a veth's other end, without entering its namespace; `None` when it is gone.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses for another reason than that the link or its namespace is gone.
    pub async fn peer_mac(&self, peer: Peer) -> Result<Option<MacAddr>> {
        let mut found = None;
        let answer = self
            .requests
            .exchange(request::peer(peer), |payload| {
                found = decode::link(payload)?.and_then(|link| link.mac);
                Ok(())
            })
            .await
            .with_context(|| format!("asking for the peer link {peer}"))?;
        match answer {
            Answer::Complete | Answer::Interrupted => Ok(found),
            Answer::Refused(refusal) if refusal.errno == libc::ENODEV => Ok(None),
            // What rtnl_get_net_ns_capable() (net/core/rtnetlink.c) says of a namespace id that stands for
            // nothing any more: the container ended, and its namespace with it.
            Answer::Refused(refusal) if refusal.errno == libc::EINVAL && peer.netnsid.is_some() => Ok(None),
            Answer::Refused(refusal) => {
                Err(refusal).with_context(|| format!("asking for the peer link {peer}"))
            }
        }
    }

    /// What the device can do.
    ///
    /// # Errors
    ///
    /// Where the kernel's answer cannot be read. A device that is gone can do nothing.
    pub async fn device(&self, ifindex: u32) -> Result<Device> {
        device::ask(&self.generic, ifindex).await.with_context(|| format!("asking for the device {ifindex}"))
    }

    /// Where the kernel tells that devices can do other things; `None` before Linux 6.3.
    ///
    /// # Errors
    ///
    /// As [`Self::device`].
    pub async fn device_events(&self) -> Result<Option<u32>> {
        device::event_group(&self.generic).await
    }

    /// Writes a route of ours into table `main`, never over a route of anybody else.
    ///
    /// An older route of ours for the same prefix that leads elsewhere is replaced without a gap.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, e.g. because the gateway is not on a link of this node.
    pub async fn add_route(&self, route: &OwnRoute) -> Result<Added> {
        let context = || format!("adding the route {route}");
        for _ in 0..ADD_ATTEMPTS {
            match self.requests.exchange(request::add_route(route), ignore).await.with_context(context)? {
                Answer::Complete | Answer::Interrupted => return Ok(Added::Added),
                // Any route with this prefix, TOS 0 and metric 0 is in the way, whoever wrote it: see whose.
                Answer::Refused(refusal) if refusal.errno == libc::EEXIST => {}
                Answer::Refused(refusal) => return Err(refusal).with_context(context),
            }
            let Some(present) = self.route_in_the_way(route.destination).await.with_context(context)? else {
                continue;
            };
            if present.protocol != names::ROUTE_PROTOCOL {
                return Ok(Added::TakenBy { protocol: present.protocol });
            }
            if route.is(&present) {
                return Ok(Added::AlreadyThere);
            }
            let Some(older) = OwnRoute::from_route(&present) else {
                bail!(
                    "{}: a route with our protocol number {} is there that we never write: {present:?}. \
                     Remove it with `ip route del {} proto {}`",
                    context(),
                    present.protocol,
                    present.destination,
                    present.protocol
                );
            };
            // Append and then delete, not NLM_F_REPLACE: that replaces whichever route is first by then,
            // which may be somebody else's.
            match self.requests.exchange(request::append_route(route), ignore).await.with_context(context)? {
                Answer::Complete | Answer::Interrupted => {}
                // A second copy behind the older one, e.g. because a predecessor was killed between the two
                // steps: what is left to do is to delete the older one.
                Answer::Refused(refusal) if refusal.errno == libc::EEXIST => {}
                Answer::Refused(refusal) => return Err(refusal).with_context(context),
            }
            self.delete_route(&older).await?;
            return Ok(Added::Added);
        }
        bail!("{}: another route for this prefix comes and goes; see `ip monitor route`", context())
    }

    /// Deletes a route of ours from table `main`; a route of anybody else is never touched.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses for another reason than that there is no such route.
    pub async fn delete_route(&self, route: &OwnRoute) -> Result<()> {
        let context = || format!("deleting the route {route}");
        match self.requests.exchange(request::delete_route(route), ignore).await.with_context(context)? {
            Answer::Complete | Answer::Interrupted => Ok(()),
            // Gone already: the kernel drops the routes of a link that goes down or away by itself, and an
            // operator may have deleted it. Gone is what was asked for.
            Answer::Refused(refusal) if refusal.errno == libc::ESRCH => Ok(()),
            Answer::Refused(refusal) => Err(refusal).with_context(context),
        }
    }

    /// Whether `ip rule` holds the three IPv4 rules that every namespace is born with, and no other.
    ///
    /// Any other rule makes the kernel's choice depend on more than the destination, which a mirror of
    /// tables `local` and `main` does not show. [`Event::Rules`] says when to ask again.
    ///
    /// # Errors
    ///
    /// As [`Self::links`].
    pub async fn rules_are_default(&self) -> Result<bool> {
        let mut rules = self.dump("rules", request::rules, decode::default_rule).await?;
        rules.sort_unstable();
        Ok(rules == decode::DEFAULT_RULES.map(Some))
    }

    /// The route of table `main` with that prefix, TOS 0 and metric 0: the one that a new route meets.
    async fn route_in_the_way(&self, destination: Ipv4Net) -> Result<Option<Route>> {
        let in_the_way = |route: &Route| {
            route.destination == destination
                && route.table == u32::from(libc::RT_TABLE_MAIN)
                && route.tos == 0
                && route.metric == 0
        };
        // A lookup costs nothing but may find a longer prefix, or one of table `local`; it refuses where the
        // route is a blackhole. Only then walk the table, which may hold a million routes.
        let mut found = None;
        let answer = self
            .requests
            .exchange(request::lookup(destination.network()), |payload| {
                found = decode::route(payload)?;
                Ok(())
            })
            .await?;
        if let (Answer::Complete, Some(route)) = (answer, found.filter(in_the_way)) {
            return Ok(Some(route));
        }
        let main = || request::routes(Some(libc::RT_TABLE_MAIN));
        Ok(self.dump("routes", main, |payload| Ok(decode::route(payload)?.filter(in_the_way))).await?.pop())
    }

    /// Dumps until the kernel says that nothing changed on the way.
    async fn dump<T, R: NetlinkSerializable>(
        &self,
        what: &str,
        request: impl Fn() -> NetlinkMessage<R>,
        decode: impl Fn(&[u8]) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let answer = self
                .requests
                .exchange(request(), |payload| {
                    found.extend(decode(payload)?);
                    Ok(())
                })
                .await
                .with_context(|| format!("listing the kernel's {what}"))?;
            match answer {
                Answer::Complete => return Ok(found),
                Answer::Interrupted => {}
                Answer::Refused(refusal) => {
                    return Err(refusal).with_context(|| format!("listing the kernel's {what}"));
                }
            }
        }
        bail!("listing the kernel's {what}: they changed during each of {DUMP_ATTEMPTS} attempts; try again")
    }
}

/// For requests whose answer is an acknowledgement alone.
fn ignore(_payload: &[u8]) -> Result<()> {
    Ok(())
}
