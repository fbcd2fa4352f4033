//! ICMP errors about translated packets: from outside about what was sent, and from the container about what came.

use dataplane_common::reason::Reason;
use tests::harness::packet::{Icmp, Ipv4, L4, Udp};

use crate::{
    case::Case,
    network::{NODE, NOWHERE, Network, PORT},
    packets::{Sent, inbound, payload},
    translation::{SOURCE_PORT, opens, restored, translated, transports},
};

groups!(
    on crate::network::Network::translating,
    about_a_packet_out,
    about_a_reply,
    about_a_reply_behind_a_gateway,
    about_a_datagram_without_checksum,
    what_quotes_no_packet,
);

/// A router on the way.
const ROUTER: [u8; 4] = [203, 0, 113, 77];

/// Every error that is translated, about a packet.
fn errors(about: &[u8]) -> [(&'static str, Icmp); 6] {
    [
        ("frag-needed", Icmp::frag_needed(1400, about)),
        ("host unreachable", Icmp::unreachable(1, about)),
        ("port unreachable", Icmp::unreachable(3, about)),
        ("prohibited", Icmp::unreachable(13, about)),
        ("time exceeded", Icmp::time_exceeded(about)),
        ("parameter problem", Icmp::parameter_problem(8, about)),
    ]
}

/// How much of the packet is quoted: eight bytes after its header, up to within its checksum, and all.
fn lengths(packet: &Ipv4) -> [usize; 4] {
    [28, 36, 40, packet.bytes().len()]
}

fn hop(mut packet: Ipv4, ttl: u8) -> Ipv4 {
    packet.ttl = ttl;
    packet
}

fn about_a_packet_out(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, out, _) in transports() {
        let sent = n.c1.sends(NOWHERE, out);
        cases.push(opens(n, sent.clone(), name));
        // As the router had it, and as the container sent it.
        let (quoted, original) = (hop(translated(&sent), 1), hop(sent.ipv4().clone(), 1));
        for length in lengths(&quoted).map(|length| length.min(quoted.bytes().len())) {
            let wanted = errors(&original.bytes()[..length]);
            for ((kind, error), (_, wanted)) in errors(&quoted.bytes()[..length]).into_iter().zip(wanted) {
                let sent = inbound(n.eth0, ROUTER, NODE, error);
                let wanted = Ipv4 { payload: wanted.into(), ..restored(&sent, n.c1.address) };
                let called = sent.called(format!("{name}: {kind}, {length} bytes quoted"));
                cases.push(called.must_reach_as(wanted, &n.c1));
            }
        }
        // From where no packet can come.
        for martian in [[0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], NODE, n.c2.address.octets()] {
            let sent = inbound(n.eth0, martian, NODE, Icmp::unreachable(3, &quoted.bytes()));
            let called = sent.called(format!("{name}: from {martian:?}"));
            cases.push(called.must_drop(Reason::MartianSource));
        }
        // About a packet to somebody else, and of another port.
        let mut other = quoted.clone();
        other.destination = [203, 0, 113, 6].into();
        let stranger = inbound(n.eth0, ROUTER, NODE, Icmp::unreachable(3, &other.bytes()));
        cases.push(stranger.called(format!("{name}: of no flow")).must_pass(Reason::ToHost));
    }
    cases
}

fn about_a_reply(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, out, back) in transports() {
        let (sent, reply) = (n.c1.sends(NOWHERE, out), inbound(n.eth0, NOWHERE, NODE, back));
        let delivered = restored(&reply, n.c1.address);
        let about = |packet: &Ipv4| packet.bytes();
        let unknown = n.c1.sends(NOWHERE, Icmp::unreachable(3, &about(&delivered)));
        cases.push(unknown.called(format!("{name}: of no flow")).must_drop(Reason::NatNoFlow));
        cases.push(opens(n, sent, name));
        let other = n.c2.sends(NOWHERE, Icmp::unreachable(3, &about(&delivered)));
        cases.push(other.called(format!("{name}: of another container")).must_drop(Reason::NatNoFlow));
        let quoted = hop(reply.ipv4().clone(), delivered.ttl);
        for length in lengths(&quoted).map(|length| length.min(quoted.bytes().len())) {
            let wanted = errors(&about(&quoted)[..length]);
            for ((kind, error), (_, wanted)) in errors(&about(&delivered)[..length]).into_iter().zip(wanted) {
                let sent = n.c1.sends(NOWHERE, error);
                let wanted = leaving(&sent, wanted);
                let called = sent.called(format!("{name}: {kind}, {length} bytes quoted"));
                cases.push(called.must_leave_as(wanted, &n.outside));
            }
        }
    }
    cases
}

