//! The end of the walk of a new flow's first packet: all but the flow was looked at before.

use dataplane_common::{reason::Reason, stats::Hook};

use crate::{
    endpoint,
    flow::{self, Exit},
    hook::{deliver_checked, forward_checked},
    packet::Packet,
    verdict::{Action, Walk},
};

/// The rest of the packet's walk, with the hook that it began at.
#[inline(always)]
pub fn walk(packet: &impl Packet) -> (Hook, Walk<Action>) {
    let (hook, exit) = flow::finish_first(packet);
    (hook, exit.and_then(|exit| leave(packet, exit)))
}

#[inline(always)]
fn leave(packet: &impl Packet, exit: Exit) -> Walk<Action> {
    match exit.kind {
        Exit::FORWARD => {
            packet.exit_to_neighbour(exit.number, exit.neighbour)?;
            forward_checked(packet)
        }
        Exit::DELIVER => {
            let endpoint = endpoint::get(exit.number)?;
            packet.exit_to_container(endpoint.ifindex)?;
            deliver_checked(packet, endpoint)
        }
        _ => Err(Reason::NotLocal),
    }
}
