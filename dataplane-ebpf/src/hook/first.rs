//! The end of the walk of a new flow's first packet: all but the flow was looked at before.

use dataplane_common::stats::Hook;

use crate::{
    hook::forward_checked,
    nat,
    packet::Packet,
    verdict::{Action, Walk},
};

/// The rest of the packet's walk, with the hook that it began at.
#[inline(always)]
pub fn walk(packet: &impl Packet) -> (Hook, Walk<Action>) {
    let (hook, translated) = nat::translate_first(packet);
    (hook, translated.and_then(|()| forward_checked(packet)))
}
