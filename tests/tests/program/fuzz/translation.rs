//! Packets with rules of translation set: what must hold of each, whatever the flow table made of it, and that the
//! table stays sound. The rules change meanwhile, and the table is small enough to be full at times.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result, bail, ensure};
use dataplane::wanted::Destination;
use dataplane_common::{
    flow::rule::Rule,
    net::Ipv4Be,
    reason::{Class, Reason},
    reject::QUOTE,
    stats::Hook,
};

use super::{
    bytes::{ICMP, TCP, UDP, addresses, check_bytes, ports, reversed, sum},
    describe,
    generate::{Generator, set_checksum},
    random::Random,
    routes::Churn,
};
use crate::{
    at_xdp,
    case::is_answerable,
    model::{Model, Route},
    network::NODE,
    programs::{Interface, Packet, Ran, Runner, action},
};

/// Flows, and those of one source, that the table takes.
const MAX_FLOWS: u32 = 120;
const MAX_FLOWS_PER_SOURCE: u32 = 25;

/// Translated packets that others follow.
const RECENT: usize = 200;

/// Batches under the same rules.
const BATCHES: usize = 6;

/// Addresses that packets are translated to.
const ADDRESSES: [[u8; 4]; 2] = [NODE, [10, 142, 0, 1]];

/// The flow of a reply: protocol, address and port outside, address and port of the node.
type Reply = (u8, u32, u16, u32, u16);

/// How many packets ended for each reason, and how many were translated out and back.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) by_reason: BTreeMap<(Hook, u32), u64>,
    pub(super) translated: u64,
    pub(super) restored: u64,
}

pub(super) struct Fuzz<'a> {
    pub(super) runner: &'a mut Runner,
    pub(super) model: &'a mut Model,
    generator: Generator,
    churn: Churn,
    random: Random,
    uplinks: [Interface; 2],
    /// The rules to choose from, and those that hold.
    all_rules: Vec<Rule>,
    rules: Vec<Rule>,
    /// Packets that were translated, as they came and as they left.
    recent: VecDeque<(Packet, Vec<u8>)>,
    /// What replies must become.
    flows: HashMap<Reply, (u32, u16)>,
    ends: Ends,
}

impl<'a> Fuzz<'a> {
    pub(super) fn new(
        uplinks: [Interface; 2],
        all_rules: Vec<Rule>,
        runner: &'a mut Runner,
        model: &'a mut Model,
        parts: (Generator, Churn),
        seed: u64,
    ) -> Self {
        let (generator, churn) = parts;
        let (rules, recent, flows) = (Vec::new(), VecDeque::new(), HashMap::new());
        let (random, ends) = (Random::new(seed), Ends::default());
        Self { runner, model, generator, churn, random, uplinks, all_rules, rules, recent, flows, ends }
    }

    pub(super) fn run(mut self, packets: usize, batch: usize) -> Result<Ends> {
        for number in 0..packets.div_ceil(batch) {
            if number % BATCHES == 0 {
                self.change_rules(number / BATCHES)?;
            }
            self.churn.change(self.runner, self.model)?;
            self.generator.follow(self.model);
            let mut sent = Vec::with_capacity(batch);
            for _ in 0..batch {
                let packet = self.packet();
                let counted = self.runner.run_counted(&packet).with_context(|| describe(&packet))?;
                let [(_, reason, _)] = counted.moved[..] else {
                    bail!("counted {:?}: {}", counted.moved, describe(&packet));
                };
                self.check(&packet, &counted.ran, reason).with_context(|| {
                    format!("{reason:?}, {}\n  became {:?}", describe(&packet), counted.ran)
                })?;
                *self.ends.by_reason.entry((packet.hook, reason as u32)).or_default() += 1;
                sent.push(packet);
            }
            self.runner.check_flows().with_context(|| format!("after batch {number}"))?;
            self.check_traces(&sent)?;
        }
        Ok(self.ends)
    }

