//! The program at XDP against the one at tc behind it: whatever XDP does with a frame by itself, tc would have done to
//! the packet, and what it leaves to tc it leaves as it came.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use dataplane_common::{
    reason::{Class, Reason},
    stats::Hook,
    trace::StepCode,
    uplink::Uplink,
};
use tests::harness::{
    packet::{Icmp, Udp, internet_checksum},
    skip::skip_without_root,
};

use crate::{
    case::hex,
    network::{Hop, NODE, NOWHERE, Network, PORT},
    packets::{inbound, udp},
    programs::{Interface, Packet, Runner, Traced},
    translation::{SOURCE_PORT, translated},
};

/// What the program returns (`enum xdp_action` of `include/uapi/linux/bpf.h`).
mod action {
    pub(super) const DROP: i32 = 1;
    pub(super) const PASS: i32 = 2;
    pub(super) const REDIRECT: i32 = 4;
}

/// What XDP does with a packet for an uplink otherwise than it may, where tc does that; nothing for other packets, for
/// those that XDP never sees, and where no uplink is served there.
pub(crate) fn differences(runner: &mut Runner, packet: &Packet, tc: &Traced) -> Result<Vec<String>> {
    if !runner.serves_at_xdp(packet.ifindex) || packet.hook != Hook::FromUplink || packet.gso_size != 0 {
        return Ok(Vec::new());
    }
    let xdp = runner.trace_at_xdp(packet)?;
    let mut differences = Vec::new();
    let mut check = |what: &str, holds: bool| {
        if !holds {
            differences.push(format!(
                "at XDP, {what}: {:?}, action {}, {}\n      at tc: {:?}, {}",
                xdp.reason,
                xdp.ran.action,
                hex(&xdp.ran.bytes),
                tc.reason,
                hex(&tc.ran.bytes)
            ));
        }
    };
    match xdp.reason.class() {
        Class::Drop => {
            check("dropped for another reason", xdp.reason == tc.reason);
            check("dropped otherwise", xdp.ran.action == action::DROP);
        }
        Class::Forward => {
            check("forwarded", xdp.reason == Reason::Forwarded && tc.reason == Reason::Forwarded);
            check("forwarded otherwise", xdp.ran.action == action::REDIRECT);
            check("another packet", xdp.ran.bytes[12..] == tc.ran.bytes[12..]);
            check(
                "to another router",
                Some(&xdp.ran.bytes[..6]) == router_of(tc).as_ref().map(|mac| &mac[..]),
            );
        }
        Class::Pass => {
            check("passed otherwise", xdp.ran.action == action::PASS);
            check("may not be left to tc", may_leave(xdp.reason, tc.reason));
            check("left to tc as another packet", xdp.ran.bytes == packet.frame);
        }
    }
    Ok(differences)
}

/// The MAC of the router that the packet is sent to.
fn router_of(traced: &Traced) -> Option<[u8; 6]> {
    let (_, [_, _, gateway]) = traced.steps.iter().rev().find(|(code, _)| *code == StepCode::NextHop)?;
    Some(Network::mac_of(Ipv4Addr::from(*gateway)))
}

/// Whether XDP may pass a packet for that reason of which tc says that.
fn may_leave(xdp: Reason, tc: Reason) -> bool {
    let translates = tc.name().starts_with("nat-");
    match xdp {
        Reason::TcDelivers => tc == Reason::Delivered || tc == Reason::TooBig || translates,
        Reason::TcTranslates => {
            matches!(tc, Reason::Forwarded | Reason::NotLocal | Reason::Malformed)
                || translates
                || is_of_the_way_on(tc)
        }
        // Replies that are not plain, and so not known for replies.
        Reason::ToHost => {
            matches!(tc, Reason::ToHost | Reason::Delivered | Reason::Forwarded | Reason::NoEndpoint)
                || tc == Reason::MartianSource
                || translates
                || is_of_the_way_on(tc)
        }
        Reason::NoNeighbour | Reason::NeedsSkb => {
            // Also what lies behind the packet and is to be cut off.
            matches!(tc, Reason::Forwarded | Reason::Delivered | Reason::TooBig) || translates
        }
        // Only tc takes a priority tag off, and then looks at the packet.
        Reason::Vlan => true,
        Reason::NoXdpExit => false,
        same => same == tc,
    }
}

/// Reasons of the checks behind the question whether a flow is known.
fn is_of_the_way_on(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::OtherHost
            | Reason::IpOptions
            | Reason::BadChecksum
            | Reason::TtlExpired
            | Reason::TooBig
            | Reason::KernelRoute
    )
}

