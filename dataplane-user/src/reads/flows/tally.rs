//! Flows, counted.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    ops::ControlFlow,
};

use anyhow::Result;
use aya::maps::Map;
use dataplane_common::{
    flow::{record::flags, rule::Rule, settings::PROBE_ROWS, tuple::protocol},
    names::MAP_COUNTERS,
    net::Ipv4Be,
    reason::Class,
};

use super::{super::routes::snat_addresses, By, protocol_name};
use crate::{
    control::answers::{NatRule, NatStats, ProbeRow},
    kernel::{
        counters::Counters,
        flows::{FlowTable, Snapshot},
        interface,
        pinned::Pinned,
    },
    port_set::PortSet,
    wanted::masquerade::is_without_interface,
};

/// What flows there are.
#[derive(Default)]
pub(super) struct Tally {
    by_state: BTreeMap<String, u64>,
    pub(super) by: BTreeMap<&'static str, u64>,
    pub(super) translated: u64,
    /// Ports in use, by translated address and protocol.
    ports: BTreeMap<(Ipv4Addr, u8), PortSet>,
}

impl Tally {
    pub(super) fn of(table: &FlowTable, wanted: impl Fn(&Snapshot) -> bool) -> Result<Self> {
        let mut tally = Self::default();
        table.each(|flow, _| {
            if wanted(flow) {
                tally.add(flow);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(tally)
    }

    fn add(&mut self, flow: &Snapshot) {
        let state = flow.life.state().name();
        match self.by_state.get_mut(state) {
            Some(flows) => *flows += 1,
            None => drop(self.by_state.insert(state.to_owned(), 1)),
        }
        if let Some(by) = By::of(flow) {
            *self.by.entry(by.name()).or_default() += 1;
        }
        self.translated += u64::from(flow.is_translated());
        if flow.flags & flags::SNAT != 0 {
            let side = (flow.reply.destination.into(), flow.reply.protocol);
            self.ports.entry(side).or_default().insert(flow.reply.destination_port);
        }
    }

    /// The answer, with what else is known of the table.
    pub(super) fn stats(&self, pinned: &Pinned, table: &FlowTable) -> Result<NatStats> {
        let (settings, counters) = (table.settings(), table.stats()?);
        let mut refused_packets: BTreeMap<String, u64> = BTreeMap::new();
        let walks = Counters::new(Map::from_map_data(pinned.data(MAP_COUNTERS)?)?)?.read()?;
        for (_, reason, counter) in walks {
            let is_refusal = reason.class() == Class::Drop && reason.name().starts_with("nat-");
            if is_refusal && counter.packets != 0 {
                *refused_packets.entry(reason.name().to_owned()).or_default() += counter.packets;
            }
        }
        Ok(NatStats {
            flows: self.by_state.values().sum(),
            by_state: self.by_state.clone(),
            max_flows: settings.max_flows.into(),
            max_flows_per_source: settings.max_flows_per_source.into(),
            table_bytes: table.bytes(),
            rules: self.rules(pinned, table.rules())?,
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

    fn rules(&self, pinned: &Pinned, rules: &[Rule]) -> Result<Vec<NatRule>> {
        // Rules without an address have the next hop's.
        let addresses = match rules.iter().any(|rule| rule.address == Ipv4Be::UNSPECIFIED) {
            true => snat_addresses(pinned)?,
            false => HashMap::new(),
        };
        let rules = rules.iter().filter(|rule| !is_without_interface(rule));
        Ok(rules.map(|rule| self.rule(rule, &addresses)).collect())
    }

    fn rule(&self, rule: &Rule, addresses: &HashMap<u32, Ipv4Addr>) -> NatRule {
        let address = match rule.address {
            Ipv4Be::UNSPECIFIED => addresses.get(&rule.ifindex).copied(),
            address => Some(address.into()),
        };
        let in_use = |number| {
            address
                .and_then(|address| self.ports.get(&(address, number)))
                .map_or(0, |ports| ports.len() as u64)
        };
        NatRule {
            interface: interface::name(rule.ifindex),
            address,
            ports: (rule.ports.first, rule.ports.first + rule.ports.more),
            ports_in_use: [protocol::TCP, protocol::UDP, protocol::ICMP]
                .map(|number| (protocol_name(number).to_owned(), in_use(number)))
                .into(),
        }
    }
}
