//! A packet, and what is to become of it.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Result, bail, ensure};
use dataplane_common::{
    reason::Reason,
    reject::QUOTE,
    stats::{Counter, Hook},
    trace::StepCode,
};
use tests::harness::{
    packet::{Frame, Icmp, Ipv4, Payload},
    skip::skip_without_root,
};

use crate::{
    at_xdp,
    model::{Model, To, Verdict},
    network::{Container, Hop, NODE, Network},
    packets::Sent,
    programs::{Contents, Packet, Runner, Traced, action},
};

/// Makes cases for a node.
pub(crate) type Group = fn(&Network) -> Vec<Case>;

/// A packet, and what is to become of it.
#[derive(Clone)]
pub(crate) struct Case {
    name: String,
    packet: Packet,
    expected: Verdict,
    /// What the traced copy makes of it, where that is something else.
    traced: Option<Verdict>,
    /// The bytes that are counted, where those are not what is left.
    counted: Option<usize>,
    change: Option<Change>,
}

/// Whom a container is told by where the node has no address for it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Something that changes before a packet comes.
type Change = Arc<dyn Fn(&mut Runner) -> Result<()> + Send + Sync>;

/// A case that has its name.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    name: String,
    sent: Sent,
}

impl Sent {
    /// Begins a case.
    pub(crate) fn called(self, name: impl Into<String>) -> Draft {
        Draft { name: name.into(), sent: self }
    }
}

impl Draft {
    /// The kernel's stack goes on with the packet.
    pub(crate) fn must_pass(self, reason: Reason) -> Case {
        self.stays_as_it_is(reason, action::PASS)
    }

    /// The kernel's stack goes on with another packet than came.
    pub(crate) fn must_pass_as(self, reason: Reason, packet: Ipv4) -> Case {
        let bytes = Frame { payload: packet.into(), ..self.sent.frame.clone() }.bytes();
        let case = self.must_pass(reason);
        Case { expected: Verdict { bytes, ..case.expected.clone() }, ..case }
    }

    /// The packet is gone; of some reasons its sender is told, by an ICMP error. A traced one tells nobody.
    pub(crate) fn must_drop(self, reason: Reason) -> Case {
        let dropped = self.clone().stays_as_it_is(reason, action::DROP);
        let is_of_container = self.sent.hook == Hook::FromContainer;
        match reason {
            _ if !reason.is_told() || !is_answerable(&self.sent.untagged()) => dropped,
            Reason::NatNoAddress if is_of_container => {
                self.told(GATEWAY, dropped, |about| Icmp::unreachable(13, about))
            }
            Reason::NatNoAddress => dropped,
            _ => self.told(NODE.into(), dropped, |about| Icmp::unreachable(13, about)),
        }
    }

    /// The packet is gone, and its sender is told that it must not be larger than that.
    pub(crate) fn must_be_too_big(self, mtu: u16) -> Case {
        let dropped = self.clone().stays_as_it_is(Reason::NatTooBig, action::DROP);
        self.told(NODE.into(), dropped, |about| Icmp::frag_needed(mtu, about))
    }

    /// The sender gets an error from that address, which quotes the packet as it came.
    fn told(self, from: Ipv4Addr, traced: Case, error: impl Fn(&[u8]) -> Icmp) -> Case {
        let bytes = self.sent.untagged();
        let ip = &bytes[14..];
        let length = usize::from(u16::from_be_bytes([ip[2], ip[3]])).min(QUOTE);
        let to = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
        let packet = Ipv4 { tos: 0xc0, ..Ipv4::new(from, to, error(&ip[..length])) };
        let Frame { source, destination, .. } = self.sent.frame;
        let frame = Frame::new(destination, source, packet).bytes();
        let expected = Verdict { action: action::REDIRECT, bytes: frame, ..traced.expected.clone() };
        Case { expected, traced: Some(traced.expected.clone()), counted: Some(bytes.len()), ..traced }
    }

    /// Into the container: one less to live, from the veth's MAC to the container's.
    pub(crate) fn must_reach(self, container: &Container) -> Case {
        let mut frame = self.one_hop_on();
        (frame.source, frame.destination) = (container.veth.mac.octets(), container.mac);
        self.becomes(Reason::Delivered, &frame, To::Container { ifindex: container.veth.ifindex })
    }

