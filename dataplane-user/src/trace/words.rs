//! The steps of a walk in words.

use std::net::Ipv4Addr;

use dataplane_common::{
    flow::{state::State, tuple},
    reason::{Class, Reason},
    route::{Entry, Target},
    trace::{Step, StepCode},
};
use ipnet::Ipv4Net;

use crate::{
    control::answers::FlowEntry,
    show::{self, describe},
    wanted::Destination,
};

/// Turns numbers of a record into names.
pub struct Namer<'a> {
    /// The name of an interface.
    pub interface: &'a dyn Fn(u32) -> String,
    /// What an entry of the route table stands for.
    pub resolve: &'a dyn Fn(Target) -> Option<Destination>,
    /// The flow that lives in a slot.
    pub flow: &'a dyn Fn(u32) -> Option<FlowEntry>,
}

impl Namer<'_> {
    fn interface(&self, ifindex: u32) -> String {
        (self.interface)(ifindex)
    }

    /// The name of a step and what happened in it; `None` for the verdict, which stands apart.
    pub(super) fn step(&self, code: StepCode, [a, b, c]: [u32; 3]) -> Option<(&'static str, String)> {
        let address = Ipv4Addr::from_bits;
        Some(match code {
            StepCode::Frame => (
                "frame",
                format!("{c} bytes in by {}, EtherType {b:#06x} ({})", self.interface(a), ether_type(b)),
            ),
            StepCode::Arp => {
                ("arp", format!("{} from {}, about {}", arp_operation(a), address(b), address(c)))
            }
            StepCode::Ipv4 => {
                ("ipv4", format!("{} to {}, {}, TTL {}", address(a), address(b), protocol(c & 0xff), c >> 8))
            }
            StepCode::SourceLookup => ("source-lookup", self.entry(address(a), Entry::from_bits(b))),
            StepCode::RouteLookup => ("route-lookup", self.entry(address(a), Entry::from_bits(b))),
            StepCode::Endpoint => {
                ("endpoint", format!("slot {a}: container {} behind {}", address(c), self.interface(b)))
            }
            StepCode::NextHop if c == 0 => {
                ("next-hop", format!("slot {a}: on the link of {}", self.interface(b)))
            }
            StepCode::NextHop => {
                ("next-hop", format!("slot {a}: router {} by {}", address(c), self.interface(b)))
            }
            StepCode::Size if a > b => ("size", format!("{a} bytes do not fit the MTU of {b}")),
            StepCode::Size => ("size", format!("{a} bytes fit the MTU of {b}")),
            StepCode::Flow => (
                "flow",
                format!(
                    "slot {a}: {} direction{}, replies go to {}:{} ({})",
                    direction(c),
                    (self.flow)(a)
                        .map_or_else(String::new, |flow| format!(" of {}", show::flow::original(&flow))),
                    address(b),
                    c >> 16,
                    State::from_number(c as u8).name()
                ),
            ),
            StepCode::Rule if a == 0 => {
                ("masquerade", "a rule applies, and its interface has no address".to_owned())
            }
            StepCode::Rule => (
                "masquerade",
                format!("a rule applies: {}, ports {b}-{}", address(a), b + c.saturating_sub(1)),
            ),
            StepCode::FlowMiss => ("flow", format!("none yet for {} port {b}, {}", address(a), protocol(c))),
            StepCode::Translated => (
                "rewrite",
                format!("the {} becomes {}:{b}", if c == 0 { "source" } else { "destination" }, address(a)),
            ),
            StepCode::IcmpError => {
                ("icmp-error", format!("type {a}, code {b}, about a packet of {}", protocol(c)))
            }
            StepCode::Rejected if c != 0 => {
                ("answer", format!("an ICMP error to the sender: type {a}, code {b}, MTU {c}"))
            }
            StepCode::Rejected => ("answer", format!("an ICMP error to the sender: type {a}, code {b}")),
            StepCode::Verdict => return None,
        })
    }

    fn entry(&self, address: Ipv4Addr, entry: Entry) -> String {
        let Some(target) = entry.target() else { return format!("{address}: no route") };
        let prefix = Ipv4Net::new(address, entry.prefix_length()).unwrap_or(address.into()).trunc();
        let destination = (self.resolve)(target).map_or_else(
            || format!("{target:?}, which points nowhere"),
            |destination| describe(&destination, &|ifindex| self.interface(ifindex)),
        );
        format!("{address} matches {prefix}: {destination}")
    }

    /// The verdict in words, with where the packet goes.
    pub(super) fn verdict(&self, reason: Reason, steps: &[Step]) -> String {
        let ifindex = |wanted: StepCode| {
            steps
                .iter()
                .rev()
                .find(|step| step.code == wanted as u32)
                .map(|step| self.interface(step.words[1]))
        };
        let place = match reason {
            Reason::Delivered => ifindex(StepCode::Endpoint).map(|name| format!(" (behind {name})")),
            Reason::Forwarded => ifindex(StepCode::NextHop).map(|name| format!(" ({name})")),
            Reason::KernelDecides => self.prospect(steps),
            _ => None,
        };
        let act = match reason.class() {
            Class::Forward => "BPF carries it",
            Class::Pass => "the kernel goes on with it",
            Class::Drop => "dropped",
        };
        format!("{act}: {}{}", reason.text(), place.unwrap_or_default())
    }

    /// What BPF does with the packet's connection if the kernel accepts it (`netfilter = "respect"`).
    fn prospect(&self, steps: &[Step]) -> Option<String> {
        let last = |wanted: StepCode| steps.iter().rev().find(|step| step.code == wanted as u32);
        let number = last(StepCode::Ipv4)?.words[2] & 0xff;
        if ![tuple::protocol::TCP, tuple::protocol::UDP].map(u32::from).contains(&number) {
            return None;
        }
        let [address, entry, _] = last(StepCode::RouteLookup)?.words;
        let entry = Entry::from_bits(entry);
        Some(match entry.target() {
            Some(Target::Endpoint(_) | Target::NextHop(_)) => {
                let way = self.entry(Ipv4Addr::from_bits(address), entry);
                format!("; once the connection is established, BPF carries it, if nothing is translated so: {way}")
            }
            _ => "; if its rules translate the destination into one that BPF has a route to, BPF carries the connection once it \
                  is established"
                .to_owned(),
        })
    }
}

/// The direction in the last word of [`StepCode::Flow`].
pub(super) const fn direction(word: u32) -> &'static str {
    if word >> 8 & 0xff == 0 { "original" } else { "reply" }
}

fn ether_type(number: u32) -> &'static str {
    match number {
        0x0800 => "IPv4",
        0x0806 => "ARP",
        0x86dd => "IPv6",
        _ => "other",
    }
}

fn arp_operation(number: u32) -> &'static str {
    match number {
        1 => "request",
        2 => "reply",
        _ => "other operation",
    }
}

fn protocol(number: u32) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        other => format!("protocol {other}"),
    }
}
