//! The programs attached to veths, for packets that `BPF_PROG_TEST_RUN` cannot make: cut short within the IP
//! header, with a tag that the kernel has set aside, and not in one piece.

use std::time::Duration;

use anyhow::{Result, ensure};
use dataplane_common::{
    reason::Reason,
    stats::{Counter, Hook},
};
use tests::harness::{
    eventually,
    packet::{Arp, L4},
    skip::skip_without_root,
};

use crate::{
    network::{Network, OUTSIDE},
    packets::{Sent, from_uplink, inbound, payload, udp},
};

const LIMIT: Duration = Duration::from_secs(10);

/// Sends each frame, and awaits that it is counted as the reason says, with as many bytes.
fn check(name: &str, cases: impl FnOnce(&Network) -> Vec<(Sent, Reason, usize)>) -> Result<()> {
    if skip_without_root(name) {
        return Ok(());
    }
    let mut network = Network::new()?;
    let out = network.programs.attach(Hook::FromContainer, "cali1")?;
    let in_ = network.programs.attach(Hook::FromUplink, "eth0")?;
    let cases = cases(&network);
    let mut expected = Vec::<(Hook, Reason, Counter)>::new();
    for (sent, reason, bytes) in cases {
        let injector = if sent.hook == Hook::FromContainer { &out } else { &in_ };
        injector.send(&sent.packet().frame)?;
        let is_same =
            |(hook, other, _): &&mut (Hook, Reason, Counter)| (*hook, *other) == (sent.hook, reason);
        let counter = match expected.iter_mut().find(|counter| is_same(counter)) {
            Some((.., counter)) => counter,
            None => {
                expected.push((sent.hook, reason, Counter::default()));
                expected.sort_by_key(|(hook, reason, _)| (*hook, *reason as u32));
                let added = expected.iter_mut().find(|counter| is_same(counter));
                added.map(|(.., counter)| counter).expect("just added")
            }
        };
        counter.packets += 1;
        counter.bytes += bytes as u64;
        eventually(LIMIT, || {
            let counts = network.programs.counts()?;
            ensure!(counts == expected, "after {sent:?}:\n  counted {counts:?}\n  expected {expected:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_header_that_is_cut_short_is_malformed() -> Result<()> {
    check("a_header_that_is_cut_short_is_malformed", |n| {
        let sents = [n.c1.sends(n.c2.address, udp()), inbound(n.eth0, OUTSIDE, n.c2.address, udp())];
        let cut = |sent: &Sent, length: usize| sent.clone().altered(|bytes| bytes.truncate(length));
        let cases = sents
            .iter()
            .flat_map(|sent| (14..34).map(move |length| (cut(sent, length), Reason::Malformed, length)));
        cases.collect()
    })
}

/// Priority 0 of no VLAN looks like no tag at all, but for one bit beside it.
#[test]
fn a_priority_tag_that_is_set_aside_is_no_tag() -> Result<()> {
    check("a_priority_tag_that_is_set_aside_is_no_tag", |n| {
        let question = Arp::request(n.c1.mac, n.c1.address, [169, 254, 1, 1]);
        let sents = [
            (n.c1.sends(n.c2.address, udp()), Reason::Delivered),
            (n.c1.sends([10, 141, 0, 1], udp()), Reason::ToHost),
            (n.c2.sends(n.c3.address, udp()).by(n.c1.veth), Reason::SpoofedSource),
            (n.c1.asks(question), Reason::ArpAnswered),
            (inbound(n.eth0, OUTSIDE, n.c2.address, udp()), Reason::Delivered),
            (inbound(n.eth0, OUTSIDE, [172, 19, 35, 77], udp()), Reason::NoEndpoint),
            (from_uplink(n.eth0, question), Reason::Arp),
        ];
        let cases = sents.into_iter().flat_map(|(sent, reason)| {
            let untagged = sent.frame.bytes().len();
            [vec![0], vec![0xe000], vec![0, 0xa000]].map(|controls| {
                let mut tagged = sent.clone();
                tagged.frame = controls.iter().fold(tagged.frame, |frame, control| frame.tagged(*control));
                (tagged, reason, untagged)
            })
        });
        cases.collect()
    })
}

/// At a real hook the tag is no part of the frame any more.
#[test]
fn a_tag_that_is_set_aside_is_seen() -> Result<()> {
    check("a_tag_that_is_set_aside_is_seen", |n| {
        let question = Arp::request(n.c1.mac, n.c1.address, [169, 254, 1, 1]);
        let sents = [
            n.c1.sends(n.c2.address, udp()),
            n.c1.asks(question),
            inbound(n.eth0, OUTSIDE, n.c2.address, udp()),
            from_uplink(n.eth0, question),
        ];
        let cases = sents.into_iter().flat_map(|sent| {
            let untagged = sent.frame.bytes().len();
            [1, 4095, 0xe005].map(|control| {
                let mut tagged = sent.clone();
                tagged.frame = tagged.frame.tagged(control);
                (tagged, Reason::Vlan, untagged)
            })
        });
        cases.collect()
    })
}

/// Of a frame of more than a page a packet socket makes a packet of which only the Ethernet header is in one
/// piece (`packet_alloc_skb()` in `net/packet/af_packet.c`).
#[test]
fn headers_that_are_not_in_one_piece_are_read() -> Result<()> {
    check("headers_that_are_not_in_one_piece_are_read", |n| {
        let large = || L4::Raw(17, payload(5000));
        let question = Arp::request(n.c1.mac, n.c1.address, [169, 254, 1, 1]);
        let announcement = Arp::request(n.c1.mac, n.c1.address, n.c1.address);
        let cases = vec![
            (n.c1.sends([10, 141, 0, 1], large()), Reason::ToHost),
            (n.c1.sends([172, 19, 36, 2], large()), Reason::TooBig),
            (n.c1.sends([172, 19, 35, 77], large()), Reason::NoEndpoint),
            (n.c2.sends([172, 19, 35, 77], large()).by(n.c1.veth), Reason::SpoofedSource),
            (n.c1.asks(announcement).padded(5000), Reason::Arp),
            (n.c1.asks(question).padded(5000), Reason::ArpAnswered),
            (inbound(n.eth0, OUTSIDE, [10, 141, 0, 1], large()), Reason::ToHost),
            (inbound(n.eth0, OUTSIDE, n.c2.address, large()), Reason::TooBig),
            (inbound(n.eth0, OUTSIDE, [172, 19, 35, 77], large()), Reason::NoEndpoint),
            (from_uplink(n.eth0, question).padded(5000), Reason::Arp),
        ];
        let with_length = |(sent, reason): (Sent, Reason)| {
            let length = sent.frame.bytes().len();
            (sent, reason, length)
        };
        cases.into_iter().map(with_length).collect()
    })
}
