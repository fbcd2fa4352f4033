//! What the kernel's network state consists of, as far as it matters here.

use std::{fmt, net::Ipv4Addr};

use dataplane_common::{names, net::MacAddr};
use ipnet::Ipv4Net;

use super::nexthop::NextHop;

/// A network interface of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Its Ethernet address, where it is an Ethernet device.
    pub mac: Option<MacAddr>,
    /// MTU in bytes of IP packet.
    pub mtu: u32,
    /// Switched on by the administrator (`IFF_UP`). The kernel keeps no routes by a link that is off.
    pub up: bool,
    /// The lower layer carries (`IFF_LOWER_UP`): cable plugged, veth peer on.
    pub carrier: bool,
    /// Frames have an Ethernet header (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// The driver's name for its kind (`IFLA_INFO_KIND`): `veth`, `bond`, `vlan`; none for hardware.
    pub kind: Option<String>,
    /// The other end, where the link is one of a pair (`veth`, `netkit`).
    pub peer: Option<Peer>,
    /// The link whose VLAN it is.
    pub vlan_of: Option<u32>,
}

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Its interface index, in its own namespace.
    pub ifindex: u32,
    /// Its namespace, by the number that our namespace has for it; `None` where it is in ours.
    pub netnsid: Option<i32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.netnsid {
            Some(netnsid) => write!(f, "{} in namespace id {netnsid}", self.ifindex),
            None => write!(f, "{}", self.ifindex),
        }
    }
}

/// An IPv4 address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address with its prefix length, host bits kept (`IFA_LOCAL`).
    pub network: Ipv4Net,
    /// The far end of a point-to-point link (`IFA_ADDRESS`), where it differs from our own address.
    pub peer: Option<Ipv4Addr>,
    /// The broadcast address that was set with it.
    pub broadcast: Option<Ipv4Addr>,
    /// Not the first address of its subnet, so never the kernel's choice of source.
    pub secondary: bool,
    /// Scope: 0 global, 253 link, 254 host.
    pub scope: u8,
}

/// What a route does with packets (`rtm_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// To a gateway or directly onto a link.
    Unicast,
    /// To this host.
    Local,
    /// To this host, as a broadcast.
    Broadcast,
    /// A multicast route.
    Multicast,
    /// Dropped silently.
    Blackhole,
    /// Dropped with ICMP host unreachable.
    Unreachable,
    /// Dropped with ICMP administratively prohibited.
    Prohibit,
    /// The lookup goes on in the next table.
    Throw,
    /// Any other `RTN_*` number.
    Other(u8),
}

/// An IPv4 route of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix.
    pub destination: Ipv4Net,
    /// Table: 255 `local`, 254 `main`, 253 `default`.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Who wrote it (`RTPROT_*`): 2 kernel, 3 boot, 4 static, 12 BIRD; [`names::ROUTE_PROTOCOL`] is ours.
    pub protocol: u8,
    /// Scope: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// Priority, lower wins.
    pub metric: u32,
    /// Type of service that it is restricted to; 0 for any.
    pub tos: u8,
    /// The next router; `None` where destinations are on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Outgoing interface; `None` where there is none, or several.
    pub oif: Option<u32>,
    /// Preferred source address for packets of this host.
    pub source: Option<Ipv4Addr>,
    /// MTU in bytes of IP packet, where the route sets one (`RTAX_MTU`).
    pub mtu: Option<u32>,
    /// The nexthop object that it refers to; the kernel may leave out then where the route leads.
    pub nexthop: Option<u32>,
    /// It has several next hops.
    pub multipath: bool,
    /// The interfaces of the several next hops.
    pub multipath_oifs: Box<[u32]>,
    /// Packets are encapsulated, or the gateway is not an IPv4 one.
    pub encap: bool,
    /// The gateway is an IPv6 one.
    pub via_ipv6: bool,
}

/// Where a new route stands among those with the same prefix, TOS and metric. The kernel uses the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the others.
    First,
    /// Behind the others.
    Last,
    /// Instead of the first.
    Replace,
}

