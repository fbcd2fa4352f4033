//! IPv4 headers that are odd, and those that contradict themselves.

use dataplane_common::reason::Reason;
use tests::harness::packet::Ipv4;

use crate::{
    case::Case,
    network::{Network, OUTSIDE},
    packets::{Sent, inbound, udp},
};

groups!(
    a_version_other_than_four,
    a_header_shorter_than_five_words,
    options_are_the_kernel_s,
    options_that_are_not_the_kernel_s,
    a_total_length_that_cannot_be,
    a_wrong_checksum,
    a_checksum_in_its_other_form,
);

/// A datagram for the container `c2`, by both hooks.
fn both(n: &Network) -> [Sent; 2] {
    [n.c1.sends(n.c2.address, udp()), inbound(n.eth0, OUTSIDE, n.c2.address, udp())]
}

fn each(n: &Network, case: impl FnMut(Sent) -> Vec<Case>) -> Vec<Case> {
    both(n).into_iter().flat_map(case).collect()
}

fn a_version_other_than_four(n: &Network) -> Vec<Case> {
    each(n, |sent| {
        let versions = (0..16).filter(|version| *version != 4);
        let case = |version| {
            let odd = sent.clone().with(|packet| packet.version = version);
            odd.called(format!("version {version}")).must_drop(Reason::Malformed)
        };
        versions.map(case).collect()
    })
}

fn a_header_shorter_than_five_words(n: &Network) -> Vec<Case> {
    each(n, |sent| {
        let case = |words| {
            let odd = sent.clone().with(|packet| packet.header_words = Some(words));
            odd.called(format!("{words} words")).must_drop(Reason::Malformed)
        };
        (0..5).map(case).collect()
    })
}

/// Of a container: a source route, whatever stands before and behind it, and what is cut short. By an uplink they are
/// the kernel's, which has a switch for them (`accept_source_route`).
fn options_that_are_not_the_kernel_s(n: &Network) -> Vec<Case> {
    let source_routes: [(&str, Vec<u8>); 6] = [
        ("a loose source route", vec![131, 7, 4, 203, 0, 113, 9, 0]),
        ("a strict one", vec![137, 7, 4, 203, 0, 113, 9, 0]),
        ("one behind others", vec![1, 148, 4, 0, 0, 131, 3, 4]),
        ("one before a malformed option", vec![131, 7, 4, 203, 0, 113, 9, 7]),
        ("a malformed one", vec![131, 0, 0, 0]),
        ("one at the very end", [vec![1; 39], vec![131]].concat()),
    ];
    let malformed: [(&str, Vec<u8>); 5] = [
        ("a length of zero", vec![7, 0, 0, 0]),
        ("a length of one", vec![7, 1, 0, 0]),
        ("a length beyond the header", vec![1, 7, 4, 0]),
        ("no length", vec![1, 1, 1, 7]),
        ("no length, at the very end", [vec![1; 39], vec![148]].concat()),
    ];
    let harmless: [(&str, Vec<u8>); 2] =
        [("behind the end of the list", vec![0, 131, 0, 0]), ("in another option", vec![7, 4, 131, 137])];
    let ends = [(&source_routes[..], Reason::SourceRoute), (&malformed, Reason::Malformed), (&harmless, Reason::IpOptions)];
    let mut cases = Vec::new();
    for (options, reason) in ends {
        for (name, options) in options {
            let with = |packet: &mut Ipv4| packet.options = options.clone();
            for to in [n.c2.address.octets(), [172, 19, 36, 2], [10, 141, 0, 1], [203, 0, 113, 5], [172, 19, 35, 4]] {
                let sent = n.c1.sends(to, udp()).with(with).called(format!("{name}, to {to:?}"));
                cases.push(match (reason, to) {
                    (Reason::IpOptions, [10, ..]) => sent.must_pass(Reason::ToHost),
                    (Reason::IpOptions, [203, ..]) => sent.must_pass(Reason::NoRoute),
                    (Reason::IpOptions, [172, 19, 35, 4]) => sent.must_drop(Reason::NoEndpoint),
                    (Reason::IpOptions, _) => sent.must_pass(reason),
                    _ => sent.must_drop(reason),
                });
            }
            let inbound = inbound(n.eth0, OUTSIDE, n.c2.address, udp()).with(with);
            cases.push(inbound.called(format!("{name}, by an uplink")).must_pass(Reason::IpOptions));
        }
    }
    cases
}