    /// Out by an uplink: one less to live; the kernel writes the MACs.
    pub(crate) fn must_leave_by(self, hop: &Hop) -> Case {
        let frame = self.one_hop_on();
        let to = To::Router { ifindex: hop.uplink.ifindex, gateway: hop.gateway };
        self.becomes(Reason::Forwarded, &frame, to)
    }

    /// The container gets this back.
    pub(crate) fn must_get(self, frame: &Frame) -> Case {
        self.becomes(Reason::ArpAnswered, frame, To::Back)
    }

    /// Out by an uplink as another packet than it came.
    pub(crate) fn must_leave_as(self, packet: Ipv4, hop: &Hop) -> Case {
        let frame = Frame { payload: packet.into(), ..self.one_hop_on() };
        let to = To::Router { ifindex: hop.uplink.ifindex, gateway: hop.gateway };
        self.becomes(Reason::Forwarded, &frame, to)
    }

    /// The same as the first packet of a flow. A traced one opens none, and leaves as it is.
    pub(crate) fn must_open(self, packet: Ipv4, hop: &Hop) -> Case {
        let traced = self.clone().must_leave_by(hop).expected;
        Case { traced: Some(traced), ..self.must_leave_as(packet, hop) }
    }

    /// Dropped as the first packet of a flow that cannot be. That shows only who tries, which a traced one does not.
    pub(crate) fn must_open_nothing(self, reason: Reason, hop: &Hop) -> Case {
        let traced = self.clone().must_leave_by(hop).expected;
        let case = self.must_drop(reason);
        Case { traced: Some(traced), ..case }
    }

    /// The same where the sender is not told.
    pub(crate) fn must_open_nothing_for_now(self, reason: Reason, hop: &Hop) -> Case {
        let traced = self.clone().must_leave_by(hop).expected;
        Case { traced: Some(traced), ..self.stays_as_it_is(reason, action::DROP) }
    }

    /// Into the container as another packet than it came.
    pub(crate) fn must_reach_as(self, packet: Ipv4, container: &Container) -> Case {
        let (source, destination) = (container.veth.mac.octets(), container.mac);
        let frame = Frame { payload: packet.into(), source, destination, ..self.one_hop_on() };
        self.becomes(Reason::Delivered, &frame, To::Container { ifindex: container.veth.ifindex })
    }

    fn one_hop_on(&self) -> Frame {
        assert_eq!(self.sent.bytes, None, "{}: the frame is not what was sent", self.name);
        let mut frame = self.sent.frame.clone();
        match &mut frame.payload {
            Payload::Ipv4(packet) => (packet.ttl, packet.checksum) = (packet.ttl - 1, None),
            other => panic!("{}: no IPv4 packet: {other:?}", self.name),
        }
        frame
    }

    fn becomes(self, reason: Reason, frame: &Frame, to: To) -> Case {
        let expected = Verdict { reason, action: action::REDIRECT, bytes: frame.bytes(), to: Some(to) };
        Case {
            packet: self.sent.packet(),
            name: self.name,
            expected,
            traced: None,
            counted: None,
            change: None,
        }
    }

    fn stays_as_it_is(self, reason: Reason, action: i32) -> Case {
        let packet = self.sent.packet();
        let expected = Verdict { reason, action, bytes: self.sent.untagged(), to: None };
        Case { name: self.name, packet, expected, traced: None, counted: None, change: None }
    }
}

impl Case {
    /// The counter that is to count the packet.
    pub(crate) fn counter(&self) -> (Hook, Reason) {
        (self.packet.hook, self.expected.reason)
    }

    /// The same with other bytes left of the packet.
    pub(crate) fn leaving(mut self, bytes: Vec<u8>) -> Self {
        self.expected.bytes = bytes;
        self
    }

    /// The same without what follows so many bytes of IP packet.
    pub(crate) fn cut_to(mut self, length: u32) -> Self {
        self.expected.bytes.truncate(14 + length as usize);
        self
    }

    /// The same after a change of the node.
    pub(crate) fn after(
        mut self,
        change: impl Fn(&mut Runner) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.change = Some(Arc::new(change));
        self
    }

