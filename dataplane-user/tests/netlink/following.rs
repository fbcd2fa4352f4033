//! What changes, as it is told.

use anyhow::Context;
use dataplane::kernel::netlink::{Event, Netlink, Peer, Place, Route, RouteKind};
use dataplane_common::net::MacAddr;

use crate::{
    by_name,
    harness::{Container, await_event, ip, ip_batch, on_a_node},
    make_uplink, net, plain,
};

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
        let stale = |route: &Route| net("172.19.0.0/16").contains(&route.destination);
        await_event(&mut events, |event| match event {
            Event::Route(route, _) if stale(route) => panic!("older than the loss: {route:?}"),
            Event::Route(route, _) => (route.destination == net("192.0.2.0/24")).then_some(()),
            _ => None,
        })
        .await
    });
}
