//! The rules of translation, as the data path asks them: one for each uplink that a rule of the file covers.

use bytemuck::Zeroable as _;
use std::net::Ipv4Addr;

use dataplane_common::{
    flow::{
        rule::{MAX_RULES, Network, Rule},
        table::Ports,
    },
    net::Ipv4Be,
    next_hop::NextHop,
};
use ipnet::Ipv4Net;
use libc::RT_SCOPE_UNIVERSE;

use crate::{
    config::{Config, DEFAULT_PORTS, Masquerade},
    kernel::netlink::Link,
    source::kernel::{Mirror, Policy},
};

use super::Ipsec;

/// In place of an interface that does not exist: no packet leaves by it, but the programs know whom the rule covers, and
/// leave none of those packets to the kernel, which would send them untranslated.
const NO_INTERFACE: u32 = u32::MAX;

/// Whether the rule stands for an interface that does not exist.
pub fn is_without_interface(rule: &Rule) -> bool {
    rule.ifindex == NO_INTERFACE
}

/// The rules for the uplinks that are there, and what is wrong with them at the moment.
pub fn rules(config: &Config, mirror: &Mirror, policy: &Policy, ipsec: &Ipsec) -> (Vec<Rule>, Vec<String>) {
    let (mut rules, mut complaints) = (Vec::new(), Vec::new());
    for masquerade in &config.masquerade {
        let is_excluded =
            |remote: &&Ipv4Net| masquerade.exclude.iter().any(|network| network.contains(*remote));
        for remote in ipsec.remote.iter().filter(|remote| !is_excluded(remote)) {
            complaints.push(format!(
                "masquerade of {}: IPsec policies select packets to {remote}, which are left to the kernel; those that the \
                 rule covers are dropped (nat-kernel-route): add the network to the rule's `exclude`",
                masquerade.source
            ));
        }
        let covers = |link: &&Link| masquerade.interface.as_ref().is_none_or(|name| *name == link.name);
        if !policy.uplinks.iter().any(|link| covers(&link)) {
            let interface = masquerade.interface.as_deref();
            let missing =
                interface.map_or("there is no uplink".to_owned(), |name| format!("{name} is no uplink"));
            complaints.push(format!(
                "masquerade of {}: {missing}; packets that would leave untranslated are dropped (nat-kernel-route)",
                masquerade.source
            ));
            rules.push(rule(masquerade, mirror, NO_INTERFACE));
        }
        for link in policy.uplinks.iter().filter(covers) {
            if let Some(complaint) = complaint(masquerade, mirror, link.index) {
                complaints.push(format!(
                    "masquerade of {} by {}: {complaint}; packets are dropped (nat-no-address)",
                    masquerade.source, link.name
                ));
            }
            rules.push(rule(masquerade, mirror, link.index));
        }
    }
    if let Some(cause) = mirror.default_obstacle(policy).filter(|_| !rules.is_empty() && policy.egress) {
        complaints.push(format!(
            "the default route is left to the kernel: {}; what containers send by it is dropped where a [[masquerade]] \
             rule covers it (nat-kernel-route): give the node a default route by one IPv4 router on an uplink",
            cause.text()
        ));
    }
    if rules.len() > MAX_RULES {
        complaints.push(format!(
            "the [[masquerade]] rules for all uplinks are {}, of which the first {MAX_RULES} hold: name an \
             `interface` in each, or use fewer",
            rules.len()
        ));
        rules.truncate(MAX_RULES);
    }
    (rules, complaints)
}

/// Whether some packet to the prefix, leaving by that interface, is to be translated.
pub fn may_translate(rules: &[Rule], prefix: Ipv4Net, ifindex: u32) -> bool {
    rules.iter().any(|rule| {
        let excludes = &rule.exclude[..rule.excludes as usize];
        rule.ifindex == ifindex
            && !excludes.iter().any(|network| network.includes(prefix.network().into(), prefix.prefix_len()))
    })
}

fn rule(masquerade: &Masquerade, mirror: &Mirror, ifindex: u32) -> Rule {
    let mut rule = Rule::zeroed();
    rule.source = network(masquerade.source);
    rule.ifindex = ifindex;
    rule.address = masquerade
        .address
        .filter(|address| mirror.is_local(*address))
        .map_or(Ipv4Be::UNSPECIFIED, Ipv4Be::from);
    let ports = masquerade.ports.clone().unwrap_or(DEFAULT_PORTS);
    rule.ports = Ports::new(*ports.start(), *ports.end());
    for (place, exclude) in rule.exclude.iter_mut().zip(&masquerade.exclude) {
        *place = network(*exclude);
        rule.excludes += 1;
    }
    rule
}

fn network(network: Ipv4Net) -> Network {
    Network::new(network.network().into(), network.prefix_len())
}

/// Why packets by that interface cannot be translated.
fn complaint(masquerade: &Masquerade, mirror: &Mirror, ifindex: u32) -> Option<String> {
    match masquerade.address {
        Some(address) if mirror.is_local(address) => None,
        Some(address) => {
            Some(format!("{address} is no address of this node, so no answer would come back: add it"))
        }
        None if global(mirror, ifindex).next().is_some() => None,
        None => Some("the interface has no address: give it one, or set `address`".to_owned()),
    }
}

/// The addresses of an interface that packets by it may have as source: primary ones of global scope.
fn global(mirror: &Mirror, ifindex: u32) -> impl Iterator<Item = Ipv4Net> {
    mirror
        .addresses_of(ifindex)
        .filter(|address| !address.secondary && address.scope == RT_SCOPE_UNIVERSE)
        .map(|address| address.network)
}

/// The address that packets to the prefix by that next hop get where their rule names none, as the kernel chooses it: the one
/// on the router's subnet, else the first of the interface (`inet_select_addr()` in net/ipv4/devinet.c).
pub fn source_by(mirror: &Mirror, prefix: Ipv4Net, next_hop: &NextHop) -> Ipv4Be {
    let on_link = next_hop.gateway == Ipv4Be::UNSPECIFIED;
    let neighbour = if on_link { prefix.network() } else { next_hop.gateway.into() };
    source(mirror, next_hop.ifindex, Some(neighbour)).map_or(Ipv4Be::UNSPECIFIED, Ipv4Be::from)
}

/// The same for a neighbour; for none, the first address of the interface.
pub fn source(mirror: &Mirror, ifindex: u32, neighbour: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let on_subnet =
        neighbour.and_then(|neighbour| global(mirror, ifindex).find(|network| network.contains(&neighbour)));
    on_subnet.or_else(|| global(mirror, ifindex).next()).map(|network| network.addr())
}

/// What [`source`] depends on, for the interfaces of the rules.
pub fn sources(mirror: &Mirror, rules: &[Rule]) -> Vec<(u32, Ipv4Net)> {
    rules
        .iter()
        .flat_map(|rule| global(mirror, rule.ifindex).map(|network| (rule.ifindex, network)))
        .collect()
}
