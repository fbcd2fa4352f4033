//! What is to become of a packet whose flow is not plain to see: the first packet of a flow, a fragment, an ICMP error, or
//! something that makes no flow.
//!
//! It is asked first and done later, when the packet is known to be able to leave; the flow is looked up for both, since what
//! could be kept in between is more than the verifier follows.

use dataplane_common::{
    family::V4,
    flow::{
        record::flags,
        rule::Rule,
        state::{self, Direction},
        table::{Hit, Table},
        tuple::Tuple,
    },
    next_hop::NextHop,
    reason::Reason,
    stats::Hook,
};

use super::{
    Known, Maps, any_table, fragment, icmp_error,
    insert::{self, Exit},
    rewrite, rules, trace_hit, trace_miss,
    transport::{self, Transport},
};
use crate::{
    ipv4::{Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// A packet that leaves.
pub struct Outbound {
    table: Table<'static, Maps>,
    /// The rule that it is to be translated by; packets of a flow go on without one.
    rule: Option<&'static Rule>,
    /// Whether it belongs to a flow or is to be translated. Otherwise it leaves as it is.
    pub concerns: bool,
    /// Whether it begins a flow: it was looked up, and there is none.
    is_first: bool,
}

/// What is found of a packet, in one number, of which the verifier can be made to know nothing.
mod found {
    /// It leaves as it is.
    pub const NOTHING: u64 = 0;
    /// It belongs to a flow, or is to be translated.
    pub const CONCERNS: u64 = 1;
    /// It is to be translated, and there is no flow.
    pub const FIRST: u64 = 3;
}

/// What is to become of a packet that leaves by the next hop. It does not change by that; a flow whose rule, address or uplink
/// is another one by now ends.
#[inline(always)]
pub fn outbound(packet: &impl Packet, ipv4: &Ipv4, next_hop: &NextHop, hook: Hook) -> Walk<Outbound> {
    let table = any_table().ok_or(Reason::TableFault)?;
    let rule = rules::find(table.settings, ipv4.source, ipv4.destination, next_hop);
    let refuse = |reason| if rule.is_some() { Err(reason) } else { Ok(found::NOTHING) };
    let concerns = |concerns| if concerns { found::CONCERNS } else { found::NOTHING };
    let found = if ipv4.has_options() {
        refuse(Reason::NatUnsupported)?
    } else if ipv4.is_later_fragment() {
        match fragment::find(&table, ipv4) {
            Some(_) => found::CONCERNS,
            None => refuse(Reason::NatFragment)?,
        }
    } else {
        match read(packet, ipv4, &table) {
            Ok(Transport::Flow(tuple, _)) => match table.lookup_rarely(&tuple) {
                Some(hit) => concerns(goes_on(&table, &hit, rule, next_hop) || rule.is_some()),
                None => {
                    trace_miss(&tuple);
                    if rule.is_some() { found::FIRST } else { found::NOTHING }
                }
            },
            Ok(Transport::Error) => {
                // A container is the end that what it quotes came to: it says nothing about another's flow. By an uplink comes
                // what routers on the way to another node's container say about its flow, by addresses of their own.
                let may_tell = |tuple: &Tuple<V4>| hook == Hook::FromUplink || tuple.source == ipv4.source;
                let quoted = icmp_error::answer_to_quoted(packet);
                match quoted.map(|tuple| may_tell(&tuple) && table.lookup_rarely(&tuple).is_some()) {
                    Ok(true) => found::CONCERNS,
                    Ok(false) => refuse(Reason::NatNoFlow)?,
                    Err(reason) => refuse(reason)?,
                }
            }
            Ok(Transport::Other) => refuse(Reason::NatUnsupported)?,
            Err(reason) => refuse(reason)?,
        }
    };
    // The verifier goes on once for both, and not once for each way that led here.
    let found = table.settings.veil(found);
    Ok(Outbound { table, rule, concerns: found != found::NOTHING, is_first: found == found::FIRST })
}

/// The packet's flow. Of protocol and ports the verifier knows nothing any more: it would look at all that follows once for
/// each protocol.
#[inline(always)]
fn read(packet: &impl Packet, ipv4: &Ipv4, table: &Table<'static, Maps>) -> Walk<Transport> {
    let mut transport = transport::read(packet, ipv4)?;
    if let Transport::Flow(tuple, tcp_flags) = &mut transport {
        let veil = |value: u64| table.settings.veil(value);
        tuple.protocol = veil(tuple.protocol.into()) as u8;
        tuple.source_port = veil(tuple.source_port.into()) as u16;
        tuple.destination_port = veil(tuple.destination_port.into()) as u16;
        *tcp_flags = veil((*tcp_flags).into()) as u8;
    }
    Ok(transport)
}

/// Whether a packet's flow goes on if it leaves by that next hop. One whose route, rule or address is another one by now ends,
/// and begins anew with the packet (Linux: `masq_device_event()` and `masq_inet_event()` in nf_nat_masquerade.c).
#[inline(always)]
fn goes_on(
    table: &Table<'static, Maps>,
    hit: &Hit<'static, V4>,
    rule: Option<&'static Rule>,
    next_hop: &NextHop,
) -> bool {
    let is_original = hit.direction as u8 == Direction::Original as u8;
    if !is_original || hit.flow.flags() & flags::SNAT == 0 || rules::holds_by(table, hit.flow, rule, next_hop)
    {
        return true;
    }
    if !observe::is_trace() {
        table.end(hit.flow, hit.life);
    }
    false
}

impl Outbound {
    /// Translates the packet as its flow says. That of a new flow goes on in the program that inserts it, and leaves from there.
    #[inline(always)]
    pub fn apply(&self, packet: &impl Packet, ipv4: &Ipv4, next_hop: &NextHop, exit: Exit) -> Walk<()> {
        let table = self.table;
        let mut tcp_flags = 0;
        let hit = if ipv4.is_later_fragment() {
            fragment::find(&table, ipv4).ok_or(Reason::NatFragment)?
        } else {
            let Transport::Flow(tuple, flags) = read(packet, ipv4, &table)? else {
                return translate_error(packet, &table);
            };
            tcp_flags = flags;
            match if self.is_first { None } else { table.lookup_rarely(&tuple) } {
                Some(hit) => hit,
                None => {
                    let rule = self.rule.ok_or(Reason::NatNoFlow)?;
                    let binding = rules::binding(table.settings, rule, next_hop);
                    let address = rules::address(rule, next_hop);
                    return insert::begin_translated(packet, &tuple, tcp_flags, rule, address, binding, exit);
                }
            }
        };
        trace_hit(&hit);
        if ipv4.is_first_fragment() && !observe::is_trace() {
            fragment::remember(&table, ipv4, &hit);
        }
        Known { table, hit, tcp_flags }.apply_outbound(packet, ipv4)
    }
}

/// A packet for a container, whose answers would leave by `back`, or by nothing that BPF carries: where a rule would translate
/// them there must be a flow, by which they go back as the packet came. The packet itself goes on as it is.
///
/// That of a new flow goes on in the program that inserts it, and to its exit from there.
#[inline(always)]
pub fn inbound(packet: &impl Packet, ipv4: &Ipv4, back: Option<&NextHop>, exit: Exit) -> Walk<()> {
    let table = any_table().ok_or(Reason::TableFault)?;
    if ipv4.has_options() {
        return Ok(());
    }
    let mut tcp_flags = 0;
    let hit = if ipv4.is_later_fragment() {
        fragment::find(&table, ipv4)
    } else {
        let Ok(Transport::Flow(tuple, flags)) = read(packet, ipv4, &table) else { return Ok(()) };
        tcp_flags = flags;
        let hit = table.lookup_rarely(&tuple);
        if hit.is_none() {
            let ifindex = back.map_or(0, |next_hop| next_hop.ifindex);
            let begins = state::first(tuple.protocol, tcp_flags).is_some();
            if begins && rules::covers(table.settings, ipv4.destination, ipv4.source, ifindex) {
                trace_miss(&tuple);
                return insert::begin_untranslated(packet, &tuple, tcp_flags, exit);
            }
        }
        hit
    };
    let Some(hit) = hit else { return Ok(()) };
    trace_hit(&hit);
    if ipv4.is_first_fragment() && !observe::is_trace() {
        fragment::remember(&table, ipv4, &hit);
    }
    Known { table, hit, tcp_flags }.note(packet, ipv4)
}

/// An ICMP error of a container: what it quotes came to the container with its own address. It says nothing about whether
/// the flow goes on (RFC 5508, section 4).
#[inline(always)]
fn translate_error(packet: &impl Packet, table: &Table<'static, Maps>) -> Walk<()> {
    let tuple = icmp_error::answer_to_quoted(packet)?;
    let hit = table.lookup_rarely(&tuple).ok_or(Reason::NatNoFlow)?;
    trace_hit(&hit);
    if hit.flow.flags() & flags::SNAT == 0 {
        return Ok(());
    }
    let (original, reply) = (hit.flow.original(), hit.flow.reply());
    icmp_error::rewrite(
        packet,
        &icmp_error::Change {
            side: Side::Destination,
            protocol: original.protocol,
            address: reply.destination,
            old_port: original.source_port,
            port: reply.destination_port,
        },
    )?;
    rewrite::apply_to_header(packet, Side::Source, reply.destination)
}
