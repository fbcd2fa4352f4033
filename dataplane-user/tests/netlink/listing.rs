//! What is there, as it is listed.

use std::{
    future::Future,
    net::Ipv4Addr,
    task::{Context as TaskContext, Waker},
};

use anyhow::Context;
use dataplane::kernel::netlink::{Address, Netlink, Peer, Route, RouteKind};
use dataplane_common::net::MacAddr;

use crate::{
    by_name,
    harness::{Container, ip, ip_batch, on_a_node},
    make_uplink, net, plain,
};

#[test]
fn links_and_addresses_are_listed() {
    on_a_node(async || {
        make_uplink();
        let container = Container::with_veth("cali1");
        container.ip("link set eth0 address 02:00:00:00:00:17");
        ip("addr add 10.141.0.9/16 dev eth0");
        ip("addr add 192.0.2.1 peer 198.51.100.1/32 dev fabric0");
        let (netlink, _events) = Netlink::connect()?;
        let links = netlink.links().await?;

        let lo = by_name(&links, "lo")?;
        assert_eq!(
            (lo.index, lo.ethernet, lo.mac, lo.up, lo.kind, lo.peer),
            (1, false, None, true, None, None)
        );
        let eth0 = by_name(&links, "eth0")?;
        let fabric0 = by_name(&links, "fabric0")?;
        assert_eq!((eth0.mtu, eth0.up, eth0.carrier, eth0.ethernet), (1450, true, true, true));
        assert_eq!(eth0.kind.as_deref(), Some("veth"));
        assert_eq!(eth0.peer, Some(Peer { ifindex: fabric0.index, netnsid: None }));
        assert_eq!(ip("-br link show eth0").split_whitespace().nth(2), Some(&*eth0.mac.unwrap().to_string()));

        let peer = by_name(&links, "cali1")?.peer.context("cali1 has no peer")?;
        assert!(peer.netnsid.is_some(), "{peer:?}");
        assert_eq!(netlink.peer_mac(peer).await?, Some(MacAddr::new([2, 0, 0, 0, 0, 0x17])));
        // In one namespace the same question needs no number.
        assert_eq!(netlink.peer_mac(eth0.peer.unwrap()).await?, fabric0.mac);

        let addresses = netlink.addresses().await?;
        let primary = Address {
            ifindex: eth0.index,
            network: net("10.141.0.1/16"),
            peer: None,
            broadcast: Some(Ipv4Addr::new(10, 141, 255, 255)),
            secondary: false,
            scope: 0,
        };
        let secondary =
            Address { network: net("10.141.0.9/16"), broadcast: None, secondary: true, ..primary.clone() };
        let far = Address {
            ifindex: fabric0.index,
            network: net("192.0.2.1/32"),
            peer: Some(Ipv4Addr::new(198, 51, 100, 1)),
            broadcast: None,
            secondary: false,
            scope: 0,
        };
        let on = |index| addresses.iter().filter(move |address| address.ifindex == index).collect::<Vec<_>>();
        assert_eq!(on(eth0.index), [&primary, &secondary]);
        assert_eq!(on(fabric0.index), [&far]);
        assert_eq!(on(1).len(), 1);
        Ok(())
    });
}