/// A change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is new or changed.
    Link(Link),
    /// The link with this index is gone, or moved to another namespace.
    LinkGone(u32),
    /// An address is new or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route is new.
    Route(Route, Place),
    /// A route is gone. The kernel does not say so for the routes that it drops because their link went down
    /// or away, or because their preferred source address was deleted (`fib_table_flush()` in
    /// net/ipv4/fib_trie.c).
    RouteGone(Route),
    /// A nexthop object is new or changed, and with it the routes that refer to it.
    NextHop(NextHop),
    /// The nexthop object with this number is gone, and with it the routes that refer to it. The kernel does not say so
    /// for those that it drops because their link went down or away, or lost its carrier (`nexthop_flush_dev()` in
    /// net/ipv4/nexthop.c).
    NextHopGone(u32),
    /// The IPv4 rules changed: ask [`Netlink::rules_are_default`](super::Netlink::rules_are_default).
    Rules,
    /// The IPsec policies changed: list them again.
    Ipsec,
    /// IPv4 forwarding, or another setting of `net.ipv4.conf`, may have changed for some interface.
    Forwarding,
    /// A link in another namespace is new, changed or gone. It comes for every namespace that our own has a
    /// number for, which is so once a link with a peer in it was listed.
    PeerLink {
        /// The namespace and the link's index in it.
        peer: Peer,
        /// Its Ethernet address; `None` for other links, and when it is gone.
        mac: Option<MacAddr>,
        /// It is gone, or moved on to another namespace.
        gone: bool,
    },
    /// The device with this index can do other things than before.
    Device(u32),
    /// Events were lost: everything must be listed again.
    Overrun,
}

/// A route that the daemon writes into table `main`, with protocol [`names::ROUTE_PROTOCOL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnRoute {
    /// Destination prefix, without host bits.
    pub destination: Ipv4Net,
    /// Where it leads.
    pub target: OwnTarget,
    /// [`names::ROUTE_METRIC`], or 0 where an older version wrote it.
    pub metric: u32,
}

/// Where a route of the daemon leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnTarget {
    /// To another node.
    Via {
        /// Its address on the link.
        gateway: Ipv4Addr,
        /// The uplink.
        oif: u32,
    },
    /// Directly onto a link (scope link): a container by its veth.
    Device {
        /// The link.
        oif: u32,
    },
    /// Nowhere: addresses of a local block that no container has.
    Blackhole,
}

impl OwnTarget {
    /// The link by which it leads.
    pub fn link(self) -> Option<u32> {
        match self {
            Self::Via { oif, .. } | Self::Device { oif } => Some(oif),
            Self::Blackhole => None,
        }
    }
}

impl OwnRoute {
    /// The route as this version writes it.
    pub fn new(destination: Ipv4Net, target: OwnTarget) -> Self {
        Self { destination, target, metric: names::ROUTE_METRIC }
    }

    /// The route that the kernel holds, as the daemon would have written it; `None` where it would not.
    pub fn from_route(route: &Route) -> Option<Self> {
        let target = match (route.kind, route.gateway, route.oif) {
            (RouteKind::Unicast, Some(gateway), Some(oif)) => OwnTarget::Via { gateway, oif },
            (RouteKind::Unicast, None, Some(oif)) => OwnTarget::Device { oif },
            (RouteKind::Blackhole, _, _) => OwnTarget::Blackhole,
            _ => return None,
        };
        let plain = route.table == u32::from(libc::RT_TABLE_MAIN)
            && route.protocol == names::ROUTE_PROTOCOL
            && [0, names::ROUTE_METRIC].contains(&route.metric)
            && route.tos == 0
            && route.nexthop.is_none()
            && !route.multipath
            && !route.encap;
        plain.then_some(Self { destination: route.destination, target, metric: route.metric })
    }

    /// Whether that is this route.
    pub fn is(&self, route: &Route) -> bool {
        Self::from_route(route).as_ref() == Some(self)
    }
}

impl fmt::Display for OwnRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            OwnTarget::Via { gateway, oif } => write!(f, "{} via {gateway} by link {oif}", self.destination),
            OwnTarget::Device { oif } => write!(f, "{} by link {oif}", self.destination),
            OwnTarget::Blackhole => write!(f, "blackhole {}", self.destination),
        }
    }
}

/// The route that has the prefix and metric of one to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// The daemon's, of this run or an earlier one.
    Own(OwnRoute),
    /// Somebody else's.
    Foreign {
        /// Whose it is (`RTPROT_*`).
        protocol: u8,
    },
}

/// What became of a route to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the table now.
    Added,
    /// It was in the table, the same.
    AlreadyThere,
    /// Somebody else has a route for the same prefix and metric, and keeps it.
    TakenBy {
        /// Whose it is (`RTPROT_*`).
        protocol: u8,
    },
}
