//! Packets that leave: those that a rule says must be translated are, or are dropped.

use dataplane_common::{
    nat::{
        rule::Rule,
        state::{self, Direction},
        table::{Hit, Table},
    },
    net::Ipv4Be,
    next_hop::NextHop,
    reason::Reason,
    stats::Hook,
    trace::StepCode,
};

use super::{
    Maps, error, fragment,
    open::{self, Wish},
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
    /// The table.
    pub(super) table: Table<'static, Maps>,
    /// The flow.
    pub(super) hit: Hit<'static>,
    /// The packet's TCP flags.
    pub(super) tcp_flags: u8,
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

/// What is to be translated.
pub struct Wanted {
    table: Table<'static, Maps>,
    /// The rule that says so; a flow goes on without one.
    rule: Option<&'static Rule>,
}

/// Whether a packet that leaves by `ifindex` is to be translated. Nothing changes by the question.
#[inline(always)]
pub fn wanted(packet: &impl Packet, ipv4: &Ipv4, ifindex: u32) -> Walk<Option<Wanted>> {
    let Some(table) = table() else { return Ok(None) };
    let rule = rule(table.settings, ipv4.source, ipv4.destination, ifindex);
    let refuse = |reason| if rule.is_some() { Err(reason) } else { Ok(false) };
    let wanted = if ipv4.has_options() {
        refuse(Reason::NatUnsupported)?
    } else if ipv4.is_later_fragment() {
        fragment::find(&table, ipv4).is_some() || refuse(Reason::NatFragment)?
    } else {
        match transport::read(packet, ipv4, Direction::Out) {
            // A flow goes on as it began, whatever the rules say now: the sweep ends it if they do not allow it. The
            // hook's program has looked for the flows of all but fragments.
            Ok(Transport::Flow(tuple, _)) => {
                rule.is_some() || ipv4.is_first_fragment() && table.search_out(&tuple).is_some()
            }
            Ok(Transport::Error) => rule.is_some(),
            Ok(Transport::Other) => refuse(Reason::NatUnsupported)?,
            Err(reason) => refuse(reason)?,
        }
    };
    Ok(wanted.then_some(Wanted { table, rule }))
}

/// Translates a packet that is [`wanted`]; that of a new flow goes on in the program that opens it, and leaves by the
/// next hop from there.
#[inline(always)]
pub fn translate(
    packet: &impl Packet,
    ipv4: &Ipv4,
    Wanted { table, rule }: Wanted,
    next_hop: &NextHop,
    hook: Hook,
) -> Walk<()> {
    let mut tcp_flags = 0;
    let hit = if ipv4.is_later_fragment() {
        fragment::find(&table, ipv4).ok_or(Reason::NatFragment)?
    } else {
        let Transport::Flow(tuple, flags) = transport::read(packet, ipv4, Direction::Out)? else {
            return translate_error(packet, &table);
        };
        tcp_flags = flags;
        let hit = if ipv4.is_first_fragment() { table.search_out(&tuple) } else { None };
        let Some(hit) = hit else {
            observe::step(
                StepCode::NatMiss,
                [tuple.source.to_host(), tuple.source_port.into(), tuple.protocol.into()],
            );
            let rule = rule.ok_or(Reason::NatNoFlow)?;
            if rule.address == Ipv4Be::UNSPECIFIED {
                return Err(Reason::NatNoAddress);
            }
            let first = state::first(tuple.protocol, flags).ok_or(Reason::NatNoFlow)?;
            if observe::is_trace() {
                return Ok(());
            }
            return Err(open::go_on(packet, &Wish::new(tuple, rule, first, next_hop, hook)));
        };
        if !observe::is_trace() {
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
