//! Which routes of a peer may reach the data path.
//!
//! A peer must not be able to pull traffic to itself that is not the containers' of another node: what it may say
//! is bounded by the configuration, and by what this node has itself.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::attributes::Attributes;
use crate::source::kernel::{Reach, Unreachable};

/// Why a route is not used. It stays in the table, so that it can be listed and holds as soon as the cause is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// Outside `accept`.
    NotAccepted,
    /// Never a unicast destination (RFC 6890, RFC 1112).
    Reserved,
    /// A block of this node, or a part of one.
    OwnBlock,
    /// An address of this node.
    OwnAddress,
    /// A container of this node.
    OwnContainer,
    /// Our autonomous system is in AS_PATH (RFC 4271 section 9.1.2).
    AsLoop,
    /// We are its originator (RFC 4456 section 8).
    Originator,
    /// We are in CLUSTER_LIST (RFC 4456 section 8).
    ClusterLoop,
    /// A network that this node is connected to.
    Connected,
    /// The next hop is an address of this node.
    NextHopIsOwn,
    /// The next hop is an address that no host has.
    NextHopInvalid,
    /// No uplink leads to the next hop.
    NextHopUnreachable,
    /// The peer's other routes have as many next hops as it may have.
    NextHopLimit,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::NotAccepted,
        Self::Reserved,
        Self::OwnBlock,
        Self::OwnAddress,
        Self::OwnContainer,
        Self::AsLoop,
        Self::Originator,
        Self::ClusterLoop,
        Self::Connected,
        Self::NextHopIsOwn,
        Self::NextHopInvalid,
        Self::NextHopUnreachable,
        Self::NextHopLimit,
    ];

    /// The name in `--json` output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAccepted => "not-accepted",
            Self::Reserved => "reserved",
            Self::OwnBlock => "own-block",
            Self::OwnAddress => "own-address",
            Self::OwnContainer => "own-container",
            Self::AsLoop => "as-loop",
            Self::Originator => "originator",
            Self::ClusterLoop => "cluster-loop",
            Self::Connected => "connected",
            Self::NextHopIsOwn => "next-hop-own",
            Self::NextHopInvalid => "next-hop-invalid",
            Self::NextHopUnreachable => "next-hop-unreachable",
            Self::NextHopLimit => "next-hop-limit",
        }
    }

    /// What it means, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotAccepted => "outside `accept` of [bgp]",
            Self::Reserved => "not a unicast destination",
            Self::OwnBlock => "a block of this node: two nodes announce it",
            Self::OwnAddress => "an address of this node",
            Self::OwnContainer => "a container of this node",
            Self::AsLoop => "our own autonomous system is in its path",
            Self::Originator => "we announced it ourselves",
            Self::ClusterLoop => "it came through a route reflector with our identifier",
            Self::Connected => "a network that this node is connected to, which goes first",
            Self::NextHopIsOwn => "its next hop is this node",
            Self::NextHopInvalid => "its next hop is a network, broadcast or reserved address",
            Self::NextHopUnreachable => "its next hop is on the link of no uplink that has a carrier",
            Self::NextHopLimit => "its peer has as many other next hops as `max-next-hops` allows",
        }
    }
}

/// What the configuration says about learned routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Our autonomous system.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Prefixes outside these are refused.
    pub accept: Vec<Ipv4Net>,
}

/// What is allowed to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often our own autonomous system may stand in AS_PATH.
    pub own_as: usize,
    /// How many next hops its routes may have together.
    pub next_hops: usize,
}

/// What the attributes of a route say of its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    refusal: Option<Refusal>,
    /// The route has been here: a router of another system sends it back.
    from_here: bool,
}

impl Judgement {
    /// Why a route with these attributes cannot be used, to a prefix of which this is said. A route that has come from
    /// here is no sign of another node with our block.
    pub fn with(self, by_prefix: Option<Refusal>) -> Option<Refusal> {
        match self {
            Self { refusal, from_here: false } => by_prefix.or(refusal),
            Self { refusal: Some(why), .. } => Some(why),
            Self { refusal: None, .. } => by_prefix.map(|_| Refusal::AsLoop),
        }
    }
}

/// What the node has itself, and what it reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Its addresses.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Its containers.
    pub containers: BTreeSet<Ipv4Addr>,
    /// Its blocks.
    pub blocks: BTreeSet<Ipv4Net>,
    /// The networks that it is connected to.
    pub connected: BTreeSet<Ipv4Net>,
    /// The routers that it reaches.
    pub reach: Reach,
}

