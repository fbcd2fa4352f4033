//! The program that holds the place of a walk: it must leave everything as it is. And what no program touches.

use anyhow::Result;
use dataplane::kernel::object::Program;
use dataplane_common::stats::Hook;
use tests::harness::skip::skip_without_root;

use crate::{
    network::{Network, OUTSIDE},
    packets::{inbound, udp},
    programs::{Context, action},
};

fn context(ifindex: u32) -> Context {
    Context { mark: 0xdead, priority: 6, ifindex, cb: [1, 2, 3, 4, 5], tstamp: 99, ..Context::default() }
}

#[test]
fn a_waiting_program_passes_everything_and_counts_nothing() -> Result<()> {
    if skip_without_root("a_waiting_program_passes_everything_and_counts_nothing") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let spoofed = network.c1.sends(network.c2.address, udp()).by(network.vacant);
    let frames = [spoofed.frame.bytes(), vec![0xff; 14], vec![0; 1500]];
    let context = context(network.vacant.ifindex);
    network.programs.enter(|runner| {
        for frame in frames {
            let ran = runner.run_program(Program::Waiting, &frame, context)?;
            assert_eq!((ran.action, ran.bytes), (action::PASS, frame));
            assert_eq!((ran.context.mark, ran.context.cb), (context.mark, context.cb));
        }
        assert_eq!(runner.counts()?, []);
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
