//! What is neither IPv4 nor ARP: the kernel's, whoever sent it.

use dataplane_common::reason::Reason;
use tests::harness::packet::{Arp, Ipv4, Payload, Vlan, ethertype};

use crate::{
    case::Case,
    network::{Network, OUTSIDE},
    packets::{Sent, from_container, from_uplink, inbound, payload, udp},
};

groups!(
    frames_with_a_vlan_tag,
    a_priority_tag_is_no_tag,
    ipv6,
    other_protocols,
    bytes_of_the_length_field,
    another_s_frames_by_an_uplink,
);

/// The frame by both hooks.
fn both(n: &Network, content: impl Into<Payload>) -> [Sent; 2] {
    let content = content.into();
    [from_container(n.c1.veth, n.c1.frame(content.clone())), from_uplink(n.eth0, content)]
}

fn frames_with_a_vlan_tag(n: &Network) -> Vec<Case> {
    let packet = Ipv4::new(n.c1.address, n.c2.address, udp());
    let question = Arp::request(n.c1.mac, n.c1.address, [169, 254, 1, 1]);
    let mut cases = Vec::new();
    for sent in both(n, packet).into_iter().chain(both(n, question)) {
        for (name, ethertype) in [("802.1Q", ethertype::VLAN), ("802.1ad", ethertype::SERVICE_VLAN)] {
            for control in [1, 100, 4095, 0xe064] {
                let mut tagged = sent.clone();
                tagged.frame.vlans = vec![Vlan { ethertype, control }];
                cases.push(tagged.called(format!("{name}, {control:#x}")).must_pass(Reason::Vlan));
            }
        }
        let mut twice = sent.clone();
        twice.frame = twice.frame.tagged(5);
        twice.frame.vlans.insert(0, Vlan { ethertype: ethertype::SERVICE_VLAN, control: 7 });
        cases.push(twice.called("two tags").must_pass(Reason::Vlan));
    }
    cases
}

/// At every hook, whatever it is that the tag is in front of, with and without a priority.
fn a_priority_tag_is_no_tag(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, ethertype) in [("802.1Q", ethertype::VLAN), ("802.1ad", ethertype::SERVICE_VLAN)] {
        for control in [0, 0x1000, 0xa000, 0xf000] {
            for count in [1, 2] {
                let called = format!("{count} of {name}, {control:#x}");
                let tags = vec![Vlan { ethertype, control }; count];
                cases.extend(untagged_cases(n).into_iter().map(|(sent, ends)| ends(sent.behind(&tags), &called)));
            }
            // The kernel would take off any number of them.
            let tags = [Vlan { ethertype, control }; 3];
            let [sent, back] = both(n, Ipv4::new(n.c1.address, n.c2.address, udp()));
            for mut sent in [sent, back] {
                sent.frame.vlans = tags.to_vec();
                let bytes = sent.frame.bytes();
                let left = [&bytes[..12], &bytes[24..]].concat();
                let case = sent.called(format!("three of {name}")).must_drop(Reason::Malformed);
                cases.push(case.leaving(left));
            }
            // The kernel puts that beside the packet.
            let inner = n.c1.sends(n.c2.address, udp());
            let left = inner.untagged();
            let inner = inner.behind(&[tags[0], Vlan { ethertype, control: 5 }]);
            let case = inner.called(format!("{name}, {control:#x}, then VLAN 5")).must_pass(Reason::Vlan);
            cases.push(case.leaving(left));
        }
    }
    cases
}

/// How a packet ends.
type Ends = Box<dyn Fn(Sent, &str) -> Case>;