impl Surroundings {
    /// Why an address cannot be a next hop.
    fn refuse_next_hop(&self, next_hop: Ipv4Addr) -> Option<Refusal> {
        self.reach.uplink(next_hop).err().map(|why| match why {
            Unreachable::Own => Refusal::NextHopIsOwn,
            Unreachable::NotUnicast => Refusal::NextHopInvalid,
            Unreachable::NoUplink => Refusal::NextHopUnreachable,
        })
    }

    /// Whether a route of a peer with these attributes can be used, whatever its prefix.
    pub fn judge_attributes(&self, rules: &Rules, limits: Limits, attributes: &Attributes) -> Judgement {
        let own = attributes.as_path.iter().filter(|asn| **asn == rules.asn).count();
        let loops = if own > limits.own_as {
            Some(Refusal::AsLoop)
        } else if attributes.originator == Some(rules.router_id) {
            Some(Refusal::Originator)
        } else if attributes.clusters.contains(&rules.router_id) {
            Some(Refusal::ClusterLoop)
        } else {
            None
        };
        let refusal = loops.or_else(|| self.refuse_next_hop(attributes.next_hop));
        Judgement { refusal, from_here: own != 0 || loops.is_some() }
    }

    /// Why a route to the prefix cannot be used, whatever its attributes.
    ///
    /// A single address in one of our blocks may be elsewhere: a container that took its address along, or that
    /// got it where the node's own blocks were full.
    pub fn refuse_prefix(&self, rules: &Rules, prefix: Ipv4Net) -> Option<Refusal> {
        let single = prefix.prefix_len() == 32;
        Some(if is_reserved(prefix) {
            Refusal::Reserved
        } else if !rules.accept.iter().any(|network| network.contains(&prefix)) {
            Refusal::NotAccepted
        } else if single && self.addresses.contains(&prefix.addr()) {
            Refusal::OwnAddress
        } else if single && self.containers.contains(&prefix.addr()) {
            Refusal::OwnContainer
        } else if self.blocks.iter().any(|own| *own == prefix || (!single && own.contains(&prefix))) {
            Refusal::OwnBlock
        } else if self.connected.contains(&prefix) {
            Refusal::Connected
        } else {
            return None;
        })
    }

    /// The single addresses about which [`Self::refuse_prefix`] may say something else than `other` does;
    /// `None` where that may be so for any prefix, or for these next hops.
    pub fn difference(
        &self,
        other: &Self,
        mut next_hops: impl Iterator<Item = Ipv4Addr>,
    ) -> Option<BTreeSet<Ipv4Addr>> {
        let same_prefixes = (&self.addresses, &self.blocks, &self.connected)
            == (&other.addresses, &other.blocks, &other.connected);
        let same_next_hops = self.reach == other.reach
            || next_hops.all(|next_hop| self.refuse_next_hop(next_hop) == other.refuse_next_hop(next_hop));
        (same_prefixes && same_next_hops)
            .then(|| self.containers.symmetric_difference(&other.containers).copied().collect())
    }
}

