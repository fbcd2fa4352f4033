//! Short ways to say what the tests need.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{
    attributes::Attributes,
    filter::{Limits, Rules, Surroundings},
};
use crate::source::kernel::{Reach, Unreachable};

pub fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn prefix(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// Of a route that an internal peer announces with this next hop.
pub fn attributes(next_hop: &str) -> Attributes {
    Attributes {
        next_hop: address(next_hop),
        origin: 0,
        local_preference: None,
        med: None,
        as_path: Box::default(),
        originator: None,
        clusters: Box::default(),
    }
}

/// Of the node 10.141.0.1 with the pool 172.19.0.0/16.
pub fn rules() -> Rules {
    Rules { asn: 64_512, router_id: address("10.141.0.1"), accept: vec![prefix("172.19.0.0/16")] }
}

/// What is allowed to a peer where a test says nothing else.
pub const LIMITS: Limits = Limits { own_as: 0, next_hops: 4096 };

/// The routers of these networks, by one uplink.
pub fn reach(networks: &[&str]) -> Reach {
    Reach { links: networks.iter().map(|text| (prefix(text), Some(2))).collect(), ..Reach::default() }
}

/// A fabric 10.141.0.0/16, in which the node is 10.141.0.1.
pub fn surroundings() -> Surroundings {
    let special = [
        (prefix("10.141.0.1/32"), Unreachable::Own),
        (prefix("10.141.0.0/32"), Unreachable::NotUnicast),
        (prefix("10.141.255.255/32"), Unreachable::NotUnicast),
    ];
    Surroundings {
        addresses: [address("10.141.0.1")].into(),
        blocks: [prefix("172.19.35.0/24")].into(),
        reach: Reach { special: special.into(), ..reach(&["10.141.0.0/16"]) },
        ..Surroundings::default()
    }
}
