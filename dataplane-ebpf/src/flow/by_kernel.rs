//! Packets of flows that the kernel's connection tracking decided.

use dataplane_common::{
    family::V4,
    flow::{
        record::{Binding, flags},
        state::{Direction, flags as tcp},
        tuple::{Tuple, protocol},
    },
};

use super::{
    Known, count_packet, offer,
    rewrite::{self, Change},
    table, trace_hit, trace_miss,
    transport::{self, Transport},
};
use crate::{
    ipv4::{Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// The flow by which BPF carries the packet for the kernel. Without one the packet is the kernel's: so are fragments and packets
/// with options always, and what begins or ends a connection. A FIN or RST ends its flow. A SYN is looked up for nothing: within a
/// connection it is a mistake, which the other end answers, and that answer's RST ends the flow.
#[inline(always)]
pub fn carried(packet: &impl Packet, ipv4: &Ipv4) -> Option<Known> {
    let table = table()?;
    if ipv4.has_options() || ipv4.is_later_fragment() || ipv4.is_first_fragment() {
        return None;
    }
    let (tuple, tcp_flags) = match transport::read(packet, ipv4) {
        Ok(Transport::Flow(tuple, tcp_flags)) if tuple.protocol != protocol::ICMP => (tuple, tcp_flags),
        Ok(Transport::Other) => {
            let (source, destination) = (ipv4.source, ipv4.destination);
            let tuple =
                Tuple { source, destination, source_port: 0, destination_port: 0, protocol: ipv4.protocol };
            // The daemon tells of it, and asks nobody.
            offer::sample(&tuple);
            return None;
        }
        _ => return None,
    };
    if tcp_flags & tcp::SYN != 0 {
        return None;
    }
    let is_end = tcp_flags & (tcp::FIN | tcp::RST) != 0;
    let Some(hit) = table.lookup(&tuple) else {
        trace_miss(&tuple);
        if !is_end {
            offer::sample(&tuple);
        }
        return None;
    };
    trace_hit(&hit);
    if is_end {
        if !observe::is_trace() {
            table.end(hit.flow, hit.life);
        }
        return None;
    }
    // One that is left from a daemon that decided itself ends unused.
    (hit.flow.flags() & flags::BY_KERNEL != 0).then_some(Known { table, hit, tcp_flags })
}

impl Known {
    /// Whether the packet is to leave by another uplink than its flow did when it began, with the address of that one: the kernel
    /// gives it another (`nf_nat_oif_changed()`).
    #[inline(always)]
    pub fn has_moved_to(&self, ifindex: u32) -> bool {
        self.hit.direction as u8 == Direction::Original as u8
            && self.hit.flow.flags() & flags::SNAT != 0
            && Binding::from_bits(self.hit.flow.binding.load()).ifindex() != ifindex
    }

    /// Ends the flow: from now on its packets are the kernel's.
    #[inline(always)]
    pub fn end(&self) {
        if !observe::is_trace() {
            self.table.end(self.hit.flow, self.hit.life);
        }
    }

    /// The tuple that the packet leaves with.
    #[inline(always)]
    pub fn translated(&self) -> Tuple<V4> {
        if self.hit.direction as u8 == Direction::Original as u8 {
            self.hit.flow.reply().reversed()
        } else {
            self.hit.flow.original().reversed()
        }
    }

    /// Makes the packet one with that tuple, and counts it. The flow lives no longer by it: it is on lease.
    #[inline(always)]
    pub fn carry(&self, packet: &impl Packet, ipv4: &Ipv4, translated: &Tuple<V4>) -> Walk<()> {
        let own = if self.hit.direction as u8 == Direction::Original as u8 {
            self.hit.flow.original()
        } else {
            self.hit.flow.reply()
        };
        if own.source != translated.source || own.source_port != translated.source_port {
            let (address, port) = (translated.source, translated.source_port);
            let change = Change { side: Side::Source, address, old_port: own.source_port, port };
            rewrite::apply(packet, ipv4, &change)?;
        }
        if own.destination != translated.destination || own.destination_port != translated.destination_port {
            let (address, port) = (translated.destination, translated.destination_port);
            let change = Change { side: Side::Destination, address, old_port: own.destination_port, port };
            rewrite::apply(packet, ipv4, &change)?;
        }
        if !observe::is_trace() {
            count_packet(self.hit.slot, self.hit.direction, packet.len());
        }
        Ok(())
    }
}
