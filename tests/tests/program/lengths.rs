//! Frames that end too early: at every length.

use anyhow::Result;
use dataplane_common::reason::Reason;
use tests::harness::{
    packet::{Arp, L4, Payload, ethertype},
    skip::skip_without_root,
};

use crate::{
    case::{Case, check_on},
    network::{Network, OUTSIDE},
    packets::{Sent, from_container, inbound, payload},
};

const FRAME: usize = 60;

fn cut(sent: &Sent, length: usize) -> Sent {
    sent.clone().altered(|bytes| bytes.truncate(length))
}

/// An IPv4 packet that is cut anywhere is missing a part that its length names.
#[test]
fn a_datagram_is_dropped_at_every_length_but_its_own() -> Result<()> {
    if skip_without_root("a_datagram_is_dropped_at_every_length_but_its_own") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let n = &network;
    let content = || L4::Raw(17, payload(FRAME - 34));
    let mut cases = Vec::new();
    for sent in [n.c1.sends(n.c2.address, content()), inbound(n.eth0, OUTSIDE, n.c2.address, content())] {
        assert_eq!(sent.frame.bytes().len(), FRAME);
        // What has not even a header is for `hook`: the kernel does not run a program on it.
        for length in 34..FRAME {
            cases.push(cut(&sent, length).called(format!("{length} bytes")).must_drop(Reason::Malformed));
        }
        cases.push(sent.called("whole").must_reach(&n.c2));
    }
    check_on(&mut network, &cases)
}

#[test]
fn what_is_the_kernel_s_is_so_at_every_length() -> Result<()> {
    if skip_without_root("what_is_the_kernel_s_is_so_at_every_length") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let n = &network;
    let numbers = [
        (ethertype::IPV6, Reason::Ipv6),
        (ethertype::VLAN, Reason::Vlan),
        (ethertype::SERVICE_VLAN, Reason::Vlan),
        (0x88cc, Reason::OtherProtocol),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (number, reason) in numbers {
        let content = Payload::Other(number, payload(FRAME - 14));
        let out = from_container(n.c1.veth, n.c1.frame(content.clone()));
        let sents = [out, crate::packets::from_uplink(n.eth0, content)];
        let least = if number == ethertype::IPV6 { 54 } else { 14 };
        for (sent, length) in sents.iter().flat_map(|sent| (least..=FRAME).map(move |length| (sent, length)))
        {
            cases.push(cut(sent, length).called(format!("{number:#06x}, {length} bytes")).must_pass(reason));
        }
    }
    let question = Arp::request(n.c1.mac, [10, 141, 0, 2], [10, 141, 0, 1]);
    let arp = crate::packets::from_uplink(n.eth0, question);
    cases
        .extend((14..=42).map(|length| {
            cut(&arp, length).called(format!("ARP in, {length} bytes")).must_pass(Reason::Arp)
        }));
    check_on(&mut network, &cases)
}

/// Below the length of an Ethernet header there is no frame: the kernel does not run a program on it.
#[test]
fn the_kernel_refuses_what_is_no_frame() -> Result<()> {
    if skip_without_root("the_kernel_refuses_what_is_no_frame") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let sent = network.c1.sends(network.c2.address, L4::Raw(17, payload(26)));
    let Network { programs, .. } = &mut network;
    programs.enter(|runner| {
        for length in 0..14 {
            let error = runner.run_counted(&cut(&sent, length).packet()).expect_err("no frame");
            let refused = error.chain().any(|cause| format!("{cause:?}").contains("InvalidInput"));
            assert!(refused, "{length} bytes: {error:#}");
        }
        assert_eq!(runner.counts()?, [], "nothing ran, and nothing was counted");
        Ok(())
    })
}
