//! The one module that speaks netlink: links, IPv4 addresses, IPv4 routes and rules, the host's sockets, connection tracking, and what devices can do.
//!
//! It gives and takes plain types of its own ([`Link`], [`Address`], [`Route`], [`Event`]); nothing of the wire
//! format leaks out. Everything happens in the network namespace of the thread that calls
//! [`Netlink::connect`], and the same thread should make the requests.
//!
//! The sockets are driven here instead of by the `rtnetlink` crate, for three reasons. That crate drops a
//! message when any one of its attributes is unknown to it, and a mirror that silently lacks a link or a route
//! is worse than none. Its event queue has no bound. And it does not pass on which namespace an event came from.

pub mod conntrack;
mod decode;
mod device;
mod events;
mod exchange;
pub mod filters;
mod neighbour;
mod nexthop;
mod raw;
mod request;
mod socket;
mod sockets;
mod types;
mod xfrm;

use anyhow::{Context, Result, bail};
use dataplane_common::{names, net::MacAddr};
use ipnet::Ipv4Net;
use netlink_packet_core::{NetlinkMessage, NetlinkSerializable};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE, NETLINK_XFRM};

use self::exchange::{Answer, Requests};
pub use self::{
    device::Device,
    events::Events,
    exchange::Refusal,
    nexthop::{NextHop, NextHopTarget},
    sockets::{BoundSocket, Sockets, Transport},
    types::{Added, Address, Event, Link, OwnRoute, OwnTarget, Peer, Place, Present, Route, RouteKind},
    xfrm::IpsecPolicy,
};

/// How often a dump is begun again when the kernel says that what it walked changed meanwhile.
const DUMP_ATTEMPTS: usize = 16;

/// Bytes of unread events that the kernel keeps for us: about 100,000 route changes.
const RECEIVE_BUFFER: usize = 64 << 20;

