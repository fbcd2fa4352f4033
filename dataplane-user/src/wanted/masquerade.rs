//! The rules of translation, as the data path asks them: one for each uplink that a rule of the file covers.

use bytemuck::Zeroable as _;
use dataplane_common::{
    nat::rule::{MAX_RULES, Network, Rule},
    net::Ipv4Be,
};
use ipnet::Ipv4Net;
use libc::RT_SCOPE_UNIVERSE;

use crate::{
    config::{Config, Masquerade},
    kernel::netlink::Link,
    source::kernel::{Mirror, Policy},
};

/// The rules for the uplinks that are there, and what is wrong with them at the moment.
pub fn rules(config: &Config, mirror: &Mirror, policy: &Policy) -> (Vec<Rule>, Vec<String>) {
    let (mut rules, mut complaints) = (Vec::new(), Vec::new());
    for masquerade in &config.masquerade {
        let covers = |link: &&Link| masquerade.interface.as_ref().is_none_or(|name| *name == link.name);
        for link in policy.uplinks.iter().filter(covers) {
            let address = address(masquerade, mirror, link.index);
            if let Err(complaint) = &address {
                complaints.push(format!(
                    "masquerade of {} by {}: {complaint}; packets are dropped (nat-no-address)",
                    masquerade.source, link.name
                ));
            }
            rules.push(rule(masquerade, link.index, address.unwrap_or(Ipv4Be::UNSPECIFIED)));
        }
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

fn rule(masquerade: &Masquerade, ifindex: u32, address: Ipv4Be) -> Rule {
    let mut rule = Rule::zeroed();
    rule.source = network(masquerade.source);
    rule.ifindex = ifindex;
    rule.address = address;
    rule.first_port = *masquerade.ports.start();
    rule.ports = masquerade.ports.len().try_into().unwrap_or(u16::MAX);
    for (place, exclude) in rule.exclude.iter_mut().zip(&masquerade.exclude) {
        *place = network(*exclude);
        rule.excludes += 1;
    }
    rule
}

fn network(network: Ipv4Net) -> Network {
    Network::new(network.network().into(), network.prefix_len())
}

/// The address of the rule, or the one that the kernel would choose: the first global one of the interface
/// (`inet_select_addr()` in net/ipv4/devinet.c).
fn address(masquerade: &Masquerade, mirror: &Mirror, ifindex: u32) -> Result<Ipv4Be, String> {
    if let Some(address) = masquerade.address {
        return if mirror.is_local(address) {
            Ok(address.into())
        } else {
            Err(format!("{address} is no address of this node, so no answer would come back: add it"))
        };
    }
    mirror
        .addresses_of(ifindex)
        .find(|address| !address.secondary && address.scope == RT_SCOPE_UNIVERSE)
        .map(|address| address.network.addr().into())
        .ok_or_else(|| "the interface has no address: give it one, or set `address`".to_owned())
}