fn options_are_the_kernel_s(n: &Network) -> Vec<Case> {
    let options: [(&str, Vec<u8>); 4] = [
        ("none, spelled out", vec![1, 1, 1, 0]),
        ("record route", vec![7, 7, 4, 0, 0, 0, 0, 0]),
        ("router alert", vec![148, 4, 0, 0]),
        ("as many as fit", vec![1; 40]),
    ];
    let mut cases = Vec::new();
    for (name, options) in options {
        let with = |packet: &mut Ipv4| packet.options = options.clone();
        cases.extend(both(n).map(|sent| sent.with(with).called(name).must_pass(Reason::IpOptions)));
        let forwarded = n.c1.sends([172, 19, 36, 2], udp()).with(with);
        cases.push(forwarded.called(format!("{name}, to another node")).must_pass(Reason::IpOptions));
        let spoofed = n.c1.sends(n.c2.address, udp()).with(with).by(n.c2.veth);
        cases.push(spoofed.called(format!("{name}, spoofed")).must_drop(Reason::SpoofedSource));
        let to_nobody = inbound(n.eth0, OUTSIDE, [172, 19, 35, 4], udp()).with(with);
        cases.push(to_nobody.called(format!("{name}, to nobody")).must_drop(Reason::NoEndpoint));
    }
    // The header alone is longer than the packet.
    let longer = |sent: Sent| sent.with(|packet| packet.header_words = Some(15));
    cases.extend(both(n).map(|sent| longer(sent).called("not all there").must_drop(Reason::Malformed)));
    cases
}

fn a_total_length_that_cannot_be(n: &Network) -> Vec<Case> {
    each(n, |sent| {
        let right = (sent.frame.bytes().len() - 14) as u16;
        let with = |length: u16| sent.clone().with(|packet| packet.total_length = Some(length));
        let mut cases: Vec<Case> = [0, 1, 19, right + 1, right + 100, 0x7fff, 0xffff]
            .into_iter()
            .map(|length| with(length).called(format!("{length} of {right}")).must_drop(Reason::Malformed))
            .collect();
        // What is beyond is padding.
        for length in [20, right - 1, right] {
            cases.push(with(length).called(format!("{length} of {right}")).must_reach(&n.c2));
        }
        let options = with(23).with(|packet| packet.options = vec![1; 4]);
        cases.push(options.called("less than a header with options").must_drop(Reason::Malformed));
        // Of an aggregate of more than 65,535 bytes the length is zero (Linux 6.3).
        cases.push(with(0).in_segments_of(1000).called("zero, of an aggregate").must_reach(&n.c2));
        cases.push(with(1).in_segments_of(1000).called("one, of an aggregate").must_drop(Reason::Malformed));
        cases
    })
}

fn a_wrong_checksum(n: &Network) -> Vec<Case> {
    let wrong = |packet: &mut Ipv4| packet.checksum = Some(0x5555);
    let mut cases = each(n, |sent| {
        let mut cases = vec![sent.clone().with(wrong).called("another one").must_drop(Reason::BadChecksum)];
        // Of every field that the header's checksum covers, a bit is changed on the way.
        for byte in (15..34).filter(|byte| !(16..18).contains(byte) && !(26..34).contains(byte)) {
            let damaged = sent.clone().altered(|bytes| bytes[byte] ^= 0x08);
            cases.push(damaged.called(format!("byte {byte}")).must_drop(Reason::BadChecksum));
        }
        cases
    });
    // Where the kernel goes on, it checks for itself.
    let passed = [
        n.c1.sends([10, 141, 0, 1], udp()).with(wrong).called("to the node").must_pass(Reason::ToHost),
        inbound(n.eth0, OUTSIDE, [10, 141, 0, 1], udp()).with(wrong).called("in").must_pass(Reason::ToHost),
    ];
    cases.extend(passed);
    cases
}

/// Ones' complement has two zeros, and a checksum field may hold either (RFC 1624, section 3).
fn a_checksum_in_its_other_form(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for sent in both(n) {
        // The identification that makes the right checksum zero.
        let right = |id: u16| {
            let bytes = sent.clone().with(|packet| packet.id = id).frame.bytes();
            u16::from_be_bytes([bytes[24], bytes[25]])
        };
        let id = (0..=u16::MAX).find(|id| right(*id) == 0).expect("some sum is zero");
        let zero = sent.clone().with(|packet| packet.id = id);
        cases.push(zero.clone().called("positive zero").must_reach(&n.c2));
        let negative = zero.with(|packet| packet.checksum = Some(0xffff));
        cases.push(negative.called("negative zero").must_reach(&n.c2));
        // A sum at which the new checksum goes over the edge.
        let id = (0..=u16::MAX).find(|id| right(*id) == 0xfeff).expect("some sum is at the edge");
        let edge = sent.clone().with(|packet| packet.id = id);
        cases.push(edge.called("at the edge").must_reach(&n.c2));
    }
    cases
}
