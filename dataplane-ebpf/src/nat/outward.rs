//! Packets that leave: those that a rule says must be translated are, or are dropped.

use dataplane_common::{
    nat::{
        rule::Rule,
        settings::probe_row,
        state::{self, Direction, Rank},
        table::{Hit, Pool, Refusal, Table},
        tuple::Tuple,
    },
    net::Ipv4Be,
    reason::Reason,
    trace::StepCode,
};

use super::{
    Maps, count, error, fragment,
    rewrite::{self, Change},
    rule, sweep, table, tell,
    transport::{self, Transport},
};
use crate::{
    ipv4::{Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// How a packet is going to be translated.
pub struct Outgoing {
    table: Table<'static, Maps>,
    kind: Kind,
}

enum Kind {
    /// It belongs to a flow; with its TCP flags.
    Known(Hit<'static>, u8),
    /// It begins a flow by this rule.
    New(Tuple, u8, &'static Rule),
    /// It is an ICMP error about a packet of this flow.
    Error(Hit<'static>),
}

/// Whether and how a packet that leaves by `ifindex` is translated. Nothing has changed yet.
#[inline(always)]
pub fn find(packet: &Packet, ipv4: &Ipv4, ifindex: u32) -> Walk<Option<Outgoing>> {
    let Some(table) = table() else { return Ok(None) };
    let rule = |table: &Table<'static, Maps>| rule(table.settings, ipv4.source, ipv4.destination, ifindex);
    let refuse = |table: &Table<'static, Maps>, reason| {
        if rule(table).is_some() { Err(reason) } else { Ok(None) }
    };
    if ipv4.has_options() {
        return refuse(&table, Reason::NatUnsupported);
    }
    if ipv4.is_later_fragment() {
        let Some(hit) = fragment::find(&table, ipv4) else { return refuse(&table, Reason::NatFragment) };
        tell(&hit);
        return Ok(Some(Outgoing { table, kind: Kind::Known(hit, 0) }));
    }
    match transport::read(packet, ipv4, Direction::Out) {
        Ok(Transport::Flow(tuple, flags)) => {
            if let Some(hit) = table.find_out(&tuple) {
                tell(&hit);
                return Ok(Some(Outgoing { table, kind: Kind::Known(hit, flags) }));
            }
            observe::step(
                StepCode::NatMiss,
                [tuple.source.to_host(), tuple.source_port.into(), tuple.protocol.into()],
            );
            Ok(rule(&table).map(|rule| Outgoing { table, kind: Kind::New(tuple, flags, rule) }))
        }
        Ok(Transport::Error) => {
            if rule(&table).is_none() {
                return Ok(None);
            }
            let hit = error::find_out(packet, &table)?;
            Ok(Some(Outgoing { table, kind: Kind::Error(hit) }))
        }
        Ok(Transport::Other) => refuse(&table, Reason::NatUnsupported),
        Err(reason) => refuse(&table, reason),
    }
}

impl Outgoing {
    /// Translates the packet; a new flow begins here.
    #[inline(always)]
    pub fn apply(&self, packet: &Packet, ipv4: &Ipv4) -> Walk<()> {
        let (hit, flags, is_new) = match &self.kind {
            Kind::Error(hit) => return self.apply_to_error(packet, hit),
            Kind::Known(hit, flags) => (*hit, *flags, false),
            Kind::New(tuple, flags, rule) => {
                if rule.address == Ipv4Be::UNSPECIFIED {
                    return Err(Reason::NatNoAddress);
                }
                let first = state::first(tuple.protocol, *flags).ok_or(Reason::NatNoFlow)?;
                if observe::is_trace() {
                    return Ok(());
                }
                (self.open(tuple, rule, first)?, *flags, true)
            }
        };
        // Read before the flow is known to live: it is then as it was.
        let original = hit.flow.original();
        let change = Change {
            side: Side::Source,
            address: hit.flow.translated_address(),
            old_port: original.source_port,
            port: hit.flow.translated_port(),
        };
        if !observe::is_trace() {
            if !is_new && !ipv4.is_later_fragment() && !self.table.renew(&hit, Direction::Out, flags) {
                return Err(Reason::NatContended);
            }
            hit.flow.count(Direction::Out, packet.len());
            if ipv4.is_first_fragment() {
                fragment::remember(&self.table, ipv4, &hit);
            }
        }
        rewrite::apply(packet, ipv4, &change)
    }

    #[inline(always)]
    fn open(&self, tuple: &Tuple, rule: &Rule, first: state::State) -> Walk<Hit<'static>> {
        let pool = Pool { address: rule.address, first: rule.first_port, count: rule.ports };
        let outcome = self.table.open(tuple, &pool, first);
        sweep::if_neglected(&self.table);
        match outcome.refusal() {
            None => {}
            Some(Refusal::Share) => return Err(Reason::NatShare),
            Some(Refusal::Full) => return Err(Reason::NatTableFull),
            Some(Refusal::Ports) => return Err(Reason::NatNoPort),
            Some(Refusal::Contended) => return Err(Reason::NatContended),
            Some(Refusal::Fault) => return Err(Reason::TableFault),
        }
        if outcome.probes() != 0 {
            count(|counters| {
                counters.opened += 1;
                counters.probes[probe_row(outcome.probes())] += 1;
                match outcome.displaced() {
                    Rank::Ended => counters.displaced_ended += 1,
                    Rank::HalfOpen => counters.displaced_half_open += 1,
                    Rank::Gone | Rank::Established => {}
                }
            });
        }
        // It ends at once only where another CPU takes its place.
        self.table.hit(outcome.slot()).ok_or(Reason::NatContended)
    }

    /// An ICMP error: what it quotes came to the container with its own address. It says nothing about whether
    /// the flow goes on (RFC 5508, section 4).
    #[inline(always)]
    fn apply_to_error(&self, packet: &Packet, hit: &Hit<'static>) -> Walk<()> {
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
}
