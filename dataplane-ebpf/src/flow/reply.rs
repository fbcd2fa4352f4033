//! Packets for an address of the node that belong to a translated flow.

use dataplane_common::{
    family::V4,
    flow::{
        record::flags,
        state::Direction,
        table::{Hit, Table},
    },
    net::Ipv4Be,
};

use super::{
    Known, Maps, fragment, icmp_error, rewrite, table, trace_hit, trace_miss,
    transport::{self, Transport},
};
use crate::{
    ipv4::{Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// A packet that belongs to a translated flow.
pub struct Reply {
    known: Known,
    /// Whether it is an ICMP error about a packet of the flow, and not one of its packets.
    is_error: bool,
    /// Where it goes to: the source of the flow.
    pub destination: Ipv4Be,
}

/// The translated flow that the packet is a reply of. What belongs to none is the node's own; of frames, so are for now
/// those that tc will look at more closely.
#[inline(always)]
pub fn find<P: Packet>(packet: &P, ipv4: &Ipv4) -> Option<Reply> {
    let table = table()?;
    if ipv4.has_options() || P::IS_FRAME && (ipv4.is_first_fragment() || ipv4.is_later_fragment()) {
        return None;
    }
    let (hit, tcp_flags, is_error) = if ipv4.is_later_fragment() {
        (fragment::find(&table, ipv4)?, 0, false)
    } else {
        match transport::read(packet, ipv4).ok()? {
            Transport::Flow(tuple, flags) => {
                let hit = table.lookup(&tuple);
                if hit.is_none() {
                    trace_miss(&tuple);
                }
                (hit?, flags, false)
            }
            Transport::Error if P::IS_FRAME => return None,
            Transport::Error => {
                let tuple = icmp_error::answer_to_quoted(packet).ok()?;
                (table.lookup_rarely(&tuple)?, 0, true)
            }
            Transport::Other => return None,
        }
    };
    reply(table, hit, tcp_flags, is_error)
}

#[inline(always)]
fn reply(table: Table<'static, Maps>, hit: Hit<'static, V4>, tcp_flags: u8, is_error: bool) -> Option<Reply> {
    if hit.direction as u8 != Direction::Reply as u8 || hit.flow.flags() & flags::SNAT == 0 {
        return None;
    }
    trace_hit(&hit);
    let destination = hit.flow.original().source;
    Some(Reply { known: Known { table, hit, tcp_flags }, is_error, destination })
}

impl Reply {
    /// Whether it is an error about a packet of the flow, from anybody.
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        self.is_error
    }

    /// Makes the packet one for the container.
    #[inline(always)]
    pub fn apply(&self, packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
        if self.is_error {
            let (original, reply) = (self.known.hit.flow.original(), self.known.hit.flow.reply());
            icmp_error::rewrite(
                packet,
                &icmp_error::Change {
                    side: Side::Source,
                    protocol: original.protocol,
                    address: original.source,
                    old_port: reply.destination_port,
                    port: original.source_port,
                },
            )?;
            return rewrite::apply_to_header(packet, Side::Destination, original.source);
        }
        if ipv4.is_first_fragment() && !observe::is_trace() {
            fragment::remember(&self.known.table, ipv4, &self.known.hit);
        }
        self.known.apply_reply(packet, ipv4)
    }
}
