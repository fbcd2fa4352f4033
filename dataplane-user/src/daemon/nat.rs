//! Answers about translations, from the table that the programs use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use anyhow::Result;
use dataplane_common::{
    flow::{
        record::{flags, seconds},
        settings::PROBE_ROWS,
        state::Direction,
        tuple::protocol,
    },
    net::Ipv4Be,
    reason::Class,
};

use super::Daemon;
use crate::{
    control::answers::{NatRule, NatStats, ProbeRow, Translation},
    wanted::masquerade::{self, is_without_interface},
};

impl Daemon {
    /// The translations that live, the oldest first.
    pub(super) fn translations(&self) -> Vec<Translation> {
        let (now, flows) = self.nat.flows();
        let mut list: Vec<Translation> = flows
            .filter(|(flow, ..)| flow.flags() & (flags::SNAT | flags::DNAT) != 0)
            .map(|(flow, counts, life)| {
                let (original, reply) = (flow.original(), flow.reply());
                let [bytes_out, bytes_in] = Direction::BOTH.map(|direction| counts.bytes(direction));
                Translation {
                    protocol: protocol_name(original.protocol).to_owned(),
                    original: SocketAddrV4::new(original.source.into(), original.source_port),
                    translated: SocketAddrV4::new(reply.destination.into(), reply.destination_port),
                    remote: SocketAddrV4::new(original.destination.into(), original.destination_port),
                    state: life.state().name().to_owned(),
                    age_seconds: seconds(now.saturating_sub(flow.opened())),
                    expires_seconds: seconds(life.deadline().saturating_sub(now)),
                    bytes: bytes_out + bytes_in,
                    bytes_out,
                    bytes_in,
                    packets_out: counts.packets(Direction::Original),
                    packets_in: counts.packets(Direction::Reply),
                }
            })
            .collect();
        list.sort_by_key(|flow| (std::cmp::Reverse(flow.age_seconds), flow.original, flow.remote));
        list
    }

    /// How full the table is, and what became of those who wanted a place in it.
    pub(super) fn nat_stats(&self) -> Result<NatStats> {
        let (settings, counters) = (self.nat.settings(), self.nat.counters()?);
        let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
        let mut ports: BTreeSet<(u32, u8, u16)> = BTreeSet::new();
        for (flow, _, life) in self.nat.flows().1 {
            *by_state.entry(life.state().name().to_owned()).or_default() += 1;
            let reply = flow.reply();
            if flow.flags() & flags::SNAT != 0 {
                ports.insert((reply.destination.to_host(), reply.protocol, reply.destination_port));
            }
        }
        let refused = self.datapath.counters()?.into_iter().filter(|(_, reason, counter)| {
            reason.class() == Class::Drop && reason.name().starts_with("nat-") && counter.packets != 0
        });
        let mut refused_packets: BTreeMap<String, u64> = BTreeMap::new();
        for (_, reason, counter) in refused {
            *refused_packets.entry(reason.name().to_owned()).or_default() += counter.packets;
        }
        Ok(NatStats {
            flows: by_state.values().sum(),
            by_state,
            max_flows: settings.max_flows.into(),
            max_flows_per_source: settings.max_flows_per_source.into(),
            table_bytes: if settings.buckets == 0 { 0 } else { self.nat.bytes() },
            rules: self.nat_rules(&ports),
            opened: counters.opened,
            expired: counters.expired,
            displaced_ended: counters.displaced_ended,
            displaced_half_open: counters.displaced_half_open,
            revoked: counters.revoked,
            refused_packets,
            probes: (0..PROBE_ROWS)
                .map(|row| ProbeRow { from: 1 << row, to: (2 << row) - 1, flows: counters.probes[row] })
                .collect(),
        })
    }

    fn nat_rules(&self, ports: &BTreeSet<(u32, u8, u16)>) -> Vec<NatRule> {
        let in_use = |address: Ipv4Be, number: u8| {
            let of = |port| (address.to_host(), number, port);
            ports.range(of(0)..=of(u16::MAX)).count() as u64
        };
        let rules = self.nat.rules().iter().filter(|rule| !is_without_interface(rule));
        rules
            .map(|rule| {
                let address = if rule.address == Ipv4Be::UNSPECIFIED {
                    masquerade::source(&self.mirror, rule.ifindex, None)
                } else {
                    Some(rule.address.into())
                };
                let in_use = |number| address.map_or(0, |address| in_use(address.into(), number));
                NatRule {
                    interface: self.interface(rule.ifindex),
                    address,
                    ports: (rule.ports.first, rule.ports.first + rule.ports.more),
                    ports_in_use: [protocol::TCP, protocol::UDP, protocol::ICMP]
                        .map(|number| (protocol_name(number).to_owned(), in_use(number)))
                        .into(),
                }
            })
            .collect()
    }
}

fn protocol_name(number: u8) -> &'static str {
    match number {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        _ => "icmp",
    }
}
