//! `kernel::netlink` and the mirror against the running kernel. Needs root and iproute2.

#[path = "netlink/harness.rs"]
mod harness;

use std::{
    collections::BTreeSet,
    future::Future,
    net::Ipv4Addr,
    pin::pin,
    task::{Context as TaskContext, Waker},
};

use anyhow::{Context, Result};
use dataplane::{
    kernel::netlink::{
        Added, Address, Event, Events, Link, Netlink, OwnRoute, OwnTarget, Peer, Place, Route, RouteKind,
    },
    source::kernel::{Effect, Mirror},
};
use dataplane_common::{names::ROUTE_PROTOCOL, net::MacAddr};
use harness::{Container, await_event, ip, ip_batch, on_a_node};
use ipnet::Ipv4Net;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 141, 0, 2);

/// An uplink `eth0` with an address, its other end in the same namespace.
fn make_uplink() {
    ip("link add eth0 mtu 1450 type veth peer name fabric0");
    ip("link set fabric0 up");
    ip("link set eth0 up");
    ip("addr add 10.141.0.1/16 broadcast 10.141.255.255 dev eth0");
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn by_name(links: &[Link], name: &str) -> Result<Link> {
    links.iter().find(|link| link.name == name).cloned().with_context(|| format!("no link {name}"))
}

/// A route that was added with `ip route add PREFIX dev OIF` alone.
fn plain(destination: &str, oif: u32) -> Route {
    Route {
        destination: net(destination),
        table: 254,
        kind: RouteKind::Unicast,
        protocol: libc::RTPROT_BOOT,
        scope: libc::RT_SCOPE_LINK,
        metric: 0,
        tos: 0,
        gateway: None,
        oif: Some(oif),
        source: None,
        mtu: None,
        multipath: false,
        multipath_oifs: Box::default(),
        encap: false,
    }
}

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
                gateway: Some(GATEWAY),
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
                multipath: true,
                gateway: Some(Ipv4Addr::new(10, 141, 0, 7)),
                scope: 0,
                ..plain("172.19.42.0/24", eth0)
            },
            Route { tos: 16, source: Some(Ipv4Addr::new(10, 141, 0, 1)), ..plain("172.19.43.0/24", eth0) },
            Route { table: 1000, ..plain("172.19.44.0/24", eth0) },
            Route { encap: true, scope: 0, ..plain("172.19.45.0/24", eth0) },
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
fn changes_are_told_as_they_happen() {
    on_a_node(async || {
        let (_netlink, mut events) = Netlink::connect()?;
        make_uplink();
        let eth0 = await_event(&mut events, |event| match event {
            Event::Link(link) if link.name == "eth0" && link.up => Some(link.index),
            _ => None,
        })
        .await?;
        let is = |expected: Event| move |event: &Event| (*event == expected).then_some(());

        ip("addr add 192.0.2.1/24 dev eth0");
        let address = await_event(&mut events, |event| match event {
            Event::Address(address) if address.network == net("192.0.2.1/24") => Some(address.clone()),
            _ => None,
        })
        .await?;
        ip("addr del 192.0.2.1/24 dev eth0");
        await_event(&mut events, is(Event::AddressGone(address))).await?;

        let route = plain("172.19.36.0/24", eth0);
        let blackhole = Route { kind: RouteKind::Blackhole, scope: 0, oif: None, ..route.clone() };
        ip("route add 172.19.36.0/24 dev eth0");
        await_event(&mut events, is(Event::Route(route.clone(), Place::First))).await?;
        ip("route append blackhole 172.19.36.0/24");
        await_event(&mut events, is(Event::Route(blackhole.clone(), Place::Last))).await?;
        ip("route del blackhole 172.19.36.0/24");
        await_event(&mut events, is(Event::RouteGone(blackhole.clone()))).await?;
        ip("route replace blackhole 172.19.36.0/24");
        await_event(&mut events, is(Event::Route(blackhole, Place::Replace))).await?;

        ip("rule add from 192.0.2.0/24 table 100");
        await_event(&mut events, is(Event::Rules)).await?;
        ip("link del eth0");
        await_event(&mut events, is(Event::LinkGone(eth0))).await
    });
}

