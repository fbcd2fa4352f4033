//! Which routers are reached, and by which uplink.

use super::*;
use crate::source::kernel::Unreachable::{self, NoUplink, NotUnicast, Own};

fn uplink(mirror: &Mirror, router: &str) -> Result<u32, Unreachable> {
    mirror.reach(&policy(mirror)).uplink(router.parse().unwrap())
}

#[test]
fn a_router_is_on_the_link_of_the_longest_match_without_gateway() {
    let mirror = node("10.141.8.0/24 dev eth1 scope link\n 10.141.9.0/24 via 10.141.0.2 dev eth1");
    assert_eq!(uplink(&mirror, "10.141.0.2"), Ok(ETH0));
    assert_eq!(uplink(&mirror, "10.141.8.2"), Ok(ETH1));
    assert_eq!(uplink(&mirror, "10.141.9.2"), Ok(ETH0));
    assert_eq!(uplink(&mirror, "172.19.35.2"), Err(NoUplink), "a container");
    assert_eq!(uplink(&mirror, "198.51.100.2"), Err(NoUplink), "tun0 is no uplink");
    assert_eq!(uplink(&mirror, "203.0.113.1"), Err(NoUplink), "the default route has a gateway");
}

#[test]
fn an_uplink_without_carrier_leads_nowhere() {
    let mut mirror = node("");
    let _ = mirror.apply(event(&mirror, "2: eth0 UP mtu 1500"));
    assert_eq!(uplink(&mirror, "10.141.0.2"), Err(NoUplink));
    assert_eq!(uplink(&mirror, "192.0.2.5"), Ok(ETH1));
}

#[test]
fn what_no_other_host_has_is_no_router() {
    let mirror = node("inet 192.0.2.65/31 dev eth1\n 192.0.2.64/31 dev eth1 proto kernel scope link");
    for own in ["10.141.0.1", "192.0.2.7"] {
        assert_eq!(uplink(&mirror, own), Err(Own), "{own}");
    }
    for none in
        ["10.141.0.0", "10.141.255.255", "192.0.2.4", "0.0.0.0", "0.1.2.3", "224.0.0.5", "255.255.255.255"]
    {
        assert_eq!(uplink(&mirror, none), Err(NotUnicast), "{none}");
    }
    assert!(uplink(&mirror, "127.0.0.9").is_err());
    assert_eq!(uplink(&mirror, "192.0.2.64"), Ok(ETH1), "a network of two has neither (RFC 3021)");
}

#[test]
fn connected_networks_are_those_of_the_node_s_addresses() {
    let connected = node("10.8.0.0/16 dev eth1 proto static scope link").connected();
    let text: Vec<_> = connected.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["10.141.0.0/16", "192.0.2.4/30"]);
}
