//! The requests, as messages.

use std::net::Ipv4Addr;

use dataplane_common::names;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType},
    rule::RuleMessage,
};

use super::types::{OwnRoute, OwnTarget, Peer};

/// A request whose sequence number is not set yet.
pub(super) type Request = NetlinkMessage<RouteNetlinkMessage>;

fn message(flags: u16, body: RouteNetlinkMessage) -> Request {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(body))
}

/// Statistics make up most of a link message, and nobody here reads them.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// All links.
pub(super) fn links() -> Request {
    let mut link = LinkMessage::default();
    link.attributes.push(without_statistics());
    message(NLM_F_DUMP, RouteNetlinkMessage::GetLink(link))
}

/// One link, in whatever namespace it is.
pub(super) fn peer(peer: Peer) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = peer.ifindex;
    link.attributes.push(without_statistics());
    // IFLA_IF_NETNSID, which later headers call IFLA_TARGET_NETNSID.
    link.attributes.extend(peer.netnsid.map(LinkAttribute::IfNetnsId));
    message(NLM_F_ACK, RouteNetlinkMessage::GetLink(link))
}

/// All IPv4 addresses.
pub(super) fn addresses() -> Request {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    message(NLM_F_DUMP, RouteNetlinkMessage::GetAddress(address))
}

/// All IPv4 routes, or those of one table.
pub(super) fn routes(table: Option<u8>) -> Request {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = table.unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message(NLM_F_DUMP, RouteNetlinkMessage::GetRoute(route))
}

/// The route that the kernel takes to an address.
pub(super) fn lookup(address: Ipv4Addr) -> Request {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    // The route as it stands in the table, not one made up for this address.
    route.header.flags = RouteFlags::FibMatch;
    route.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    message(NLM_F_ACK, RouteNetlinkMessage::GetRoute(route))
}

/// All IPv4 rules.
pub(super) fn rules() -> Request {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    message(NLM_F_DUMP, RouteNetlinkMessage::GetRule(rule))
}

/// Adds a route where there is none with this prefix and metric.
pub(super) fn add_route(route: &OwnRoute) -> Request {
    message(NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewRoute(own_route(route)))
}

/// Adds a route behind those with this prefix and metric.
pub(super) fn append_route(route: &OwnRoute) -> Request {
    message(NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND, RouteNetlinkMessage::NewRoute(own_route(route)))
}

/// Deletes a route: the kernel compares table, prefix, metric, type, scope, protocol, gateway and interface
/// (`fib_table_delete()` in net/ipv4/fib_trie.c), so that it cannot be anybody else's.
pub(super) fn delete_route(route: &OwnRoute) -> Request {
    message(NLM_F_ACK, RouteNetlinkMessage::DelRoute(own_route(route)))
}

fn own_route(route: &OwnRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = libc::RT_TABLE_MAIN;
    message.header.protocol = names::ROUTE_PROTOCOL.into();
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(route.destination.network())));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    match route.target {
        OwnTarget::Via { gateway, oif } => {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
            message.attributes.push(RouteAttribute::Oif(oif));
        }
        OwnTarget::Device { oif } => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(oif));
        }
        OwnTarget::Blackhole => message.header.kind = RouteType::BlackHole,
    }
    message
}
