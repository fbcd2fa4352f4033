//! Packets of flows that are there.

use dataplane_common::{
    family::V4,
    flow::{
        record::{Binding, flags},
        state::Direction,
        table::{Hit, Table},
    },
    next_hop::NextHop,
    reason::Reason,
};

use super::{
    Maps, count_packet,
    rewrite::{self, Change},
    rules, table, trace_hit,
    transport::{self, Transport},
};
use crate::{
    ipv4::{Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// A packet of a flow that is there.
pub struct Known {
    /// The table.
    pub(super) table: Table<'static, Maps>,
    /// The flow.
    pub(super) hit: Hit<'static, V4>,
    /// The packet's TCP flags.
    pub(super) tcp_flags: u8,
}

/// The flow of a packet, where that is plain to see: no fragment, no options, no error.
#[inline(always)]
pub fn lookup(packet: &impl Packet, ipv4: &Ipv4) -> Option<Known> {
    let table = table()?;
    if ipv4.has_options() || ipv4.is_later_fragment() || ipv4.is_first_fragment() {
        return None;
    }
    let Ok(Transport::Flow(tuple, tcp_flags)) = transport::read(packet, ipv4) else {
        return None;
    };
    let hit = table.lookup(&tuple)?;
    trace_hit(&hit);
    Some(Known { table, hit, tcp_flags })
}

impl Known {
    /// Whether the packet goes on as its flow began, if it leaves by that next hop: by the same uplink and rules.
    #[inline(always)]
    pub fn is_bound_to(&self, next_hop: &NextHop) -> bool {
        if self.hit.direction as u8 != Direction::Original as u8 {
            return true;
        }
        let binding = Binding::from_bits(self.hit.flow.binding.load());
        binding.agrees(Binding::new(next_hop.ifindex, 0, rules::epoch(self.table.settings)))
            || self.hit.flow.flags() & flags::SNAT == 0
    }

    /// Lets a packet that leaves count for its flow, and translates its source if the flow says so.
    #[inline(always)]
    pub fn apply_outbound(&self, packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
        // Read before the flow is known to live: it is then as it was.
        let (port, reply) = (self.hit.flow.original().source_port, self.hit.flow.reply());
        let is_original = self.hit.direction as u8 == Direction::Original as u8;
        let is_translated = is_original && self.hit.flow.flags() & flags::SNAT != 0;
        self.note(packet, ipv4)?;
        if !is_translated {
            return Ok(());
        }
        let change = Change {
            side: Side::Source,
            address: reply.destination,
            old_port: port,
            port: reply.destination_port,
        };
        rewrite::apply(packet, ipv4, &change)
    }

    /// Lets a reply of a translated flow count, and makes it one for its source.
    #[inline(always)]
    pub fn apply_reply(&self, packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
        let (original, port) = (self.hit.flow.original(), self.hit.flow.reply().destination_port);
        self.note(packet, ipv4)?;
        let change = Change {
            side: Side::Destination,
            address: original.source,
            old_port: port,
            port: original.source_port,
        };
        rewrite::apply(packet, ipv4, &change)
    }

    /// Lets the packet count for its flow.
    #[inline(always)]
    pub fn note(&self, packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
        if observe::is_trace() {
            return Ok(());
        }
        if !ipv4.is_later_fragment() && !self.table.renew(&self.hit, self.tcp_flags) {
            return Err(Reason::NatContended);
        }
        count_packet(self.hit.slot, self.hit.direction, packet.len());
        Ok(())
    }
}
