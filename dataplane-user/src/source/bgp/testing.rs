//! Short ways to say what the tests need.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{
    attributes::Attributes,
    filter::{Rules, Surroundings},
};

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

/// A fabric 10.141.0.0/16, and loopback networks for sessions of a test with itself.
pub fn surroundings() -> Surroundings {
    Surroundings {
        addresses: [address("10.141.0.1")].into(),
        blocks: [prefix("172.19.35.0/24")].into(),
        reach: vec![(prefix("10.141.0.0/16"), true), (prefix("127.0.0.0/8"), true)],
        ..Surroundings::default()
    }
}