/// Packets that end in every way, each with how it does.
fn untagged_cases(n: &Network) -> Vec<(Sent, Ends)> {
    let (c2, node2) = (n.c2, n.node2);
    let spoofed = n.c1.sends(n.c2.address, udp()).with(|packet| packet.source = n.c3.address);
    let question = Arp::request(n.c1.mac, n.c1.address, [169, 254, 1, 1]);
    let mut answer = n.c1.frame(question.reply(n.c1.veth.mac.octets()));
    std::mem::swap(&mut answer.source, &mut answer.destination);
    let passed = |reason: Reason| -> Ends { Box::new(move |sent, name| sent.called(name).must_pass(reason)) };
    let dropped = |reason: Reason| -> Ends { Box::new(move |sent, name| sent.called(name).must_drop(reason)) };
    let reaches = || -> Ends { Box::new(move |sent, name| sent.called(name).must_reach(&c2)) };
    vec![
        (n.c1.sends(n.c2.address, udp()), reaches()),
        (inbound(n.eth0, OUTSIDE, n.c2.address, udp()), reaches()),
        (n.c1.sends([172, 19, 36, 2], udp()), Box::new(move |sent, name| sent.called(name).must_leave_by(&node2))),
        (n.c1.sends([10, 141, 0, 1], udp()), passed(Reason::ToHost)),
        (spoofed, dropped(Reason::SpoofedSource)),
        (n.c1.sends([172, 19, 35, 77], udp()), dropped(Reason::NoEndpoint)),
        (inbound(n.eth0, OUTSIDE, [172, 19, 35, 77], udp()), dropped(Reason::NoEndpoint)),
        (inbound(n.eth0, OUTSIDE, [10, 141, 0, 1], udp()), passed(Reason::ToHost)),
        (n.c1.asks(question), Box::new(move |sent, name| sent.called(name).must_get(&answer))),
        (from_uplink(n.eth0, question), passed(Reason::Arp)),
    ]
}

fn ipv6(n: &Network) -> Vec<Case> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    header.extend([0xfe, 0x80].into_iter().chain([0; 14]));
    header.extend([0xff, 0x02].into_iter().chain([0; 14]));
    let contents = [("a header", header), ("IPv4 of that number", vec![0x45; 40]), ("garbage", vec![0xff; 1000])];
    let cases = contents.into_iter().flat_map(|(name, bytes)| {
        both(n, Payload::Other(ethertype::IPV6, bytes)).map(|sent| sent.called(name).must_pass(Reason::Ipv6))
    });
    cases.collect()
}

fn other_protocols(n: &Network) -> Vec<Case> {
    // LLDP, MPLS, PPPoE, EAPOL, 802.1ah, 802.1Q's and IPv4's numbers in the wrong byte order, the extremes.
    let numbers = [0x88cc, 0x8847, 0x8863, 0x888e, 0x88e7, 0x0081, 0x0008, 0x0000, 0xffff];
    let cases = numbers.into_iter().flat_map(|number| {
        both(n, Payload::Other(number, payload(46)))
            .map(|sent| sent.called(format!("{number:#06x}")).must_pass(Reason::OtherProtocol))
    });
    cases.collect()
}

/// A macvlan's or a bridge port's above the uplink: whatever such a frame carries, it stays as it is.
fn another_s_frames_by_an_uplink(n: &Network) -> Vec<Case> {
    let mac = [2, 0, 0, 0, 0, 9];
    let packet = |to: [u8; 4]| Ipv4::new(OUTSIDE, to, udp());
    let nobody = packet([172, 19, 35, 77]);
    let contents: [(&str, Payload); 6] = [
        ("to a container's address", packet(n.c1.address.octets()).into()),
        ("to an address of a block that nobody has", nobody.clone().into()),
        ("a martian", Ipv4::new([127, 0, 0, 1], n.c1.address, udp()).into()),
        ("malformed", Ipv4 { header_words: Some(4), ..nobody.clone() }.into()),
        ("with a wrong checksum", Ipv4 { checksum: Some(1), ..nobody }.into()),
        ("IPv6", Payload::Other(ethertype::IPV6, vec![0x60; 40])),
    ];
    let mut cases = Vec::new();
    for (name, content) in contents {
        let mut sent = from_uplink(n.eth0, content).addressed_to(mac);
        cases.push(sent.clone().called(name).must_pass(Reason::OtherHost));
        sent.frame = sent.frame.tagged(0xa000);
        cases.push(sent.called(format!("{name}, with a priority tag")).must_pass(Reason::OtherHost));
    }
    cases
}

/// A frame of IEEE 802.3 has a length where others have their EtherType: spanning tree, for one.
fn bytes_of_the_length_field(n: &Network) -> Vec<Case> {
    let cases = [38, 0x05dc].into_iter().flat_map(|length| {
        both(n, Payload::Other(length, vec![0x42; 38]))
            .map(|sent| sent.called(format!("length {length}")).must_pass(Reason::OtherProtocol))
    });
    let padded = inbound(n.eth0, OUTSIDE, n.c1.address, udp()).padded(9);
    cases.chain([padded.called("IPv4, padded to an odd length").must_reach(&n.c1)]).collect()
}
