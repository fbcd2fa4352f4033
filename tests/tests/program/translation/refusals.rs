//! What must be translated and cannot be is dropped, or the kernel's where that answers and does not forward.

use std::net::Ipv4Addr;

use dataplane_common::{net::Ipv4Be, reason::Reason};
use tests::harness::packet::{Icmp, Ipv4, L4, Tcp, Udp, Vlan, ethertype, flags};

use crate::{
    case::Case,
    network::{EXCLUDED, MAX_FLOWS, NODE, NOWHERE, Network, OUTSIDE, PORT},
    packets::{Sent, inbound, payload, udp},
    translation::{SOURCE_PORT, comes_back, opens, restored},
};

groups!(
    on crate::network::Network::translating,
    what_begins_no_flow,
    what_is_not_translated,
    what_is_too_big,
    what_lives_no_longer,
    what_the_kernel_would_forward,
    what_a_vlan_s_device_would_forward,
    without_an_address,
    without_a_port,
    beyond_the_share,
    a_full_table,
    a_lock_that_is_held,
    a_program_that_is_not_there,
);

/// Who sends what must be translated: a container, and another node.
fn senders(n: &Network) -> [(&'static str, Sent); 2] {
    [
        ("a container", n.c1.sends(NOWHERE, udp())),
        ("another node", inbound(n.eth1, [172, 19, 38, 2], NOWHERE, udp())),
    ]
}

/// The same case for each who sends.
fn each(n: &Network, case: impl Fn(&str, Sent) -> Vec<Case>) -> Vec<Case> {
    senders(n).into_iter().flat_map(|(name, sent)| case(name, sent)).collect()
}

fn carrying(sent: &Sent, content: impl Into<L4>) -> Sent {
    sent.clone().with(|packet| packet.payload = content.into())
}

fn what_begins_no_flow(n: &Network) -> Vec<Case> {
    each(n, |who, sent| {
        let segment = |flags| carrying(&sent, Tcp::new(SOURCE_PORT, 443, flags));
        let about = |to: [u8; 4]| sent.clone().with(|packet| packet.source = to.into()).ipv4().bytes();
        vec![
            segment(flags::RST).called(format!("{who}: RST")).must_drop(Reason::NatNoFlow),
            segment(flags::RST | flags::ACK).called(format!("{who}: RST-ACK")).must_drop(Reason::NatNoFlow),
            segment(flags::FIN | flags::ACK).called(format!("{who}: FIN")).must_drop(Reason::NatNoFlow),
            carrying(&sent, Icmp::unreachable(3, &about(OUTSIDE)))
                .called(format!("{who}: an error"))
                .must_drop(Reason::NatNoFlow),
        ]
    })
}

fn what_is_not_translated(n: &Network) -> Vec<Case> {
    each(n, |who, sent| {
        let raw = |protocol| carrying(&sent, L4::Raw(protocol, payload(40)));
        let icmp = |kind| carrying(&sent, Icmp::error(kind, 0, [0; 4], &payload(12)));
        let mut cases = Vec::new();
        for protocol in [2, 4, 41, 47, 50, 132, 255] {
            let called = raw(protocol).called(format!("{who}: protocol {protocol}"));
            cases.push(called.must_drop(Reason::NatUnsupported));
        }
        // An echo reply goes out to nobody who has asked.
        cases.push(icmp(0).called(format!("{who}: an echo reply")).must_drop(Reason::NatNoFlow));
        for kind in [4, 5, 9, 13, 14, 17] {
            let called = icmp(kind).called(format!("{who}: ICMP type {kind}"));
            cases.push(called.must_drop(Reason::NatUnsupported));
        }
        let options = sent.clone().with(|packet| packet.options = vec![7, 4, 4, 0]);
        cases.push(options.called(format!("{who}: options")).must_drop(Reason::NatUnsupported));
        for (protocol, length) in [(6, 19), (17, 7), (1, 7)] {
            let short = carrying(&sent, L4::Raw(protocol, payload(length)));
            let called = short.called(format!("{who}: {length} bytes of protocol {protocol}"));
            cases.push(called.must_drop(Reason::Malformed));
        }
        let later = sent.clone().with(|packet| packet.fragment_offset = 5);
        cases.push(later.called(format!("{who}: a later fragment")).must_drop(Reason::NatFragment));
        cases
    })
}

fn what_is_too_big(n: &Network) -> Vec<Case> {
    let mut cases = each(n, |who, sent| {
        let of = |length: usize, dont_fragment: bool| {
            let content = Udp::new(SOURCE_PORT, 53, payload(length));
            carrying(&sent, content).with(|packet| packet.dont_fragment = dont_fragment)
        };
        let mut cases = Vec::new();
        for known in ["no flow", "a flow"] {
            let large = |dont_fragment| of(1473, dont_fragment).called(format!("{who}, {known}"));
            // The kernel's own route may take more, and without DF it would send it on in pieces.
            cases.push(large(true).must_be_too_big(1500));
            cases.push(large(false).must_drop(Reason::NatTooBig));
            if known == "no flow" {
                let remote = |sent: Sent| sent.with(|packet| packet.destination = OUTSIDE.into());
                let who_first = if who == "a container" { of(1472, false) } else { remote(of(1472, false)) };
                cases.push(opens(n, who_first, who));
            }
        }
        cases
    });
    // A reply may be too big for the container's own link.
    cases.push(opens(n, n.c3.sends([203, 0, 113, 20], Udp::new(SOURCE_PORT, 53, b"?")), "to a small one"));
    let reply = inbound(n.eth0, [203, 0, 113, 20], NODE, Udp::new(53, PORT, payload(1373)));
    cases.push(reply.clone().called("a reply").must_be_too_big(1400));
    // The kernel fragments it for the container.
    let reply = reply.with(|packet| packet.dont_fragment = false);
    let wanted = Ipv4 { ttl: reply.ipv4().ttl, ..restored(&reply, n.c3.address) };
    cases.push(reply.called("a reply in pieces").must_pass_as(Reason::TooBig, wanted));
    let reply = inbound(n.eth0, [203, 0, 113, 20], NODE, Udp::new(53, PORT, payload(1372)));
    let wanted = restored(&reply, n.c3.address);
    cases.push(reply.called("a reply that fits").must_reach_as(wanted, &n.c3));
    cases
}

fn what_lives_no_longer(n: &Network) -> Vec<Case> {
    let mut cases = each(n, |who, sent| {
        let wrong = |sent: Sent| sent.with(|packet| packet.checksum = Some(0x1234));
        let short = |ttl: u8| sent.clone().with(|packet| packet.ttl = ttl);
        vec![
            short(1).called(format!("{who}: TTL 1")).must_pass(Reason::TtlExpired),
            short(0).called(format!("{who}: TTL 0")).must_pass(Reason::TtlExpired),
            wrong(short(64)).called(format!("{who}: a wrong checksum")).must_drop(Reason::BadChecksum),
            short(64).addressed_to([2; 6]).called(format!("{who}: another MAC")).must_pass(Reason::OtherHost),
        ]
    });
    let reply = |ttl: u8| {
        let content = Udp::new(53, PORT, b"!");
        inbound(n.eth0, NOWHERE, NODE, content).with(|packet| packet.ttl = ttl)
    };
    cases.push(opens(n, n.c1.sends(NOWHERE, Udp::new(SOURCE_PORT, 53, b"?")), "UDP"));
    // The kernel would take it for the node's own.
    cases.push(reply(1).called("a reply with TTL 1").must_drop(Reason::NatTtlExpired));
    cases.push(reply(0).called("a reply with TTL 0").must_drop(Reason::NatTtlExpired));
    cases
}

fn what_the_kernel_would_forward(n: &Network) -> Vec<Case> {
    each(n, |who, sent| {
        let to = |address: [u8; 4]| sent.clone().with(|packet| packet.destination = address.into());
        let mut cases = Vec::new();
        for address in [[192, 0, 2, 7], [198, 51, 100, 7]] {
            let called = to(address).called(format!("{who} to {address:?}"));
            cases.push(called.must_drop(Reason::NatKernelRoute));
        }
        // Nor what the kernel forwards that does not look so: 0.0.0.0/8 but its first address, groups beyond the link, what
        // is reserved for ever, and what a faulty table has no answer for.
        let forwarded = [
            [0, 1, 2, 3],
            [0, 255, 255, 255],
            [169, 254, 9, 9],
            [224, 0, 1, 1],
            [239, 1, 2, 3],
            [240, 0, 0, 1],
            [9, 9, 9, 9],
            [100, 64, 0, 1],
            [100, 65, 0, 1],
            [198, 18, 0, 1],
            [198, 19, 0, 1],
        ];
        for address in forwarded {
            let called = to(address).called(format!("{who} to {address:?}"));
            cases.push(called.must_drop(Reason::NatKernelRoute));
        }
        let of_container = who == "a container";
        let kept = [
            (NODE, Reason::ToHost),
            ([224, 0, 0, 1], Reason::Multicast),
            ([224, 0, 0, 251], Reason::Multicast),
            ([255; 4], Reason::Broadcast),
            ([0; 4], if of_container { Reason::Reserved } else { Reason::NotLocal }),
            ([127, 0, 0, 1], if of_container { Reason::Reserved } else { Reason::NotLocal }),
        ];
        for (address, reason) in kept {
            cases.push(to(address).called(format!("{who} to {address:?}")).must_pass(reason));
        }
        for (address, reason) in [([239, 1, 2, 3], Reason::Multicast), ([192, 0, 2, 7], Reason::KernelRoute)] {
            let reason = if of_container || reason == Reason::Multicast { reason } else { Reason::NotLocal };
            let last = to(address).with(|packet| packet.ttl = 1);
            cases.push(last.called(format!("{who} to {address:?}, TTL 1")).must_pass(reason));
        }
        cases
    })
}

/// The kernel has a device for a VLAN, perhaps, and forwards what comes by it.
fn what_a_vlan_s_device_would_forward(n: &Network) -> Vec<Case> {
    let tag = |control| Vlan { ethertype: ethertype::VLAN, control };
    // Behind a priority tag, the kernel puts the next one beside the packet.
    let to = |to: [u8; 4]| {
        let sent = n.c1.sends(to, udp());
        let bytes = sent.untagged();
        (sent.behind(&[tag(0), tag(5)]).called(format!("VLAN 5, to {to:?}")), bytes)
    };
    let mut cases = Vec::new();
    for address in [NOWHERE, [192, 0, 2, 7], [9, 9, 9, 9], [239, 1, 2, 3]] {
        let (sent, _) = to(address);
        cases.push(sent.must_drop(Reason::NatKernelRoute));
    }
    for address in [NODE, EXCLUDED, [172, 19, 36, 2], n.c2.address.octets()] {
        let (sent, bytes) = to(address);
        cases.push(sent.must_pass(Reason::Vlan).leaving(bytes));
    }
    let mut twice = n.c1.sends(NODE, udp());
    twice.frame = twice.frame.tagged(5).tagged(6);
    cases.push(twice.called("two tags").must_drop(Reason::NatUnsupported));
    cases
}

fn without_an_address(n: &Network) -> Vec<Case> {
    let mut rule = n.rule();
    rule.address = Ipv4Be::UNSPECIFIED;
    each(n, |who, sent| {
        let case = sent.called(who).must_drop(Reason::NatNoAddress);
        vec![case.after(move |runner| runner.translate(&[rule], MAX_FLOWS, MAX_FLOWS))]
    })
}

fn without_a_port(n: &Network) -> Vec<Case> {
    let mut cases = each(n, |who, sent| {
        let third = sent.clone().with(|packet| packet.destination = OUTSIDE.into());
        let second = n.c2.sends(OUTSIDE, udp()).called(format!("the second, beside {who}"));
        let first = if who == "a container" { vec![opens(n, third, who)] } else { Vec::new() };
        first.into_iter().chain([second.must_open_nothing(Reason::NatNoPort, &n.outside)]).collect()
    });
    let gateway = inbound(n.eth1, [172, 19, 38, 2], OUTSIDE, udp()).called("another node");
    cases.push(gateway.must_open_nothing(Reason::NatNoPort, &n.outside));
    // To another port of theirs there is one.
    cases.push(opens(n, n.c2.sends(OUTSIDE, Udp::new(SOURCE_PORT, 54, b"?")), "to another port"));
    cases
}

fn beyond_the_share(n: &Network) -> Vec<Case> {
    let rule = n.rule();
    let limited = move |runner: &mut crate::programs::Runner| runner.translate(&[rule], MAX_FLOWS, 1);
    let mut cases = each(n, |who, sent| {
        let first = opens(n, carrying(&sent, Udp::new(SOURCE_PORT, 53 + who.len() as u16, b"?")), who);
        let second = carrying(&sent, Udp::new(SOURCE_PORT, 153, b"?")).called(format!("{who}: a second"));
        vec![first.after(limited), second.must_open_nothing(Reason::NatShare, &n.outside)]
    });
    cases.push(opens(n, n.c2.sends(NOWHERE, Udp::new(SOURCE_PORT, 153, b"?")), "another source"));
    cases
}

/// While nothing is in it that could give way.
fn a_full_table(n: &Network) -> Vec<Case> {
    let rule = n.rule();
    let first = opens(n, n.c2.sends(remote("the first"), udp()), "the first");
    // One that was answered never gives way; else the new one may find it by chance.
    let answer = inbound(n.eth0, remote("the first"), NODE, Udp::new(53, PORT, b"an answer"));
    let answered = comes_back(answer, &n.c2, "the first");
    let full = each(n, |who, sent| {
        let full = sent.called(who).must_open_nothing(Reason::NatTableFull, &n.outside);
        vec![full.after(move |runner| runner.translate(&[rule], 1, MAX_FLOWS))]
    });
    // While the daemon moves to another table, nobody is told: the next attempt finds that.
    let stopped = each(n, |who, sent| {
        let stopped = sent.called(who).must_open_nothing_for_now(Reason::NatShare, &n.outside);
        vec![stopped.after(move |runner| runner.translate(&[rule], MAX_FLOWS, 0))]
    });
    let room = each(n, |who, sent| {
        let room = opens(n, sent.with(|packet| packet.destination = remote(who)), who);
        vec![room.after(move |runner| runner.translate(&[rule], MAX_FLOWS, MAX_FLOWS))]
    });
    [first, answered].into_iter().chain(full).chain(stopped).chain(room).collect()
}

fn a_lock_that_is_held(n: &Network) -> Vec<Case> {
    each(n, |who, sent| {
        let sent = sent.with(|packet| packet.destination = remote(who));
        let locked = sent.clone().called(who).must_open_nothing(Reason::NatContended, &n.outside);
        let free = opens(n, sent, who);
        vec![
            locked.after(|runner| runner.lock_flows(true)),
            free.after(|runner| runner.lock_flows(false)),
        ]
    })
}

fn a_program_that_is_not_there(n: &Network) -> Vec<Case> {
    let mut cases = each(n, |who, sent| vec![sent.called(who).must_drop(Reason::NatNoProgram)]);
    let first = cases.remove(0).after(|runner| runner.unlink_programs());
    cases.insert(0, first);
    cases
}

/// Another destination for each who sends: to one there is one port.
fn remote(who: &str) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 10 + who.len() as u8)
}
