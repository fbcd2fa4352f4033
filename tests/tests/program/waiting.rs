//! The program that holds the place of a walk: nothing leaves that nobody has checked. And what no program touches.

use anyhow::Result;
use dataplane::kernel::object::Program;
use dataplane_common::{
    reason::{Class, Reason},
    stats::Hook,
};
use tests::harness::{
    packet::{Arp, Payload, Vlan, ethertype},
    skip::skip_without_root,
};

use crate::{
    case::is_answerable,
    network::{EXCLUDED, NODE, NOWHERE, Network, OUTSIDE},
    packets::{Sent, from_container, inbound, udp},
    programs::{Context, Counts, action},
};

fn context(ifindex: u32) -> Context {
    Context { mark: 0xdead, priority: 6, ifindex, cb: [1, 2, 3, 4, 5], tstamp: 99, ..Context::default() }
}

#[test]
fn a_waiting_program_lets_nothing_out() -> Result<()> {
    if skip_without_root("a_waiting_program_lets_nothing_out") {
        return Ok(());
    }
    let mut network = Network::translating()?;
    let n = &network;
    let question = Arp::request(n.c1.mac, n.c1.address, [169, 254, 1, 1]);
    let to = |sent: &Sent, to: [u8; 4]| sent.clone().with(|packet| packet.destination = to.into());
    let stranger = n.c1.sends(NOWHERE, udp()).by(n.vacant);
    // One that has become a container in this moment.
    let container = n.c1.sends(NOWHERE, udp());
    let nobody = to(&stranger, [255; 4]).with(|packet| packet.source = [0; 4].into());
    let behind = |sent: &Sent, tags: &[u16]| {
        let tags: Vec<Vlan> =
            tags.iter().map(|control| Vlan { ethertype: ethertype::VLAN, control: *control }).collect();
        sent.clone().behind(&tags)
    };
    let mut cases = vec![
        (n.c1.asks(question).by(n.vacant), Reason::Arp),
        (from_container(n.vacant, n.c1.frame(Payload::Other(ethertype::IPV6, vec![0x60; 40]))), Reason::Ipv6),
        (from_container(n.vacant, n.c1.frame(Payload::Other(0x88cc, vec![0; 46]))), Reason::OtherProtocol),
        (nobody.clone(), Reason::Broadcast),
        (nobody.with(|packet| packet.options = vec![131, 3, 4, 0]), Reason::SourceRoute),
        (behind(&stranger, &[0]), Reason::SpoofedSource),
        (behind(&stranger, &[0, 5]), Reason::NatUnsupported),
        (container.clone(), Reason::NatKernelRoute),
        (behind(&container, &[0xa000]), Reason::NatKernelRoute),
        (to(&container, EXCLUDED), Reason::KernelRoute),
        (to(&container, NODE), Reason::ToHost),
        (to(&container, n.c2.address.octets()), Reason::KernelRoute),
    ];
    for address in [NOWHERE, NODE, n.c2.address.octets(), [172, 19, 36, 2], [224, 0, 0, 1], [192, 0, 2, 7]] {
        cases.push((to(&stranger, address), Reason::SpoofedSource));
    }
    network.programs.enter(|runner| {
        for (sent, reason) in cases {
            let context = context(sent.interface.ifindex);
            let before = runner.counts()?;
            let ran = runner.run_program(Program::Waiting, &sent.packet().frame, context)?;
            let untagged = sent.untagged();
            if reason.is_told() && is_answerable(&untagged) {
                // The answer is the subject of others.
                assert_eq!(ran.action, action::REDIRECT, "{reason:?}, {sent:?}");
            } else {
                let is_dropped = reason.class() == Class::Drop;
                let action = if is_dropped { action::DROP } else { action::PASS };
                assert_eq!((ran.action, ran.bytes), (action, untagged), "{reason:?}, {sent:?}");
            }
            assert_eq!((ran.context.mark, ran.context.cb), (context.mark, context.cb));
            let count = |counts: &Counts| {
                let of = counts.iter().find(|count| (count.0, count.1) == (Hook::FromContainer, reason));
                of.map_or(0, |(.., counter)| counter.packets)
            };
            let counts = runner.counts()?;
            assert_eq!(count(&counts), count(&before) + 1, "{reason:?}, {sent:?}, {counts:?}");
        }
        Ok(())
    })
}

/// Marks, priorities and the control block are other programs' and the kernel's.
#[test]
fn a_walk_leaves_what_is_beside_the_packet() -> Result<()> {
    if skip_without_root("a_walk_leaves_what_is_beside_the_packet") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let walks = [
        (Hook::FromContainer, network.c1.sends(network.c2.address, udp())),
        (Hook::FromContainer, network.c1.sends([172, 19, 36, 2], udp())),
        (Hook::FromContainer, network.c1.sends([10, 141, 0, 1], udp())),
        (Hook::FromUplink, inbound(network.eth0, OUTSIDE, network.c2.address, udp())),
    ];
    network.programs.enter(|runner| {
        for (hook, sent) in &walks {
            let before = context(sent.interface.ifindex);
            let after = runner.run_program(Program::Walk(*hook), &sent.frame.bytes(), before)?.context;
            let fields = |context: &Context| {
                (context.mark, context.priority, context.ifindex, context.cb, context.tstamp)
            };
            assert_eq!(fields(&after), fields(&before), "{sent:?}");
        }
        Ok(())
    })
}