/// A gateway: what a router on the way to another node's container says has that router's address.
fn about_a_reply_behind_a_gateway(n: &Network) -> Vec<Case> {
    let container = [172, 19, 38, 2];
    let mut cases = Vec::new();
    for (name, out, back) in transports() {
        let reply = inbound(n.eth0, NOWHERE, NODE, back);
        let delivered = restored(&reply, container.into());
        cases.push(opens(n, inbound(n.eth1, container, NOWHERE, out), name));
        let error = inbound(n.eth1, [172, 19, 38, 9], NOWHERE, Icmp::unreachable(1, &delivered.bytes()));
        let wanted = Icmp::unreachable(1, &hop(reply.ipv4().clone(), delivered.ttl).bytes());
        let wanted = leaving(&error, wanted);
        cases.push(error.called(format!("{name}: a router")).must_leave_as(wanted, &n.outside));
    }
    cases
}

/// The error as it leaves, with its quotation.
fn leaving(sent: &Sent, message: Icmp) -> Ipv4 {
    let packet = sent.ipv4().clone();
    Ipv4 { source: NODE.into(), ttl: packet.ttl - 1, payload: message.into(), ..packet }
}

fn about_a_datagram_without_checksum(n: &Network) -> Vec<Case> {
    let without = |from, to| Udp { checksum: Some(0), ..Udp::new(from, to, b"no sum") };
    let sent = n.c1.sends(NOWHERE, without(SOURCE_PORT, 53));
    let error = inbound(n.eth0, ROUTER, NODE, Icmp::time_exceeded(&hop(translated(&sent), 1).bytes()));
    let wanted = Icmp::time_exceeded(&hop(sent.ipv4().clone(), 1).bytes());
    let wanted = Ipv4 { payload: wanted.into(), ..restored(&error, n.c1.address) };
    let reply = inbound(n.eth0, NOWHERE, NODE, without(53, PORT));
    let delivered = restored(&reply, n.c1.address);
    let answer = n.c1.sends(NOWHERE, Icmp::unreachable(3, &delivered.bytes()));
    let wanted_out =
        leaving(&answer, Icmp::unreachable(3, &hop(reply.ipv4().clone(), delivered.ttl).bytes()));
    vec![
        opens(n, sent, "UDP"),
        error.called("in").must_reach_as(wanted, &n.c1),
        answer.called("out").must_leave_as(wanted_out, &n.outside),
    ]
}

/// Something that makes a packet one that cannot have been translated.
type Damage = fn(&mut Ipv4);

fn what_quotes_no_packet(n: &Network) -> Vec<Case> {
    let (_, out, back) = transports()[1].clone();
    let sent = n.c1.sends(NOWHERE, out);
    let reply = inbound(n.eth0, NOWHERE, NODE, back);
    let (quoted, delivered) = (translated(&sent), restored(&reply, n.c1.address));
    let mut cases = vec![opens(n, sent, "UDP")];
    let damages: [(&str, Damage); 4] = [
        ("options", |packet| packet.options = vec![1; 4]),
        ("a later fragment", |packet| packet.fragment_offset = 3),
        ("a protocol that is not translated", |packet| packet.payload = L4::Raw(47, payload(20))),
        ("an error about an error", |packet| packet.payload = Icmp::unreachable(3, &payload(28)).into()),
    ];
    for (name, damage) in damages {
        let damaged = |packet: &Ipv4| {
            let mut packet = packet.clone();
            damage(&mut packet);
            packet.bytes()
        };
        let error = n.c1.sends(NOWHERE, Icmp::unreachable(3, &damaged(&delivered)));
        cases.push(error.called(format!("out: {name}")).must_drop(Reason::NatBadError));
        let error = inbound(n.eth1, [172, 19, 38, 2], NOWHERE, Icmp::unreachable(3, &damaged(&delivered)));
        cases.push(error.called(format!("through: {name}")).must_drop(Reason::NatBadError));
        let error = inbound(n.eth0, ROUTER, NODE, Icmp::unreachable(3, &damaged(&quoted)));
        cases.push(error.called(format!("in: {name}")).must_pass(Reason::ToHost));
    }
    for length in [0, 1, 19, 20, 27] {
        let cut = |packet: &Ipv4| Icmp::unreachable(3, &packet.bytes()[..length]);
        let error = n.c1.sends(NOWHERE, cut(&delivered));
        cases.push(error.called(format!("out: {length} bytes")).must_drop(Reason::NatBadError));
        let error = inbound(n.eth0, ROUTER, NODE, cut(&quoted));
        cases.push(error.called(format!("in: {length} bytes")).must_pass(Reason::ToHost));
    }
    cases
}
