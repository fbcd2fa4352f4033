//! Routes that come, go and change while packets run.

use std::net::Ipv4Addr;

use anyhow::Result;
use dataplane::wanted::Destination;
use dataplane_common::{
    endpoint::Endpoint,
    net::{Ipv4Be, MacAddr, MacPair},
    next_hop::NextHop,
    reason::Reason,
};
use ipnet::Ipv4Net;

use super::random::Random;
use crate::{
    model::Model,
    network::{Network, set},
    programs::{Interface, Runner},
};

/// Routes beyond the node's own.
const MOST_ADDED: usize = 24;

/// Where the changes are: around the containers, the fabric, and what has no route otherwise.
const AREAS: [([u8; 4], &[u8]); 5] = [
    ([172, 19, 35, 0], &[24, 25, 26, 27, 28, 30, 31, 32]),
    ([172, 19, 0, 0], &[12, 15, 17, 18, 20, 22, 23, 24, 26, 32]),
    ([10, 141, 0, 0], &[8, 11, 14, 17, 21, 24, 29, 32]),
    ([203, 0, 113, 0], &[0, 1, 4, 16, 24, 25, 26, 27, 32]),
    ([192, 0, 2, 0], &[24, 26, 31, 32]),
];

const LEFT_TO_THE_KERNEL: [Reason; 8] = [
    Reason::ToHost,
    Reason::Multicast,
    Reason::Broadcast,
    Reason::LinkLocal,
    Reason::Reserved,
    Reason::NoRoute,
    Reason::KernelRoute,
    Reason::NoNextHop,
];

/// Makes one change at a time.
pub(super) struct Churn {
    random: Random,
    veths: Vec<Interface>,
    uplinks: Vec<Interface>,
    /// The containers' addresses, which come and go most.
    containers: Vec<Ipv4Addr>,
    added: Vec<Ipv4Net>,
    /// Whether packets to next hops may have to be translated.
    translates: bool,
}

impl Churn {
    pub(super) fn new(network: &Network, random: Random) -> Self {
        Self {
            random,
            veths: network.containers().map(|container| container.veth).collect(),
            uplinks: vec![network.eth0, network.eth1],
            containers: network.containers().map(|container| container.address).collect(),
            added: Vec::new(),
            translates: network.translates,
        }
    }

    pub(super) fn change(&mut self, runner: &mut Runner, model: &mut Model) -> Result<()> {
        if self.random.percent(40) {
            let address = self.random.pick(&self.containers);
            let destination = self.random.percent(75).then(|| self.endpoint(address));
            return set(runner, model, address.into(), destination);
        }
        if self.added.len() >= MOST_ADDED || (!self.added.is_empty() && self.random.percent(40)) {
            let index = self.random.within(0..self.added.len());
            let prefix = self.added.swap_remove(index);
            return set(runner, model, prefix, None);
        }
        let prefix = self.prefix()?;
        // What is not added here would not be put back.
        if model.routes().iter().any(|(present, _)| *present == prefix) && !self.added.contains(&prefix) {
            return Ok(());
        }
        if !self.added.contains(&prefix) {
            self.added.push(prefix);
        }
        let destination = self.destination(prefix);
        set(runner, model, prefix, Some(destination))
    }

    fn prefix(&mut self) -> Result<Ipv4Net> {
        let (area, lengths) = self.random.pick(&AREAS);
        let address = Ipv4Addr::from(area).to_bits() | (self.random.word() & 0xfff);
        Ok(Ipv4Net::new(address.into(), self.random.pick(lengths))?.trunc())
    }

    fn destination(&mut self, prefix: Ipv4Net) -> Destination {
        match self.random.within(0..6) {
            0 => Destination::Block,
            1 => Destination::Kernel(self.random.pick(&LEFT_TO_THE_KERNEL)),
            2 if prefix.prefix_len() == 32 => self.endpoint(prefix.addr()),
            _ => self.next_hop(),
        }
    }

    fn endpoint(&mut self, address: Ipv4Addr) -> Destination {
        let veth = self.random.pick(&self.veths);
        Destination::Endpoint(Endpoint {
            address: address.into(),
            ifindex: veth.ifindex,
            mtu: self.random.pick(&[1280, 1400, 1500, 1500, 1500, 9000, 65535]),
            macs: MacPair::new(MacAddr::new(self.random.mac()), veth.mac),
            flags: self.random.pick(&[0, Endpoint::KERNEL_EGRESS]),
            reserved: [0; 9],
        })
    }

    fn next_hop(&mut self) -> Destination {
        let gateway = match self.random.within(0..4) {
            0 => Ipv4Be::UNSPECIFIED,
            last => Ipv4Addr::new(10, 141, 0, last as u8).into(),
        };
        let ifindex = self.random.pick(&self.uplinks).ifindex;
        Destination::NextHop(NextHop {
            gateway,
            ifindex,
            mtu: self.random.pick(&[576, 1400, 1500, 1500]),
            translates: self.translates.into(),
            source: Ipv4Be::UNSPECIFIED,
            reserved: [0; 3],
        })
    }
}