#[test]
fn routes_of_every_kind_are_listed() {
    on_a_node(async || {
        make_uplink();
        ip("nexthop add id 7 via 10.141.0.7 dev eth0");
        for route in [
            "172.19.36.0/24 via 10.141.0.2 dev eth0 proto bird metric 32 mtu 1400",
            "172.19.37.0/24 dev eth0",
            "blackhole 172.19.35.0/24 proto 80",
            "unreachable 172.19.38.0/24",
            "prohibit 172.19.39.0/24",
            "throw 172.19.40.0/24",
            "172.19.41.0/24 nexthop via 10.141.0.2 dev eth0 nexthop dev fabric0",
            "172.19.42.0/24 nhid 7",
            "172.19.43.0/24 dev eth0 tos 0x10 src 10.141.0.1",
            "172.19.44.0/24 dev eth0 table 1000",
            "172.19.45.0/24 via inet6 fe80::2 dev eth0",
            "default via 10.141.0.254 dev eth0 proto static",
        ] {
            ip(&format!("route add {route}"));
        }
        let (netlink, _events) = Netlink::connect()?;
        let (links, routes) = (netlink.links().await?, netlink.routes().await?);
        let (eth0, fabric0) = (by_name(&links, "eth0")?.index, by_name(&links, "fabric0")?.index);
        let expected = [
            Route {
                gateway: Some(Ipv4Addr::new(10, 141, 0, 2)),
                protocol: 12,
                scope: 0,
                metric: 32,
                mtu: Some(1400),
                ..plain("172.19.36.0/24", eth0)
            },
            plain("172.19.37.0/24", eth0),
            Route {
                kind: RouteKind::Blackhole,
                protocol: 80,
                scope: 0,
                oif: None,
                ..plain("172.19.35.0/24", 0)
            },
            Route { kind: RouteKind::Unreachable, scope: 0, oif: None, ..plain("172.19.38.0/24", 0) },
            Route { kind: RouteKind::Prohibit, scope: 0, oif: None, ..plain("172.19.39.0/24", 0) },
            Route { kind: RouteKind::Throw, scope: 0, oif: None, ..plain("172.19.40.0/24", 0) },
            Route {
                multipath: true,
                multipath_oifs: Box::new([eth0, fabric0]),
                scope: 0,
                oif: None,
                ..plain("172.19.41.0/24", 0)
            },
            Route {
                nexthop: Some(7),
                gateway: Some(Ipv4Addr::new(10, 141, 0, 7)),
                scope: 0,
                ..plain("172.19.42.0/24", eth0)
            },
            Route { tos: 16, source: Some(Ipv4Addr::new(10, 141, 0, 1)), ..plain("172.19.43.0/24", eth0) },
            Route { table: 1000, ..plain("172.19.44.0/24", eth0) },
            Route { encap: true, via_ipv6: true, scope: 0, ..plain("172.19.45.0/24", eth0) },
            Route {
                gateway: Some(Ipv4Addr::new(10, 141, 0, 254)),
                protocol: libc::RTPROT_STATIC,
                scope: 0,
                ..plain("0.0.0.0/0", eth0)
            },
            Route {
                protocol: libc::RTPROT_KERNEL,
                source: Some(Ipv4Addr::new(10, 141, 0, 1)),
                ..plain("10.141.0.0/16", eth0)
            },
        ];
        for route in &expected {
            assert!(routes.contains(route), "{route:#?} is not among {routes:#?}");
        }
        let of_table =
            |table, kind| routes.iter().filter(|route| route.table == table && route.kind == kind).count();
        assert_eq!(of_table(254, RouteKind::Unicast) + of_table(254, RouteKind::Blackhole), 9);
        assert_eq!(of_table(255, RouteKind::Local), 3);
        assert_eq!(of_table(255, RouteKind::Broadcast), 2);
        Ok(())
    });
}

#[test]
fn rules_that_are_not_the_default_ones_are_noticed() {
    on_a_node(async || {
        let (netlink, _events) = Netlink::connect()?;
        assert!(netlink.rules_are_default().await?);
        for (add, remove) in [
            ("rule add from 192.0.2.0/24 table 100", "rule del from 192.0.2.0/24 table 100"),
            ("rule add fwmark 1 table main priority 32766", "rule del fwmark 1 table main priority 32766"),
            ("rule add table main priority 32766", "rule del table main priority 32766"),
            ("rule del table main priority 32766", "rule add table main priority 32766"),
            ("rule add not to 192.0.2.1 unreachable", "rule del not to 192.0.2.1 unreachable"),
        ] {
            ip(add);
            assert!(!netlink.rules_are_default().await?, "{add}");
            ip(remove);
            assert!(netlink.rules_are_default().await?, "{remove}");
        }
        Ok(())
    });
}

#[test]
fn a_request_that_was_given_up_leaves_nothing_behind() {
    on_a_node(async || {
        make_uplink();
        let routes: String = (0..4000_u32)
            .map(|number| format!("route add 172.19.{}.{}/32 dev eth0\n", number / 256, number % 256))
            .collect();
        ip_batch(&routes)?;
        let (netlink, _events) = Netlink::connect()?;
        // A listing runs on until the runtime wants it to yield, which is after so many datagrams that it
        // falls amidst one listing or another. Dropped there, its answers are only half read.
        let mut given_up = 0;
        for _ in 0..200 {
            let mut listing = Box::pin(netlink.routes());
            if listing.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending() {
                given_up += 1;
                drop(listing);
                tokio::task::yield_now().await;
                assert!(by_name(&netlink.links().await?, "eth0").is_ok());
            }
        }
        assert!(given_up > 1, "every listing ran to its end");
        assert!(by_name(&netlink.links().await?, "eth0").is_ok());
        assert!(netlink.routes().await?.len() > 4000);
        Ok(())
    });
}