    /// Other rules; every third time none, which ends every flow.
    fn change_rules(&mut self, turn: usize) -> Result<()> {
        self.rules = self.all_rules.clone();
        match turn % 3 {
            0 => {}
            1 => self.rules[1].address = Ipv4Be::UNSPECIFIED,
            _ => self.rules.clear(),
        }
        self.runner.translate(&self.rules, MAX_FLOWS, MAX_FLOWS_PER_SOURCE)?;
        self.runner.sweep()?;
        self.runner.check_flows().context("after a sweep")?;
        if self.rules.is_empty() {
            ensure!(self.runner.flows(&[])?.count() == 0, "flows live on without a rule");
        }
        Ok(())
    }

    /// Tracing tells of every packet where it goes, and changes nothing.
    fn check_traces(&mut self, sent: &[Packet]) -> Result<()> {
        let before = (self.runner.counts()?, self.runner.flows(&[])?);
        for packet in sent {
            let traced = self.runner.trace(packet).with_context(|| describe(packet))?;
            let expected = match traced.reason.class() {
                Class::Forward => action::REDIRECT,
                Class::Pass => action::PASS,
                Class::Drop => action::DROP,
            };
            ensure!(traced.ran.action == expected, "{}\n  traced {traced:?}", describe(packet));
            let at_xdp = at_xdp::differences(self.runner, packet, &traced)?;
            ensure!(at_xdp.is_empty(), "{}\n  {at_xdp:?}", describe(packet));
        }
        ensure!((self.runner.counts()?, self.runner.flows(&[])?) == before, "tracing changed a table");
        Ok(())
    }