/// The way to ask the kernel and to write routes.
#[derive(Debug)]
pub struct Netlink {
    requests: Requests,
    /// Generic netlink.
    generic: Requests,
    /// IPsec, where the kernel has it.
    ipsec: Option<Requests>,
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
        let ipsec = without_support(Requests::open(NETLINK_XFRM))?;
        Ok((Self { requests, generic, ipsec }, events))
    }

    /// The IPsec policies that do something to forwarded IPv4 packets.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, or its answer cannot be read.
    pub async fn ipsec_policies(&self) -> Result<Vec<IpsecPolicy>> {
        let Some(ipsec) = &self.ipsec else { return Ok(Vec::new()) };
        let mut found = dump(ipsec, "IPsec policies", xfrm::dump, xfrm::decode).await?;
        let mut blocks = false;
        let answer = ipsec.exchange(xfrm::default(), |payload| {
            blocks |= xfrm::blocks_by_default(payload)?;
            Ok(())
        });
        // An older kernel does not know the request, and blocks nothing by default.
        if let (Answer::Complete, true) = (answer.await?, blocks) {
            found.push(IpsecPolicy { source: Ipv4Net::default(), destination: Ipv4Net::default() });
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
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

    /// Has the kernel's neighbour entries on a link that have the MAC address `old` have `new`: what it sends itself goes
    /// there at once. Entries that somebody set by hand stay.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses for another reason than that an entry or the link is gone.
    pub async fn change_neighbours(&self, ifindex: u32, old: MacAddr, new: MacAddr) -> Result<()> {
        let found = self.dump("neighbours", || neighbour::dump(ifindex), neighbour::decode).await?;
        for stale in found.into_iter().filter(|found| found.ifindex == ifindex && found.mac == old) {
            let current = neighbour::Neighbour { mac: new, ..stale };
            match self.requests.exchange(neighbour::replace(&current), ignore).await? {
                Answer::Refused(refusal) if !matches!(refusal.errno, libc::ENOENT | libc::ENODEV) => {
                    return Err(refusal).with_context(|| format!("changing the neighbour {}", stale.address));
                }
                _ => {}
            }
        }
        Ok(())
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
    /// An older route of ours for the same prefix that leads elsewhere is replaced without a gap. `known` is the route with
    /// this prefix and metric that the caller knows of: what is in the way is not looked for in a table that may hold a
    /// million routes.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, e.g. because the gateway is not on a link of this node; and where a route is in the way
    /// that neither the kernel's lookup nor the caller knows: it is to be tried again when the events are in.
    pub async fn add_route(&self, route: &OwnRoute, known: Option<Present>) -> Result<Added> {
        let context = || format!("adding the route {route}");
        match self.requests.exchange(request::add_route(route), ignore).await.with_context(context)? {
            Answer::Complete | Answer::Interrupted => return Ok(Added::Added),
            // Any route with this prefix, TOS 0 and metric is in the way, whoever wrote it: see whose.
            Answer::Refused(refusal) if refusal.errno == libc::EEXIST => {}
            Answer::Refused(refusal) => return Err(refusal).with_context(context),
        }
        let older = match self.route_in_the_way(route).await.with_context(context)?.or(known) {
            None => bail!("{}: another route for this prefix is in the way, see `ip route`", context()),
            Some(Present::Foreign { protocol }) => return Ok(Added::TakenBy { protocol }),
            Some(Present::Own(present)) if present == *route => return Ok(Added::AlreadyThere),
            Some(Present::Own(older)) => older,
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
        Ok(Added::Added)
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

    /// The route of table `main` that the kernel finds for the prefix, if it is the one that a new route meets. The lookup
    /// may find another one: a longer prefix, one of table `local` or of a lower metric. It refuses where the route is a
    /// blackhole.
    async fn route_in_the_way(&self, new: &OwnRoute) -> Result<Option<Present>> {
        let mut found = None;
        let answer = self
            .requests
            .exchange(request::lookup(new.destination.network()), |payload| {
                found = decode::route(payload)?;
                Ok(())
            })
            .await?;
        let in_the_way = |route: &Route| {
            route.destination == new.destination
                && route.table == u32::from(libc::RT_TABLE_MAIN)
                && route.tos == 0
                && route.metric == new.metric
        };
        let (Answer::Complete, Some(route)) = (answer, found.filter(in_the_way)) else { return Ok(None) };
        if route.protocol != names::ROUTE_PROTOCOL {
            return Ok(Some(Present::Foreign { protocol: route.protocol }));
        }
        let Some(own) = OwnRoute::from_route(&route) else {
            bail!(
                "a route with our protocol number {} is there that we never write: {route:?}. Remove it with `ip route \
                 del {} proto {}`",
                route.protocol,
                route.destination,
                route.protocol
            );
        };
        Ok(Some(Present::Own(own)))
    }

    async fn dump<T, R: NetlinkSerializable>(
        &self,
        what: &str,
        request: impl Fn() -> NetlinkMessage<R>,
        decode: impl Fn(&[u8]) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        dump(&self.requests, what, request, decode).await
    }
}

/// Dumps until the kernel says that nothing changed on the way.
async fn dump<T, R: NetlinkSerializable>(
    requests: &Requests,
    what: &str,
    request: impl Fn() -> NetlinkMessage<R>,
    decode: impl Fn(&[u8]) -> Result<Option<T>>,
) -> Result<Vec<T>> {
    for _ in 0..DUMP_ATTEMPTS {
        let mut found = Vec::new();
        let answer = requests
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

/// `None` in place of the error that the kernel was built without this protocol.
fn without_support<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(error) if error.chain().any(is_unsupported) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_unsupported(cause: &(dyn std::error::Error + 'static)) -> bool {
    let errno = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    matches!(errno, Some(libc::EPROTONOSUPPORT | libc::ENOENT))
}

/// For requests whose answer is an acknowledgement alone.
fn ignore(_payload: &[u8]) -> Result<()> {
    Ok(())
}
