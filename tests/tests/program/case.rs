//! A packet, and what is to become of it.

use anyhow::{Result, bail, ensure};
use dataplane_common::{
    reason::Reason,
    stats::{Counter, Hook},
    trace::StepCode,
};
use tests::harness::{
    packet::{Frame, Payload},
    skip::skip_without_root,
};

use crate::{
    model::{Model, To, Verdict},
    network::{Container, Hop, Network},
    packets::Sent,
    programs::{Packet, Runner, Traced, action},
};

/// Makes cases for a node.
pub(crate) type Group = fn(&Network) -> Vec<Case>;

/// A packet, and what is to become of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    name: String,
    packet: Packet,
    expected: Verdict,
}

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

    /// The packet is gone.
    pub(crate) fn must_drop(self, reason: Reason) -> Case {
        self.stays_as_it_is(reason, action::DROP)
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
        Case { packet: self.sent.packet(), name: self.name, expected }
    }

    fn stays_as_it_is(self, reason: Reason, action: i32) -> Case {
        let packet = self.sent.packet();
        let expected = Verdict { reason, action, bytes: packet.frame.clone(), to: None };
        Case { name: self.name, packet, expected }
    }
}

impl Case {
    /// The counter that is to count the packet.
    pub(crate) fn counter(&self) -> (Hook, Reason) {
        (self.packet.hook, self.expected.reason)
    }

    /// What differs from what is expected.
    fn differences(&self, runner: &mut Runner, model: &Model) -> Result<Vec<String>> {
        let Self { packet, expected, .. } = self;
        let counted = runner.run_counted(packet)?;
        let before = runner.counts()?;
        let traced = runner.trace(packet)?;
        let after = runner.counts()?;

        let counter = Counter { packets: 1, bytes: packet.frame.len() as u64 };
        let mut differences = Vec::new();
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
        compare("traced, action", traced.ran.action.to_string(), expected.action.to_string());
        compare("traced, frame", hex(&traced.ran.bytes), hex(&expected.bytes));
        compare("traced, verdict", format!("{:?}", traced.reason), format!("{:?}", expected.reason));
        compare("traced, leads to", format!("{:?}", leads_to(&traced, packet)), format!("{:?}", expected.to));
        compare("traced, counted", format!("{after:?}"), format!("{before:?}"));
        compare("the model says", format!("{:?}", model.verdict(packet)), format!("{expected:?}"));
        Ok(differences)
    }
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
pub(crate) fn check(test: &str, group: Group) -> Result<()> {
    if skip_without_root(test) {
        return Ok(());
    }
    let mut network = Network::new()?;
    let cases = group(&network);
    check_on(&mut network, &cases)
}

/// Runs cases, and fails with all that is not as expected.
pub(crate) fn check_on(network: &mut Network, cases: &[Case]) -> Result<()> {
    ensure!(!cases.is_empty(), "no cases");
    let Network { programs, model, .. } = network;
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
        Ok(failures)
    })?;
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
