//! Replies: packets for an address of the node that belong to a translation.

use dataplane_common::{
    nat::{
        state::Direction,
        table::{Hit, Table},
    },
    net::Ipv4Be,
    reason::Reason,
    trace::StepCode,
};

use super::{
    Maps, error, fragment,
    rewrite::{self, Change},
    table, tell,
    transport::{self, Transport},
};
use crate::{
    ipv4::{Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// A packet that belongs to a translation.
pub struct Reply {
    table: Table<'static, Maps>,
    hit: Hit<'static>,
    kind: Kind,
    /// Whom it is for: the source of the flow.
    pub destination: Ipv4Be,
    port: u16,
}

enum Kind {
    /// A packet of the flow; with its TCP flags.
    Packet(u8),
    /// An ICMP error about a packet of the flow.
    Error,
}

/// The translation that the packet belongs to. What belongs to none is the node's own; of frames, so are for now
/// those that tc will look at more closely.
#[inline(always)]
pub fn find<P: Packet>(packet: &P, ipv4: &Ipv4) -> Option<Reply> {
    let table = table()?;
    if ipv4.has_options() || P::IS_FRAME && (ipv4.is_first_fragment() || ipv4.is_later_fragment()) {
        return None;
    }
    let (hit, kind) = if ipv4.is_later_fragment() {
        (fragment::find(&table, ipv4)?, Kind::Packet(0))
    } else {
        match transport::read(packet, ipv4, Direction::In).ok()? {
            Transport::Flow(tuple, flags) => {
                let hit = table.find_in(&tuple);
                if hit.is_none() {
                    observe::step(
                        StepCode::NatMiss,
                        [tuple.destination.to_host(), tuple.destination_port.into(), tuple.protocol.into()],
                    );
                }
                (hit?, Kind::Packet(flags))
            }
            Transport::Error if P::IS_FRAME => return None,
            Transport::Error => {
                let tuple = error::answer_to_quoted(packet).ok()?;
                (table.search_in(&tuple)?, Kind::Error)
            }
            Transport::Other => return None,
        }
    };
    tell(&hit);
    let original = hit.flow.original();
    Some(Reply { table, hit, kind, destination: original.source, port: original.source_port })
}

impl Reply {
    /// Whether it is an error about a packet of the flow, from anybody.
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Error)
    }

    /// Makes the packet one for the container.
    #[inline(always)]
    pub fn apply(&self, packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
        let old_port = self.hit.flow.translated_port();
        let protocol = self.hit.flow.original().protocol;
        match self.kind {
            Kind::Error => {
                error::rewrite(
                    packet,
                    &error::Change {
                        side: Side::Source,
                        protocol,
                        address: self.destination,
                        old_port,
                        port: self.port,
                    },
                )?;
                rewrite::apply_to_header(packet, Side::Destination, self.destination)
            }
            Kind::Packet(flags) => {
                if !observe::is_trace() {
                    if !ipv4.is_later_fragment() && !self.table.renew(&self.hit, Direction::In, flags) {
                        return Err(Reason::NatContended);
                    }
                    self.hit.flow.count(Direction::In, packet.len());
                    if ipv4.is_first_fragment() {
                        fragment::remember(&self.table, ipv4, &self.hit);
                    }
                }
                let change =
                    Change { side: Side::Destination, address: self.destination, old_port, port: self.port };
                rewrite::apply(packet, ipv4, &change)
            }
        }
    }
}
