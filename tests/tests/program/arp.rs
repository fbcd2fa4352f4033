//! ARP: the veth answers for every address, and to its own container only.

use dataplane_common::reason::Reason;
use tests::harness::packet::{Arp, Frame};

use crate::{
    case::Case,
    network::Network,
    packets::{from_container, from_uplink},
};

groups!(
    a_question_is_answered_for_every_address,
    the_answer_is_right_to_the_byte,
    probes_announcements_and_replies_are_the_kernel_s,
    what_is_not_ipv4_over_ethernet_is_the_kernel_s,
    another_s_address_is_no_sender,
    a_packet_that_is_cut_short_is_dropped,
    by_an_uplink_it_is_the_kernel_s,
);

const GATEWAY: [u8; 4] = [169, 254, 1, 1];

fn a_question_is_answered_for_every_address(n: &Network) -> Vec<Case> {
    let targets = [
        ("its gateway", GATEWAY),
        ("another container", n.c2.address.octets()),
        ("an address of its block that nobody has", [172, 19, 35, 77]),
        ("an address without a route", crate::network::NOWHERE),
        ("an address of the node", [10, 141, 0, 1]),
        ("a broadcast address", [255; 4]),
        ("the unspecified address", [0; 4]),
    ];
    let case = |(name, target)| {
        let question = Arp::request(n.c1.mac, n.c1.address, target);
        let answer = Frame::new(n.c1.veth.mac.octets(), n.c1.mac, question.reply(n.c1.veth.mac.octets()));
        n.c1.asks(question).called(name).must_get(&answer)
    };
    targets.into_iter().map(case).collect()
}

fn the_answer_is_right_to_the_byte(n: &Network) -> Vec<Case> {
    let own = n.c1.veth.mac.octets();
    let question = Arp::request(n.c1.mac, n.c1.address, GATEWAY);
    let answer = |question: Arp| Frame::new(own, question.sender_mac, question.reply(own));
    let second = Arp::request(n.c1.mac, n.c1_second.address, GATEWAY);
    let odd = Arp { sender_mac: [0x02, 9, 8, 7, 6, 5], ..question };
    let filled = Arp { target_mac: [0xab; 6], ..question };
    let mut padded = answer(question);
    padded.trailer = vec![0x5a; 18];
    vec![
        n.c1.asks(question).padded(18).called("padding stays").must_get(&padded),
        n.c1.asks(second).called("for a second address").must_get(&answer(second)),
        n.c1.asks(question).addressed_to(own).called("asked of the veth alone").must_get(&answer(question)),
        n.c1.asks(question).addressed_to([2; 6]).called("to some MAC").must_get(&answer(question)),
        // RFC 826: the reply goes to the hardware address in the packet.
        n.c1.asks(odd).called("by a MAC that the frame is not from").must_get(&answer(odd)),
        n.c1.asks(filled).called("with a target MAC filled in").must_get(&answer(filled)),
    ]
}

fn probes_announcements_and_replies_are_the_kernel_s(n: &Network) -> Vec<Case> {
    let probe = Arp::request(n.c1.mac, [0; 4], n.c1.address);
    let other_probe = Arp::request(n.c1.mac, [0; 4], n.c2.address);
    let announcement = Arp::request(n.c1.mac, n.c1.address, n.c1.address);
    let reply = Arp::request(n.c1.mac, GATEWAY, n.c1.address).reply(n.c1.mac);
    let odd = |operation| Arp { operation, ..Arp::request(n.c1.mac, n.c1.address, GATEWAY) };
    vec![
        n.c1.asks(probe).called("a probe of its own address").must_pass(Reason::Arp),
        n.c1.asks(other_probe).called("a probe of another address").must_pass(Reason::Arp),
        n.c1.asks(announcement).called("an announcement").must_pass(Reason::Arp),
        n.c1.asks(reply).called("a reply").must_pass(Reason::Arp),
        n.c1.asks(odd(0)).called("operation 0").must_pass(Reason::Arp),
        n.c1.asks(odd(3)).called("RARP's request").must_pass(Reason::Arp),
        n.c1.asks(odd(0x0100)).called("a request in the wrong byte order").must_pass(Reason::Arp),
    ]
}

fn what_is_not_ipv4_over_ethernet_is_the_kernel_s(n: &Network) -> Vec<Case> {
    let alterations: [(&str, usize, u8); 6] = [
        ("IEEE 802 hardware", 15, 6),
        ("hardware 0x0101", 14, 1),
        ("IPv6", 16, 0x86),
        ("protocol 0x0806", 17, 6),
        ("MACs of eight bytes", 18, 8),
        ("addresses of sixteen bytes", 19, 16),
    ];
    let question = n.c1.asks(Arp::request(n.c1.mac, n.c1.address, GATEWAY));
    let case = |(name, offset, value): (&str, usize, u8)| {
        question.clone().altered(|bytes| bytes[offset] = value).called(name).must_pass(Reason::Arp)
    };
    alterations.into_iter().map(case).collect()
}

fn another_s_address_is_no_sender(n: &Network) -> Vec<Case> {
    let asks = |sender| n.c1.asks(Arp::request(n.c1.mac, sender, GATEWAY));
    vec![
        asks(n.c2.address).called("another container's").must_drop(Reason::SpoofedSource),
        asks([172, 19, 35, 77].into()).called("one that nobody has").must_drop(Reason::SpoofedSource),
        asks([172, 19, 36, 2].into()).called("one on another node").must_drop(Reason::SpoofedSource),
        asks([10, 141, 0, 1].into()).called("the node's").must_drop(Reason::SpoofedSource),
        asks([169, 254, 1, 2].into()).called("a link-local one").must_drop(Reason::SpoofedSource),
        asks(n.c1.address).by(n.c2.veth).called("its own, at another veth").must_drop(Reason::SpoofedSource),
        asks([198, 18, 0, 1].into()).called("one whose entry is at fault").must_drop(Reason::SpoofedSource),
    ]
}

fn a_packet_that_is_cut_short_is_dropped(n: &Network) -> Vec<Case> {
    let question = n.c1.asks(Arp::request(n.c1.mac, n.c1.address, GATEWAY));
    let case = |length: usize| {
        let cut = question.clone().altered(|bytes| bytes.truncate(length));
        cut.called(format!("{length} bytes")).must_drop(Reason::Malformed)
    };
    (14..42).map(case).collect()
}

fn by_an_uplink_it_is_the_kernel_s(n: &Network) -> Vec<Case> {
    let question = Arp::request(crate::network::ROUTER_MAC, [10, 141, 0, 2], [10, 141, 0, 1]);
    let for_container = Arp::request(crate::network::ROUTER_MAC, [10, 141, 0, 2], n.c1.address);
    let reply = question.reply(n.eth0.mac.octets());
    // At a veth that has no address, the walk of an uplink does not answer either.
    let odd = from_container(n.eth0, Frame::new(n.c1.mac, [0xff; 6], question));
    vec![
        from_uplink(n.eth0, question).addressed_to([0xff; 6]).called("a question").must_pass(Reason::Arp),
        from_uplink(n.eth0, for_container).called("about a container").must_pass(Reason::Arp),
        from_uplink(n.eth0, reply).called("a reply").must_pass(Reason::Arp),
        from_uplink(n.eth0, question).altered(|bytes| bytes.truncate(20)).called("cut short").must_pass(Reason::Arp),
        odd.called("a question by a container's hook on an uplink").must_drop(Reason::SpoofedSource),
    ]
}