    /// What differs from what is expected. The model knows of no translation.
    fn differences(&self, runner: &mut Runner, model: Option<&Model>) -> Result<Vec<String>> {
        let Self { packet, expected, .. } = self;
        if let Some(change) = &self.change {
            change(runner)?;
        }
        let told = self.traced.as_ref().unwrap_or(expected);
        let before = (runner.counts()?, flows(runner, packet)?);
        let traced = runner.trace(packet)?;
        let at_xdp = at_xdp::differences(runner, packet, &traced)?;
        let after = (runner.counts()?, flows(runner, packet)?);
        let counted = runner.run_counted(packet)?;

        let counter = Counter { packets: 1, bytes: self.counted.unwrap_or(expected.bytes.len()) as u64 };
        let mut differences = at_xdp;
        let mut compare = |what: &str, found: String, wanted: String| {
            if found != wanted {
                differences.push(format!("{what}: {found}\n      expected: {wanted}"));
            }
        };
        compare(
            "counted",
            format!("{:?}", counted.moved),
            format!("{:?}", [(packet.hook, expected.reason, counter)]),
        );
        compare("action", counted.ran.action.to_string(), expected.action.to_string());
        compare("frame", hex(&counted.ran.bytes), hex(&expected.bytes));
        compare("traced, action", traced.ran.action.to_string(), told.action.to_string());
        compare("traced, frame", hex(&traced.ran.bytes), hex(&told.bytes));
        compare("traced, verdict", format!("{:?}", traced.reason), format!("{:?}", told.reason));
        compare("traced, leads to", format!("{:?}", leads_to(&traced, packet)), format!("{:?}", told.to));
        if after != before {
            compare("traced, changed", format!("{after:?}"), format!("{before:?}"));
        }
        if let Some(model) = model {
            compare("the model says", format!("{:?}", model.verdict(packet)), format!("{expected:?}"));
        }
        Ok(differences)
    }
}

/// The flow table, with the shares of the packet's addresses.
fn flows(runner: &Runner, packet: &Packet) -> Result<Contents> {
    let address = |at: usize| packet.frame.get(at..at + 4).map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3]));
    let addresses: Vec<Ipv4Addr> = [26, 30].into_iter().filter_map(address).collect();
    runner.flows(&addresses)
}

/// Where the recorded steps led.
pub(crate) fn leads_to(traced: &Traced, packet: &Packet) -> Option<To> {
    let words = |wanted: StepCode| {
        traced.steps.iter().rev().find(|(code, _)| *code == wanted).map(|(_, words)| *words)
    };
    match traced.reason {
        Reason::Delivered => words(StepCode::Endpoint).map(|[_, ifindex, _]| To::Container { ifindex }),
        Reason::Forwarded => words(StepCode::NextHop).map(|[_, ifindex, gateway]| To::Router {
            ifindex,
            gateway: (gateway != 0).then(|| gateway.into()),
        }),
        Reason::ArpAnswered => {
            words(StepCode::Frame).filter(|[ifindex, ..]| *ifindex == packet.ifindex).map(|_| To::Back)
        }
        _ => None,
    }
}

/// Runs the cases of a group on a node of their own.
pub(crate) fn check(test: &str, node: fn() -> Result<Network>, group: Group) -> Result<()> {
    if skip_without_root(test) {
        return Ok(());
    }
    let mut network = node()?;
    network.serve_at_xdp()?;
    let cases = group(&network);
    check_on(&mut network, &cases)
}

/// Runs cases, and fails with all that is not as expected.
pub(crate) fn check_on(network: &mut Network, cases: &[Case]) -> Result<()> {
    ensure!(!cases.is_empty(), "no cases");
    let Network { programs, model, translates, .. } = network;
    let model = (!*translates).then_some(&*model);
    let failures = programs.enter(|runner| {
        let mut failures = Vec::new();
        for case in cases {
            for difference in case.differences(runner, model)? {
                failures.push(format!(
                    "{}: {difference}\n        packet: {}",
                    case.name,
                    hex(&case.packet.frame)
                ));
            }
        }
        if let Err(error) = runner.check_flows() {
            failures.push(format!("the flow table afterwards: {error:#}"));
        }
        Ok(failures)
    })?;
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// Whether an ICMP error may be about the packet (RFC 1122, section 3.2.2).
pub(crate) fn is_answerable(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let is_ipv4 = frame[12..14] == [8, 0];
    is_ipv4 && {
        let is_first = ip[6] & 0x1f == 0 && ip[7] == 0;
        let header = usize::from(ip[0] & 15) * 4;
        let is_error = ip[9] == 1 && !matches!(ip.get(header), Some(0 | 8 | 13..=18));
        let is_reserved = |first: u8| matches!(first, 0 | 127 | 224..=239);
        let is_to_all = ip[16..20] == [255; 4] || ip[12..16] == [255; 4];
        is_first && !is_error && !is_reserved(ip[12]) && !is_reserved(ip[16]) && !is_to_all
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
