//! Which packets must be translated, and to what.

use bytemuck::{Pod, Zeroable};

use super::table::Ports;
use crate::{net::Ipv4Be, repeat::Repeat};

/// Most rules of a set: each `[[masquerade]]` counts once for each uplink that it covers.
pub const MAX_RULES: usize = 32;

/// Most networks that one rule leaves out.
pub const MAX_EXCLUDES: usize = 64;

/// Which rules hold: so many, from a place in the map of them, which has room for two sets.
///
/// ```text
///  31        16 15         0
/// +------------+------------+
/// |   count    |   first    |
/// +------------+------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleSet(u32);

impl RuleSet {
    /// No rules.
    pub const NONE: Self = Self(0);

    /// So many from `first` on.
    pub const fn new(first: u16, count: u16) -> Self {
        Self((count as u32) << 16 | first as u32)
    }

    /// Takes the word as it stands in the settings.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The place of the first rule.
    #[inline(always)]
    pub const fn first(self) -> u32 {
        self.0 & 0xffff
    }

    /// How many rules.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.0 >> 16
    }
}

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

    /// Whether all of that prefix lies in it.
    pub const fn includes(&self, address: Ipv4Be, prefix_length: u8) -> bool {
        self.mask.count_ones() <= prefix_length as u32 && self.contains(address)
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
    /// ...get this address; [`Ipv4Be::UNSPECIFIED`] for that of their next hop
    /// ([`NextHop::source`](crate::next_hop::NextHop::source)), without which they are dropped...
    pub address: Ipv4Be,
    /// ...and one of these ports...
    pub ports: Ports,
    /// ...unless they go to one of so many of the following networks.
    pub excludes: u32,
    /// The rule's number in its set.
    pub number: u32,
    /// The networks.
    pub exclude: [Network; MAX_EXCLUDES],
}

impl Rule {
    #[inline(always)]
    fn covers(&self, repeat: &impl Repeat, source: Ipv4Be, destination: Ipv4Be) -> bool {
        if !self.source.contains(source) {
            return false;
        }
        let mut covers = true;
        repeat.repeat(self.excludes, |index| {
            covers = !self.exclude.get(index as usize).is_some_and(|network| network.contains(destination));
            covers
        });
        covers
    }
}

/// The rules that hold, wherever they are.
pub trait Rules: Repeat {
    /// How many there are.
    fn count(&self) -> u32;
    /// The rule with that number.
    fn rule(&self, index: u32) -> Option<&Rule>;
}

/// The number of the first rule for packets from `source` to `destination` that leave by `ifindex`; by any interface that has a
/// rule if that is 0.
#[inline(always)]
pub fn find(rules: &impl Rules, source: Ipv4Be, destination: Ipv4Be, ifindex: u32) -> Option<u32> {
    let mut found = NONE;
    rules.repeat(rules.count(), |index| {
        if let Some(rule) = rules.rule(index)
            && (ifindex == 0 || rule.ifindex == ifindex)
            && rule.covers(rules, source, destination)
        {
            found = index;
        }
        found == NONE
    });
    if found == NONE { None } else { Some(found) }
}

/// Instead of a rule's number.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::repeat::Plainly;

    struct Two<'a>(&'a [Rule]);

    impl Repeat for Two<'_> {
        fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
            Plainly.repeat(count, body);
        }
    }

    impl Rules for Two<'_> {
        fn count(&self) -> u32 {
            2
        }

        fn rule(&self, index: u32) -> Option<&Rule> {
            self.0.get(index as usize)
        }
    }

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
        assert!(
            network.includes(address(172, 19, 35, 64), 26) && network.includes(address(172, 19, 35, 0), 24)
        );
        assert!(!network.includes(address(172, 19, 35, 0), 23) && !network.includes(address(0, 0, 0, 0), 0));
        assert!(!Network::new(address(1, 2, 3, 4), 32).contains(address(1, 2, 3, 5)));
    }

    #[test]
    fn the_first_rule_that_fits_is_found() {
        let pool = Network::new(address(172, 19, 0, 0), 16);
        let rules = [
            rule(pool, 3, &[pool, Network::new(address(10, 0, 0, 0), 8)]),
            rule(pool, 4, &[]),
            rule(pool, 3, &[pool]),
        ];
        let two = Two(&rules);
        let from = |source, destination, ifindex| find(&two, source, destination, ifindex);
        let index = |destination, ifindex| from(address(172, 19, 1, 1), destination, ifindex);
        assert_eq!(index(address(192, 0, 2, 9), 3), Some(0));
        assert_eq!(index(address(192, 0, 2, 9), 4), Some(1));
        assert_eq!(index(address(192, 0, 2, 9), 5), None);
        assert_eq!(index(address(10, 1, 1, 1), 3), None, "rule 2 is beyond the count");
        assert_eq!(index(address(172, 19, 9, 9), 4), Some(1));
        assert_eq!(index(address(10, 1, 1, 1), 0), Some(1));
        assert_eq!(from(address(172, 20, 1, 1), address(192, 0, 2, 9), 3), None);
    }
}
