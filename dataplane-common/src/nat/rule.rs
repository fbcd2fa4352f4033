//! Which packets must be translated, and to what.

use bytemuck::{Pod, Zeroable};

use crate::net::Ipv4Be;

/// Most rules: each `[[masquerade]]` counts once for each uplink that it covers.
pub const MAX_RULES: usize = 32;

/// Most networks that one rule leaves out.
pub const MAX_EXCLUDES: usize = 64;

/// A network as an address and a mask, both in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Network {
    address: u32,
    mask: u32,
}

impl Network {
    /// The network of that address and prefix length (0 to 32). Host bits of the address do not count.
    pub const fn new(address: Ipv4Be, prefix_length: u8) -> Self {
        let mask = match u32::MAX.checked_shl(32 - prefix_length as u32) {
            Some(mask) => mask.to_be(),
            None => 0,
        };
        Self { address: address.to_wire() & mask, mask }
    }

    /// Whether the address lies in it.
    #[inline(always)]
    pub const fn contains(&self, address: Ipv4Be) -> bool {
        (address.to_wire() ^ self.address) & self.mask == 0
    }
}

/// One rule for one uplink.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Rule {
    /// Packets from here...
    pub source: Network,
    /// ...that leave by this interface...
    pub ifindex: u32,
    /// ...get this address; [`Ipv4Be::UNSPECIFIED`] while there is none: then they are dropped...
    pub address: Ipv4Be,
    /// ...and a port from this one on (host byte order)...
    pub first_port: u16,
    /// ...of so many, at least one...
    pub ports: u16,
    /// ...unless they go to one of so many of the following networks.
    pub excludes: u32,
    /// The networks.
    pub exclude: [Network; MAX_EXCLUDES],
}

/// All rules, in the order in which they are asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Rules {
    /// How many there are.
    pub count: u32,
    /// The rules.
    pub rules: [Rule; MAX_RULES],
}

impl Rule {
    #[inline(always)]
    fn covers(&self, source: Ipv4Be, destination: Ipv4Be) -> bool {
        if !self.source.contains(source) {
            return false;
        }
        for (index, network) in self.exclude.iter().enumerate() {
            if index >= self.excludes as usize {
                break;
            }
            if network.contains(destination) {
                return false;
            }
        }
        true
    }
}

impl Rules {
    /// The first rule for packets from `source` to `destination` that leave by `ifindex`; by any interface that
    /// has a rule if that is 0.
    #[inline(always)]
    pub fn find(&self, source: Ipv4Be, destination: Ipv4Be, ifindex: u32) -> Option<&Rule> {
        for (index, rule) in self.rules.iter().enumerate() {
            if index >= self.count as usize {
                break;
            }
            if (ifindex == 0 || rule.ifindex == ifindex) && rule.covers(source, destination) {
                return Some(rule);
            }
        }
        None
    }

    /// Whether a flow that was translated so would be translated so again.
    #[inline(always)]
    pub fn still_allow(&self, source: Ipv4Be, translated: Ipv4Be) -> bool {
        for (index, rule) in self.rules.iter().enumerate() {
            if index >= self.count as usize {
                break;
            }
            if rule.address == translated && rule.source.contains(source) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    fn address(a: u8, b: u8, c: u8, d: u8) -> Ipv4Be {
        Ipv4Addr::new(a, b, c, d).into()
    }

    fn rule(source: Network, ifindex: u32, exclude: &[Network]) -> Rule {
        let mut rule = Rule::zeroed();
        (rule.source, rule.ifindex, rule.address) = (source, ifindex, address(192, 0, 2, 1));
        rule.excludes = exclude.len() as u32;
        rule.exclude[..exclude.len()].copy_from_slice(exclude);
        rule
    }

    #[test]
    fn a_network_contains_its_addresses() {
        let network = Network::new(address(172, 19, 35, 99), 24);
        assert!(network.contains(address(172, 19, 35, 0)) && network.contains(address(172, 19, 35, 255)));
        assert!(!network.contains(address(172, 19, 36, 0)));
        assert!(Network::new(address(1, 2, 3, 4), 0).contains(address(9, 9, 9, 9)));
        assert!(!Network::new(address(1, 2, 3, 4), 32).contains(address(1, 2, 3, 5)));
    }

    #[test]
    fn the_first_rule_that_fits_is_found() {
        let pool = Network::new(address(172, 19, 0, 0), 16);
        let mut rules = Box::new(Rules::zeroed());
        rules.rules[0] = rule(pool, 3, &[pool, Network::new(address(10, 0, 0, 0), 8)]);
        rules.rules[1] = rule(pool, 4, &[]);
        rules.rules[2] = rule(pool, 3, &[pool]);
        rules.count = 2;
        let index = |destination, ifindex| {
            let found = rules.find(address(172, 19, 1, 1), destination, ifindex)?;
            rules.rules.iter().position(|rule| core::ptr::eq(rule, found))
        };
        assert_eq!(index(address(192, 0, 2, 9), 3), Some(0));
        assert_eq!(index(address(192, 0, 2, 9), 4), Some(1));
        assert_eq!(index(address(192, 0, 2, 9), 5), None);
        assert_eq!(index(address(10, 1, 1, 1), 3), None, "rule 2 is beyond the count");
        assert_eq!(index(address(172, 19, 9, 9), 4), Some(1));
        assert_eq!(index(address(10, 1, 1, 1), 0), Some(1));
        assert!(rules.find(address(172, 20, 1, 1), address(192, 0, 2, 9), 3).is_none());
    }
}