#[test]
fn a_port_that_leaves_a_bridge_is_not_gone() {
    on_a_node(async || {
        make_uplink();
        let Ok(()) = ip_batch("link add br0 type bridge\n") else {
            // Without the bridge module there are no such messages either.
            eprintln!("SKIPPED: this kernel has no bridge");
            return Ok(());
        };
        ip("link set fabric0 master br0");
        let (netlink, mut events) = Netlink::connect()?;
        let fabric0 = by_name(&netlink.links().await?, "fabric0")?.index;
        ip("link set fabric0 nomaster");
        ip("link set fabric0 mtu 1400");
        await_event(&mut events, |event| {
            assert_ne!(*event, Event::LinkGone(fabric0));
            matches!(event, Event::Link(link) if link.index == fabric0 && link.mtu == 1400).then_some(())
        })
        .await
    });
}

#[test]
fn the_peer_of_a_container_is_followed() {
    on_a_node(async || {
        let container = Container::with_veth("cali1");
        let (netlink, mut events) = Netlink::connect()?;
        let peer = by_name(&netlink.links().await?, "cali1")?.peer.context("cali1 has no peer")?;

        let mac = MacAddr::new([0xee, 0xee, 0, 0, 0, 0x11]);
        container.ip(&format!("link set eth0 address {mac}"));
        let changed = Event::PeerLink { peer, mac: Some(mac), gone: false };
        await_event(&mut events, |event| (*event == changed).then_some(())).await?;
        assert_eq!(netlink.peer_mac(peer).await?, Some(mac));

        container.ip("link del eth0");
        let gone = Event::PeerLink { peer, mac: None, gone: true };
        await_event(&mut events, |event| (*event == gone).then_some(())).await?;
        assert_eq!(netlink.peer_mac(peer).await?, None);

        // A namespace that there is no number for is a namespace that is gone.
        let nowhere = Peer { netnsid: Some(4711), ..peer };
        assert_eq!(netlink.peer_mac(nowhere).await?, None);

        // A container that comes while we listen: its veth's own event gives the namespace its number.
        let later = Container::with_veth("cali2");
        let peer = await_event(&mut events, |event| match event {
            Event::Link(link) if link.name == "cali2" && link.carrier => link.peer,
            _ => None,
        })
        .await?;
        assert!(peer.netnsid.is_some(), "{peer:?}");
        later.ip(&format!("link set eth0 address {mac}"));
        let changed = Event::PeerLink { peer, mac: Some(mac), gone: false };
        await_event(&mut events, |event| (*event == changed).then_some(())).await
    });
}

