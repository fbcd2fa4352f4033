//! Packets that leave: those that a rule says must be translated are, or are dropped.

use dataplane_common::{
    nat::{
        state::{self, Direction},
        table::{Hit, Table},
    },
    net::Ipv4Be,
    reason::Reason,
    stats::Hook,
    trace::StepCode,
};

use super::{
    Maps, error, fragment, open,
    rewrite::{self, Change},
    rule, table, tell,
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
    table: Table<'static, Maps>,
    hit: Hit<'static>,
    tcp_flags: u8,
}

/// The flow of a packet, where that is plain to see: no fragment, no options, no error.
#[inline(always)]
pub fn find_known(packet: &impl Packet, ipv4: &Ipv4) -> Option<Known> {
    let table = table()?;
    if ipv4.has_options() || ipv4.is_later_fragment() || ipv4.is_first_fragment() {
        return None;
    }
    let Ok(Transport::Flow(tuple, tcp_flags)) = transport::read(packet, ipv4, Direction::Out) else {
        return None;
    };
    let hit = table.find_out(&tuple)?;
    tell(&hit);
    Some(Known { table, hit, tcp_flags })
}

impl Known {
    /// Translates the packet.
    #[inline(always)]
    pub fn apply(&self, packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
        // Read before the flow is known to live: it is then as it was.
        let change = Change {
            side: Side::Source,
            address: self.hit.flow.translated_address(),
            old_port: self.hit.flow.original().source_port,
            port: self.hit.flow.translated_port(),
        };
        if !observe::is_trace() {
            if !ipv4.is_later_fragment() && !self.table.renew(&self.hit, Direction::Out, self.tcp_flags) {
                return Err(Reason::NatContended);
            }
            self.hit.flow.count(Direction::Out, packet.len());
        }
        rewrite::apply(packet, ipv4, &change)
    }
}

/// Whether a packet that leaves by `ifindex` is to be translated. Nothing changes by the question.
#[inline(always)]
pub fn is_wanted(packet: &impl Packet, ipv4: &Ipv4, ifindex: u32) -> Walk<bool> {
    let Some(table) = table() else { return Ok(false) };
    let wanted = rule(table.settings, ipv4.source, ipv4.destination, ifindex).is_some();
    let refuse = |reason| if wanted { Err(reason) } else { Ok(false) };
    if ipv4.has_options() {
        return refuse(Reason::NatUnsupported);
    }
    if ipv4.is_later_fragment() {
        return if fragment::find(&table, ipv4).is_some() { Ok(true) } else { refuse(Reason::NatFragment) };
    }
    match transport::read(packet, ipv4, Direction::Out) {
        // A flow goes on as it began, whatever the rules say now: the sweep ends it if they do not allow it. The
        // hook's program has looked for the flows of all but fragments.
        Ok(Transport::Flow(tuple, _)) => {
            Ok(wanted || ipv4.is_first_fragment() && table.search_out(&tuple).is_some())
        }
        Ok(Transport::Error) => Ok(wanted),
        Ok(Transport::Other) => refuse(Reason::NatUnsupported),
        Err(reason) => refuse(reason),
    }
}

/// Translates a packet of which [`is_wanted`] said so; the packet of a new flow goes on in the
/// program that opens it.
#[inline(always)]
pub fn translate(packet: &impl Packet, ipv4: &Ipv4, ifindex: u32, hook: Hook) -> Walk<()> {
    let table = table().ok_or(Reason::NatContended)?;
    let mut tcp_flags = 0;
    let hit = if ipv4.is_later_fragment() {
        fragment::find(&table, ipv4).ok_or(Reason::NatFragment)?
    } else {
        let Transport::Flow(tuple, flags) = transport::read(packet, ipv4, Direction::Out)? else {
            return translate_error(packet, &table);
        };
        tcp_flags = flags;
        if table.search_out(&tuple).is_none() {
            observe::step(
                StepCode::NatMiss,
                [tuple.source.to_host(), tuple.source_port.into(), tuple.protocol.into()],
            );
            let rule =
                rule(table.settings, ipv4.source, ipv4.destination, ifindex).ok_or(Reason::NatNoFlow)?;
            if rule.address == Ipv4Be::UNSPECIFIED {
                return Err(Reason::NatNoAddress);
            }
            let first = state::first(tuple.protocol, flags).ok_or(Reason::NatNoFlow)?;
            if observe::is_trace() {
                return Ok(());
            }
            return Err(open::go_on(packet, &tuple, rule, first, hook));
        }
        // It ends at once only where another CPU takes its place.
        let hit = table.search_out(&tuple).ok_or(Reason::NatContended)?;
        if ipv4.is_first_fragment() && !observe::is_trace() {
            fragment::remember(&table, ipv4, &hit);
        }
        hit
    };
    tell(&hit);
    Known { table, hit, tcp_flags }.apply(packet, ipv4)
}

/// An ICMP error: what it quotes came to the container with its own address. It says nothing about whether the
/// flow goes on (RFC 5508, section 4).
#[inline(always)]
fn translate_error(packet: &impl Packet, table: &Table<'static, Maps>) -> Walk<()> {
    let hit = error::find_out(packet, table)?;
    let original = hit.flow.original();
    let (address, port) = (hit.flow.translated_address(), hit.flow.translated_port());
    error::rewrite(
        packet,
        &error::Change {
            side: Side::Destination,
            protocol: original.protocol,
            address,
            old_port: original.source_port,
            port,
        },
    )?;
    rewrite::apply_to_header(packet, Side::Source, address)
}