/// Wholly in 0/8, 127/8 or 224/3, which are nobody's unicast destination; the default route is somebody's.
fn is_reserved(prefix: Ipv4Net) -> bool {
    let first = prefix.network().octets()[0];
    match prefix.prefix_len() {
        0 => false,
        _ => first >= 224 || prefix.prefix_len() >= 8 && (first == 127 || first == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LIMITS, address, attributes, prefix, rules, surroundings};
    use super::*;

    #[test]
    fn prefixes_are_refused_for_what_they_are() {
        let rules = Rules { accept: vec![prefix("172.19.0.0/16"), prefix("224.0.0.0/3")], ..rules() };
        let surroundings = Surroundings {
            containers: [address("172.19.35.2")].into(),
            addresses: [address("172.19.0.1")].into(),
            ..surroundings()
        };
        for (text, expected) in [
            ("172.19.36.0/24", None),
            ("172.19.36.7/32", None),
            ("172.20.0.0/24", Some(Refusal::NotAccepted)),
            ("172.16.0.0/12", Some(Refusal::NotAccepted)),
            ("0.0.0.0/0", Some(Refusal::NotAccepted)),
            ("224.0.0.0/4", Some(Refusal::Reserved)),
            ("240.0.0.1/32", Some(Refusal::Reserved)),
            ("127.0.0.0/8", Some(Refusal::Reserved)),
            ("172.19.35.0/24", Some(Refusal::OwnBlock)),
            ("172.19.35.128/25", Some(Refusal::OwnBlock)),
            ("172.19.35.2/32", Some(Refusal::OwnContainer)),
            ("172.19.35.3/32", None),
            ("172.19.0.1/32", Some(Refusal::OwnAddress)),
        ] {
            assert_eq!(surroundings.refuse_prefix(&rules, prefix(text)), expected, "{text}");
        }
    }

    #[test]
    fn attributes_are_refused_for_loops_and_for_their_next_hop() {
        let (rules, surroundings) = (rules(), surroundings());
        let judge = |attributes, own_as| {
            surroundings.judge_attributes(&rules, Limits { own_as, ..LIMITS }, &attributes).with(None)
        };
        let refused = |attributes| judge(attributes, 0);
        let fine = attributes("10.141.0.2");
        assert_eq!(refused(fine.clone()), None);
        assert_eq!(
            refused(Attributes { as_path: [7, rules.asn].into(), ..fine.clone() }),
            Some(Refusal::AsLoop)
        );
        let twice = Attributes { as_path: [rules.asn, 7, rules.asn].into(), ..fine.clone() };
        assert_eq!((judge(twice.clone(), 1), judge(twice, 2)), (Some(Refusal::AsLoop), None), "`allowas-in`");
        let originator = Some(rules.router_id);
        assert_eq!(refused(Attributes { originator, ..fine.clone() }), Some(Refusal::Originator));
        let clusters = [rules.router_id].into();
        assert_eq!(refused(Attributes { clusters, ..fine }), Some(Refusal::ClusterLoop));
        assert_eq!(refused(attributes("10.141.0.1")), Some(Refusal::NextHopIsOwn));
        for none in ["10.141.0.0", "10.141.255.255", "224.0.0.1", "0.0.0.0", "255.255.255.255", "127.0.0.1"] {
            assert_eq!(refused(attributes(none)), Some(Refusal::NextHopInvalid), "{none}");
        }
        assert_eq!(refused(attributes("198.51.100.1")), Some(Refusal::NextHopUnreachable));
    }

    #[test]
    fn a_block_that_comes_back_is_a_loop_and_not_another_node_s() {
        let judgement = |refusal, from_here| Judgement { refusal, from_here };
        let own = Some(Refusal::OwnBlock);
        for loops in [Refusal::AsLoop, Refusal::Originator, Refusal::ClusterLoop] {
            assert_eq!(judgement(Some(loops), true).with(own), Some(loops));
        }
        assert_eq!(judgement(Some(Refusal::NextHopUnreachable), false).with(own), own);
        assert_eq!((judgement(None, false).with(own), judgement(None, false).with(None)), (own, None));
        let allowed = judgement(None, true);
        assert_eq!((allowed.with(own), allowed.with(None)), (Some(Refusal::AsLoop), None), "`allowas-in`");
    }

    #[test]
    fn a_connected_network_goes_first_and_what_holds_it_or_lies_in_it_may_be_learned() {
        let rules = Rules { accept: vec![prefix("0.0.0.0/0")], ..rules() };
        let surroundings = Surroundings { connected: [prefix("10.141.0.0/16")].into(), ..surroundings() };
        let refused = |text| surroundings.refuse_prefix(&rules, prefix(text));
        assert_eq!(refused("10.141.0.0/16"), Some(Refusal::Connected));
        assert_eq!(
            (refused("10.0.0.0/8"), refused("10.141.7.0/24"), refused("0.0.0.0/0")),
            (None, None, None)
        );
    }

    #[test]
    fn links_matter_only_where_a_next_hop_is_reached_otherwise() {
        let before = surroundings();
        let mut after = before.clone();
        after.reach.links.insert(prefix("192.0.2.0/24"), Some(3));
        let difference = |hops: &[&str]| {
            let hops: Vec<_> = hops.iter().map(|hop| address(hop)).collect();
            after.difference(&before, hops.into_iter())
        };
        assert_eq!(difference(&["10.141.0.2"]), Some(BTreeSet::new()));
        assert_eq!(difference(&["10.141.0.2", "192.0.2.1"]), None);
    }
}
