//! A packet that came in by an uplink as it is to go on, and whose answers a rule would translate, were they not known as
//! answers: it belongs to a flow, or begins one.

use dataplane_common::{names::program_to_decide, reason::Reason, route::Target, stats::Hook};

use crate::{
    endpoint, flow,
    hook::deliver_checked,
    ipv4,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The rest of the packet's walk: its source was checked at the hook.
#[inline(always)]
pub fn walk(packet: &impl Packet) -> Walk<Action> {
    packet.pull_headers();
    let ipv4 = ipv4::read(packet)?;
    let Some(known) = flow::lookup(packet, &ipv4) else {
        return Err(packet.go_on_in(program_to_decide(Hook::FromUplink)));
    };
    match route::lookup(ipv4.destination).target() {
        Some(Target::Endpoint(index)) => {
            let endpoint = endpoint::get(index)?;
            ipv4::check_forwardable(packet, &ipv4)?;
            ipv4::check_size(packet, &ipv4, endpoint.mtu)?;
            packet.exit_to_container(endpoint.ifindex)?;
            known.note(packet, &ipv4)?;
            deliver_checked(packet, endpoint)
        }
        // For a container of another node: the kernel forwards it.
        _ => {
            known.note(packet, &ipv4)?;
            Err(Reason::NotLocal)
        }
    }
}