/// What XDP does by itself, and each reason to leave it.
#[test]
fn every_way_in_which_a_frame_ends() -> Result<()> {
    if skip_without_root("at_xdp::every_way_in_which_a_frame_ends") {
        return Ok(());
    }
    let mut n = Network::translating()?;
    n.serve_at_xdp()?;
    let inside = [172, 19, 38, 2];
    let question = || Udp::new(SOURCE_PORT, 53, b"a question");
    let (out, back) = (
        inbound(n.eth1, inside, NOWHERE, question()),
        inbound(n.eth0, NOWHERE, NODE, Udp::new(53, PORT, b"an answer")),
    );
    // The field of a datagram that its sender left to a device: the sum of the pseudo header.
    let pseudo_header = [&NOWHERE[..], &NODE, &[0, 17, 0, 17]].concat();
    let unfinished =
        Udp { checksum: Some(!internet_checksum(&pseudo_header)), ..Udp::new(53, PORT, b"an answer") };
    let unfinished = inbound(n.eth0, NOWHERE, NODE, unfinished);
    let error = inbound(n.eth0, NOWHERE, NODE, Icmp::unreachable(3, &translated(&out).bytes()));
    let short = inbound(n.eth0, NOWHERE, n.c1.address, udp()).altered(|bytes| bytes[14] = 0x44);
    let too_big = inbound(n.eth0, NOWHERE, NODE, Udp::new(53, PORT, vec![7; 1400]));
    let too_big = too_big.with(|packet| packet.dont_fragment = false);
    let tunnel = inbound(n.eth1, inside, NOWHERE, Udp::new(SOURCE_PORT, 4789, b"VXLAN"));
    let cases = [
        ("a new flow", out.clone(), Reason::TcTranslates),
        ("a known flow", out.clone(), Reason::Forwarded),
        ("its reply", back.clone(), Reason::Forwarded),
        ("an unfinished reply", unfinished, Reason::NeedsSkb),
        ("one that is too big for the other uplink", too_big, Reason::TcTranslates),
        ("an error about it", error, Reason::ToHost),
        ("of a wrong uplink", inbound(n.eth1, [172, 19, 36, 2], NOWHERE, udp()), Reason::SpoofedSource),
        ("for a container", inbound(n.eth0, NOWHERE, n.c1.address, udp()), Reason::TcDelivers),
        ("a new tunnel", tunnel.clone(), Reason::TcTranslates),
        // Whose inner packet may be unfinished.
        ("a known one", tunnel, Reason::NeedsSkb),
        ("for nobody", inbound(n.eth0, NOWHERE, [172, 19, 35, 77], udp()), Reason::NoEndpoint),
        ("malformed", short, Reason::Malformed),
        ("for another MAC", out.clone().addressed_to([2, 0, 0, 0, 0, 1]), Reason::OtherHost),
    ];
    let (eth0, eth1) = (n.eth0, n.eth1);
    n.programs.enter(|runner| {
        for (name, sent, reason) in cases {
            let packet = sent.packet();
            let traced = runner.trace_at_xdp(&packet)?;
            ensure!(traced.reason == reason, "{name}: {:?}, not {reason:?}", traced.reason);
            if reason == Reason::TcTranslates {
                ensure!(traced.ran.bytes == packet.frame, "{name}: not left as it came");
                let at_tc = runner.run_counted(&packet)?.moved[0].1;
                // The kernel fragments it.
                let expected = if name.contains("too big") { Reason::TooBig } else { Reason::Forwarded };
                ensure!(at_tc == expected, "{name}: {at_tc:?} at tc");
            }
        }
        // An uplink that takes no frames, and one that is not known.
        let row =
            |interface: Interface, flags| Uplink { ifindex: interface.ifindex, mac: interface.mac, flags };
        let cases = [
            (vec![row(eth0, 0), row(eth1, Uplink::TAKES_FRAMES)], Reason::NoXdpExit),
            (vec![row(eth1, Uplink::TAKES_FRAMES)], Reason::NoXdpExit),
            (vec![row(eth0, Uplink::TAKES_FRAMES)], Reason::OtherHost),
        ];
        for (rows, reason) in cases {
            runner.set_uplinks(&rows)?;
            let traced = runner.trace_at_xdp(&out.packet())?;
            ensure!(traced.reason == reason, "{rows:?}: {:?}, not {reason:?}", traced.reason);
        }
        Ok(())
    })?;
    // The kernel's route to that router leads by another one, whose MAC it would give.
    n.programs.route("eth0", "default via 10.141.0.9")?;
    let hop = Hop { gateway: Some([10, 9, 9, 9].into()), ..n.outside };
    n.set("203.0.113.0/24".parse()?, Some(hop.destination()))?;
    n.programs.enter(|runner| {
        let all = |interface: Interface| Uplink {
            ifindex: interface.ifindex,
            mac: interface.mac,
            flags: Uplink::TAKES_FRAMES,
        };
        runner.set_uplinks(&[all(eth0), all(eth1)])?;
        let traced = runner.trace_at_xdp(&out.packet())?;
        ensure!(traced.reason == Reason::NoNeighbour, "by another router: {:?}", traced.reason);
        Ok(())
    })?;
    n.set("203.0.113.0/24".parse()?, Some(n.outside.destination()))?;
    n.programs.enter(|runner| {
        let traced = runner.trace_at_xdp(&out.packet())?;
        ensure!(traced.reason == Reason::Forwarded, "by the router itself: {:?}", traced.reason);
        Ok(())
    })?;
    n.programs.forget_neighbours("eth0")?;
    n.programs.enter(|runner| {
        let all = |interface: Interface| Uplink {
            ifindex: interface.ifindex,
            mac: interface.mac,
            flags: Uplink::TAKES_FRAMES,
        };
        runner.set_uplinks(&[all(eth0), all(eth1)])?;
        let traced = runner.trace_at_xdp(&out.packet())?;
        ensure!(traced.reason == Reason::NoNeighbour, "{:?}", traced.reason);
        Ok(())
    })
}