#[test]
fn our_routes_are_written_beside_those_of_others() {
    on_a_node(async || {
        make_uplink();
        let (netlink, _events) = Netlink::connect()?;
        let oif = by_name(&netlink.links().await?, "eth0")?.index;
        let own = |destination: &str, target| OwnRoute { destination: net(destination), target };
        let via = own("172.19.36.0/24", OwnTarget::Via { gateway: GATEWAY, oif });
        let device = own("172.19.35.2/32", OwnTarget::Device { oif });
        let blackhole = own("172.19.35.0/24", OwnTarget::Blackhole);

        for route in [via, device, blackhole] {
            assert_eq!(netlink.add_route(&route).await?, Added::Added, "{route}");
            assert_eq!(netlink.add_route(&route).await?, Added::AlreadyThere, "{route}");
            assert!(netlink.routes().await?.iter().any(|present| route.is(present)), "{route}");
        }
        let main = |prefix: &str| ip(&format!("route show exact {prefix}")).trim_end().to_owned();
        assert_eq!(
            main("172.19.36.0/24"),
            format!("via 10.141.0.2 dev eth0 proto {ROUTE_PROTOCOL}").replace("via", "172.19.36.0/24 via")
        );
        assert_eq!(main("172.19.35.2/32"), format!("172.19.35.2 dev eth0 proto {ROUTE_PROTOCOL} scope link"));
        assert_eq!(main("172.19.35.0/24"), format!("blackhole 172.19.35.0/24 proto {ROUTE_PROTOCOL}"));

        // Another gateway, then another kind altogether: ours, so replaced.
        let other = own("172.19.36.0/24", OwnTarget::Via { gateway: Ipv4Addr::new(10, 141, 0, 3), oif });
        assert_eq!(netlink.add_route(&other).await?, Added::Added);
        assert_eq!(
            main("172.19.36.0/24"),
            format!("172.19.36.0/24 via 10.141.0.3 dev eth0 proto {ROUTE_PROTOCOL}")
        );
        let none = own("172.19.36.0/24", OwnTarget::Blackhole);
        assert_eq!(netlink.add_route(&none).await?, Added::Added);
        assert_eq!(main("172.19.36.0/24"), format!("blackhole 172.19.36.0/24 proto {ROUTE_PROTOCOL}"));

        // Theirs: left alone, also where it is the same but for the protocol, or a longer prefix hides it.
        ip("route add 172.19.37.0/24 via 10.141.0.2 dev eth0 proto bird");
        ip("route add 172.19.37.0/32 via 10.141.0.4 dev eth0 proto static");
        ip("route add blackhole 172.19.38.0/24 proto 80");
        let taken = own("172.19.37.0/24", OwnTarget::Via { gateway: GATEWAY, oif });
        assert_eq!(netlink.add_route(&taken).await?, Added::TakenBy { protocol: 12 });
        let blackhole_taken = own("172.19.38.0/24", OwnTarget::Blackhole);
        assert_eq!(netlink.add_route(&blackhole_taken).await?, Added::TakenBy { protocol: 80 });
        netlink.delete_route(&taken).await?;
        netlink.delete_route(&blackhole_taken).await?;
        assert_eq!(main("172.19.37.0/24"), "172.19.37.0/24 via 10.141.0.2 dev eth0 proto bird");
        assert_eq!(main("172.19.38.0/24"), "blackhole 172.19.38.0/24 proto 80");

        // With another metric there is room for both, and only ours is deleted.
        ip("route add 172.19.39.0/24 via 10.141.0.2 dev eth0 proto bird metric 32");
        let beside = own("172.19.39.0/24", OwnTarget::Via { gateway: GATEWAY, oif });
        assert_eq!(netlink.add_route(&beside).await?, Added::Added);
        for route in [beside, none, device, blackhole] {
            netlink.delete_route(&route).await.with_context(|| format!("{route}"))?;
            netlink.delete_route(&route).await.with_context(|| format!("{route}, again"))?;
        }
        assert_eq!(main("172.19.39.0/24"), "172.19.39.0/24 via 10.141.0.2 dev eth0 proto bird metric 32");
        assert_eq!(ip(&format!("route show proto {ROUTE_PROTOCOL}")), "");

        let unreachable = own("172.19.40.0/24", OwnTarget::Via { gateway: Ipv4Addr::new(192, 0, 2, 1), oif });
        let error = format!("{:#}", netlink.add_route(&unreachable).await.unwrap_err());
        assert!(error.contains("172.19.40.0/24 via 192.0.2.1"), "{error}");
        assert!(error.contains("invalid gateway"), "the kernel's own words are missing: {error}");
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
fn lost_events_are_told() {
    on_a_node(async || {
        make_uplink();
        let (netlink, mut events) = Netlink::connect_with_receive_buffer(16 << 10)?;
        let routes: String = (0..4000_u32)
            .map(|number| format!("route add 172.19.{}.{}/32 dev eth0\n", number / 256, number % 256))
            .collect();
        ip_batch(&routes)?;
        await_event(&mut events, |event| (*event == Event::Overrun).then_some(())).await?;
        let listed = netlink.routes().await?;
        assert_eq!(
            listed.iter().filter(|route| route.destination.prefix_len() == 32 && route.table == 254).count(),
            4000
        );

        // Nothing from before the loss comes after it, and what is new comes again.
        ip("route add blackhole 192.0.2.0/24");
        let next = events.next().await?;
        assert!(
            matches!(&next, Event::Route(route, _) if route.destination == net("192.0.2.0/24")),
            "{next:?}"
        );
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
        // The first answer is read at once; more of them follow, so the future is dropped amidst the dump.
        let mut polls = 0;
        for _ in 0..50 {
            let mut dump = pin!(netlink.routes());
            if dump.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending() {
                polls += 1;
            }
        }
        eprintln!("{polls} dumps given up");
        assert!(by_name(&netlink.links().await?, "eth0").is_ok());
        assert!(netlink.routes().await?.len() > 4000);
        Ok(())
    });
}

async fn load(netlink: &Netlink) -> Result<Mirror> {
    Ok(Mirror::load(netlink.links().await?, netlink.addresses().await?, netlink.routes().await?))
}

/// Applies what has happened until now; `true` where the events alone did not tell everything.
async fn follow(mirror: &mut Mirror, events: &mut Events) -> Result<bool> {
    // The mark of the end: a route in a table of its own.
    ip("route replace blackhole 203.0.113.0/24 table 4000");
    let mut reload = false;
    await_event(events, |event| {
        reload |= mirror.apply(event.clone()) == Effect::Reload;
        matches!(event, Event::Route(route, _) if route.table == 4000).then_some(())
    })
    .await?;
    ip("route del blackhole 203.0.113.0/24 table 4000");
    await_event(events, |event| {
        reload |= mirror.apply(event.clone()) == Effect::Reload;
        matches!(event, Event::RouteGone(route) if route.table == 4000).then_some(())
    })
    .await?;
    Ok(reload)
}

#[test]
fn the_mirror_follows_the_kernel() {
    on_a_node(async || {
        make_uplink();
        let container = Container::with_veth("cali1");
        let (netlink, mut events) = Netlink::connect()?;
        let mut mirror = load(&netlink).await?;
        let uplink = by_name(&netlink.links().await?, "eth0")?.index;
        for (step, may_reload) in [
            ("route add default via 10.141.0.254 dev eth0", false),
            ("route add 172.19.35.2 dev cali1 scope link", false),
            ("route add default via 10.141.0.253 dev eth0 metric 5", false),
            ("route replace default via 10.141.0.252 dev eth0", false),
            ("route append default via 10.141.0.251 dev eth0", false),
            ("route prepend default via 10.141.0.250 dev eth0", false),
            ("route replace default via 10.141.0.249 dev eth0", false),
            ("route del default via 10.141.0.251 dev eth0", false),
            ("route change default via 10.141.0.248 dev eth0", false),
            ("addr add 192.0.2.1/24 dev eth0", false),
            ("addr add 192.0.2.2/24 dev eth0", false),
            ("route add 198.51.100.0/24 dev eth0 src 192.0.2.2", false),
            ("addr del 192.0.2.2/24 dev eth0", true),
            ("link set eth0 mtu 1400", false),
            ("link set fabric0 down", false),
            ("link set fabric0 up", false),
            ("route add 172.19.41.0/24 nexthop via 10.141.0.2 dev eth0 nexthop dev fabric0", false),
            ("link set eth0 down", false),
            ("link set eth0 up", false),
            ("route add default via 10.141.0.254 dev eth0 mtu 1300", false),
            ("addr flush dev eth0", true),
            ("addr add 10.141.0.1/16 dev eth0", false),
            ("link set cali1 down", false),
            ("link set cali1 up", false),
            ("route add 172.19.35.2 dev cali1 scope link", false),
            ("link set cali1 name cali9", false),
            ("link del cali9", false),
            ("link del eth0", true),
        ] {
            ip(step);
            let reload = follow(&mut mirror, &mut events).await?;
            assert!(!reload || may_reload, "{step}: lists everything anew");
            let fresh = load(&netlink).await?;
            if reload {
                mirror = fresh.clone();
            }
            let endpoints: BTreeSet<_> = fresh.discovered("cali").into_iter().collect();
            assert_eq!(mirror.links().collect::<Vec<_>>(), fresh.links().collect::<Vec<_>>(), "{step}");
            assert_eq!(mirror.discovered("cali"), fresh.discovered("cali"), "{step}");
            assert_eq!(mirror.default_uplinks(), fresh.default_uplinks(), "{step}");
            let (held, there) = (mirror.wanted(&[uplink], &endpoints), fresh.wanted(&[uplink], &endpoints));
            assert_eq!(held, there, "{step}");
        }
        drop(container);
        Ok(())
    });
}