    fn applies(&self, source: Ipv4Addr, destination: Ipv4Addr, ifindex: Option<u32>) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            let excludes = &rule.exclude[..rule.excludes as usize];
            ifindex.is_none_or(|ifindex| rule.ifindex == ifindex)
                && rule.source.contains(source.into())
                && !excludes.iter().any(|network| network.contains(destination.into()))
        })
    }

    fn check(&mut self, packet: &Packet, ran: &Ran, reason: Reason) -> Result<()> {
        let (before, after) = (&packet.frame, &ran.bytes);
        if before[12..14] != [8, 0] {
            return Ok(());
        }
        // A reply that is too big for the container's link: the kernel fragments it, translated.
        if reason == Reason::TooBig && packet.hook == Hook::FromUplink && before != after {
            ensure!(before[20] & 0x40 == 0, "the kernel would answer for a packet that nobody sent");
            check_bytes(before, after, 0)?;
            return self.check_restored(before, after);
        }
        if reason.class() == Class::Drop && ran.action == action::REDIRECT {
            ensure!(reason.is_told() || reason == Reason::NatTooBig, "an answer for no reason");
            return check_answer(before, after);
        }
        if reason.class() != Class::Forward {
            ensure!(is_same(before, after), "a packet that is not carried has changed");
            return self.check_left_to_kernel(packet, reason);
        }
        let ((source, destination), (new_source, new_destination)) = (addresses(before), addresses(after));
        check_bytes(before, after, 1)?;
        if reason == Reason::Forwarded
            && let Some(Route::To(Destination::NextHop(next_hop))) = self.model.lookup(destination)
            && let Some(rule) = self.applies(source, destination, Some(next_hop.ifindex))
        {
            ensure!(new_source != source, "a rule applies, and the packet leaves with its own source");
            let is_one = ADDRESSES.iter().any(|address| new_source == Ipv4Addr::from(*address));
            ensure!(is_one, "translated to an address of no rule, {rule:?}");
        }
        ensure!(new_source == source || new_destination == destination, "translated both ways");
        if new_source != source {
            self.ends.translated += 1;
            self.remember(packet, after);
        } else if new_destination != destination {
            self.ends.restored += 1;
            self.check_restored(before, after)?;
        }
        Ok(())
    }

    /// What is left to the kernel must be something that it does not forward.
    fn check_left_to_kernel(&self, packet: &Packet, reason: Reason) -> Result<()> {
        let (source, destination) = addresses(&packet.frame);
        let egress = match self.model.lookup(destination) {
            Some(Route::To(Destination::NextHop(next_hop))) => Some(next_hop.ifindex),
            Some(Route::To(
                Destination::Endpoint(_) | Destination::Block | Destination::Kernel(Reason::ToHost),
            )) => return Ok(()),
            _ => None,
        };
        // A node is no gateway between hosts of one uplink, and its own host's frames are not another's.
        let is_elsewhere = packet.hook == Hook::FromUplink && egress == Some(packet.ifindex);
        if is_elsewhere || self.applies(source, destination, egress).is_none() {
            return Ok(());
        }
        let is_kept = packet.frame[22] <= 1
            || destination.is_loopback()
            || destination.is_unspecified()
            || destination.is_broadcast()
            || destination.octets()[..3] == [224, 0, 0];
        let is_answered = match reason {
            _ if is_kept => true,
            Reason::TtlExpired | Reason::OtherHost => true,
            Reason::TooBig => packet.frame[20] & 0x40 != 0,
            _ => reason.class() == Class::Drop,
        };
        ensure!(is_answered, "a rule applies, and the kernel may forward it");
        Ok(())
    }

    fn remember(&mut self, packet: &Packet, after: &[u8]) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((packet.clone(), after.to_vec()));
        if let (Some(original), Some(reply)) = (ports(&packet.frame, true), ports(after, true)) {
            let ((source, _), (node, remote)) = (addresses(&packet.frame), addresses(after));
            let key = (after[23], remote.to_bits(), reply.1, node.to_bits(), reply.0);
            self.flows.insert(key, (source.to_bits(), original.0));
        }
    }

    /// A reply must go to whom the last packet out of its flow came from.
    fn check_restored(&self, before: &[u8], after: &[u8]) -> Result<()> {
        let (Some(old), Some(new)) = (ports(before, false), ports(after, false)) else { return Ok(()) };
        let ((remote, node), (_, container)) = (addresses(before), addresses(after));
        let key = (before[23], remote.to_bits(), old.0, node.to_bits(), old.1);
        let found = self.flows.get(&key);
        ensure!(found == Some(&(container.to_bits(), new.1)), "restored to {new:?}, the flow is {found:?}");
        Ok(())
    }

    fn packet(&mut self) -> Packet {
        loop {
            let mut packet = match self.random.within(0..10) {
                0..4 => self.generator.packet(),
                4 => self.transit(),
                _ => match self.follower() {
                    Some(packet) => packet,
                    None => self.generator.packet(),
                },
            };
            if self.random.percent(8) {
                self.generator.damage(&mut packet.frame);
            }
            if packet.can_be_run() {
                return packet;
            }
        }
    }

    /// A packet that has to do with one that was translated.
    fn follower(&mut self) -> Option<Packet> {
        let index = (!self.recent.is_empty()).then(|| self.random.within(0..self.recent.len()))?;
        let (packet, after) = self.recent[index].clone();
        let mut follower = match self.random.within(0..10) {
            0..2 => packet,
            8..10 => self.with_other_port(packet),
            2..6 => self.inbound(reversed(&after)?),
            6 => {
                let error = self.error(&after[14..], addresses(&after).0);
                self.inbound(error)
            }
            _ => {
                let delivered = reversed(&packet.frame)?;
                let error = self.error(&delivered[14..], addresses(&packet.frame).1);
                Packet { frame: with_source(error, addresses(&packet.frame)), gso_size: 0, ..packet.clone() }
                    .with_mac_of(&packet)
            }
        };
        if follower.frame[23] == TCP && follower.frame.len() > 47 {
            follower.frame[47] = self.random.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14]);
        }
        if self.random.percent(15) {
            let fragment: u16 = self.random.pick(&[0x2000, 0x2005, 0x0005, 0x00b9]);
            follower.frame[18..22].copy_from_slice(&[0, 1, (fragment >> 8) as u8, fragment as u8]);
        }
        set_checksum(&mut follower.frame);
        Some(follower)
    }

    /// The same of another socket, of which there are more than ports.
    fn with_other_port(&mut self, mut packet: Packet) -> Packet {
        if let (TCP | UDP, Some(port)) = (packet.frame[23], packet.frame.get_mut(34..36)) {
            port.copy_from_slice(&[0xc0, self.random.byte() % 64]);
        }
        packet
    }

    /// A packet of another node to somewhere, mostly by the uplink that it is reached by.
    fn transit(&mut self) -> Packet {
        let sources =
            [[172, 19, 38, 0], [172, 19, 38, 0], [172, 19, 36, 0], [172, 19, 48, 0], [10, 142, 7, 0]];
        let mut source = self.random.pick(&sources);
        source[3] = self.random.byte() % 8;
        let to = [203, 0, 113, self.random.byte() % 4 * 40];
        let protocol = self.random.pick(&[TCP, TCP, UDP, UDP, ICMP, 47]);
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 44, 0, 0, self.random.pick(&[0, 0x40, 0x20]), 0, 64, protocol, 0, 0]);
        frame.extend([source, to].concat());
        frame.extend([8, 0, 0, 53, 0, self.random.byte() % 16, 0, 2, 0, 0, 0, 0, 0x50, 0x02]);
        frame.extend(self.random.bytes(10));
        set_checksum(&mut frame);
        let mut packet = self.inbound(frame);
        if source[2] == 38 && self.random.percent(80) {
            let uplink = self.uplinks[1];
            packet.ifindex = uplink.ifindex;
            packet.frame[..6].copy_from_slice(&uplink.mac.octets());
        }
        packet
    }

    fn inbound(&mut self, mut frame: Vec<u8>) -> Packet {
        let uplink = self.random.pick(&self.uplinks);
        frame[..6].copy_from_slice(&uplink.mac.octets());
        Packet { hook: Hook::FromUplink, ifindex: uplink.ifindex, frame, gso_size: 0 }
    }

    /// An error about a packet, from somewhere.
    fn error(&mut self, about: &[u8], to: Ipv4Addr) -> Vec<u8> {
        let length = self.random.pick(&[20, 27, 28, 36, 40, 60, 300]).min(about.len());
        let kind = self.random.pick(&[3, 3, 3, 11, 12, 4]);
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0xc0]);
        frame.extend((28 + length as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
        frame.extend([203, 0, 113, 77]);
        frame.extend(to.octets());
        frame.extend([kind, self.random.byte() % 16, 0, 0, 0, 0, 5, 120]);
        frame.extend(&about[..length]);
        let sum = !sum(&[&frame[34..]]);
        frame[36..38].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

/// An ICMP error about the packet, to who sent it.
fn check_answer(before: &[u8], after: &[u8]) -> Result<()> {
    ensure!(is_answerable(before), "an error about what must not be answered");
    ensure!(after[..6] == before[6..12] && after[6..12] == before[..6], "to another MAC");
    ensure!(addresses(after).1 == addresses(before).0, "to another address");
    ensure!(sum(&[&after[14..34]]) == 0 && sum(&[&after[34..]]) == 0, "a wrong checksum");
    ensure!(after[34] == 3 && [4, 13].contains(&after[35]), "another error");
    let length = usize::from(u16::from_be_bytes([before[16], before[17]]));
    let length = if length == 0 { before.len() - 14 } else { length }.min(QUOTE);
    ensure!(after[42..] == before[14..14 + length], "another packet is quoted");
    Ok(())
}

/// Whether it is the same, but perhaps for what follows the packet.
fn is_same(before: &[u8], after: &[u8]) -> bool {
    let length = 14 + usize::from(u16::from_be_bytes([before[16], before[17]]));
    before == after || before.get(..length) == Some(after)
}

impl Packet {
    fn with_mac_of(mut self, other: &Self) -> Self {
        self.frame[..12].copy_from_slice(&other.frame[..12]);
        self
    }
}

/// An error that a container sends: from its address.
fn with_source(mut frame: Vec<u8>, (source, _): (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    frame[26..30].copy_from_slice(&source.octets());
    frame
}
