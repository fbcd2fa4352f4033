//! The mirror, beside the kernel that it mirrors.

use std::{fmt::Debug, fs};

use anyhow::Result;
use dataplane::{
    kernel::netlink::{Event, Events, Netlink},
    source::kernel::{Effect, Import, Mirror, Policy},
};

use crate::{
    by_name,
    harness::{Container, await_event, ip, on_a_node},
    make_uplink,
};

async fn load(netlink: &Netlink) -> Result<Mirror> {
    let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
    Ok(Mirror::load(links, addresses, netlink.nexthops().await?, netlink.routes().await?))
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

/// All that a mirror answers.
fn view(mirror: &Mirror, uplink: u32) -> impl PartialEq + Debug + use<> {
    let discovered = mirror.discovered("cali");
    let policy = Policy {
        uplinks: mirror.link(uplink).cloned().into_iter().collect(),
        endpoints: discovered.iter().copied().collect(),
        egress: true,
        translates: false,
        import: Some(Import { table: 254, protocols: None, pools: Vec::new() }),
        shadows: mirror.shadows(),
    };
    let wanted = (mirror.host(), mirror.wanted(&policy));
    (mirror.links().cloned().collect::<Vec<_>>(), discovered, mirror.default_uplinks(), wanted)
}

#[test]
fn the_mirror_follows_the_kernel() {
    follows(
        None,
        &[
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
            // Before Linux 6.2 only an interface that is down can be renamed.
            ("link set cali1 name cali9", false),
            ("link set cali9 up", false),
            ("route add 172.19.35.2 dev cali9 scope link", false),
            ("link del cali9", false),
            ("link del eth0", true),
        ],
    );
}

#[test]
fn the_mirror_follows_nexthop_objects() {
    // Whether routes that refer to one say themselves, too, where they lead; the kernel's default is that they do.
    for compatible in ["1", "0"] {
        follows(
            Some(compatible),
            &[
                ("nexthop add id 1 via 10.141.0.2 dev eth0", false),
                ("route add 172.19.36.0/24 nhid 1", false),
                ("nexthop replace id 1 via 10.141.0.3 dev eth0", false),
                ("nexthop add id 2 via 10.141.0.4 dev eth0", false),
                // Behind another route, which it does not take the place of when its object changes.
                ("route append 172.19.36.0/24 nhid 2", false),
                ("nexthop replace id 2 via 10.141.0.5 dev eth0", false),
                ("route del 172.19.36.0/24 nhid 1", false),
                ("nexthop add id 10 group 1/2", false),
                ("route add 172.19.40.0/24 nhid 10", false),
                ("route add 172.19.41.0/24 via 10.141.0.9 dev eth0", false),
                ("route replace 172.19.41.0/24 nhid 10", false),
                ("nexthop replace id 10 group 1", false),
                ("nexthop replace id 1 via 10.141.0.6 dev eth0", false),
                ("nexthop replace id 10 group 1/2", false),
                ("nexthop del id 1", false),
                ("nexthop add id 3 blackhole", false),
                ("route add 172.19.42.0/24 nhid 3", false),
                ("nexthop replace id 3 dev eth0", false),
                ("nexthop add id 4 dev cali1", false),
                ("route add 172.19.35.2 nhid 4 scope link", false),
                ("nexthop del id 2", false),
                ("route add 172.19.43.0/24 via 10.141.0.2 dev eth0", false),
                // With the carrier of eth0 go the routes by objects, and no others.
                ("link set fabric0 down", true),
                ("link set fabric0 up", false),
                ("nexthop add id 5 via 10.141.0.2 dev eth0", false),
                ("route add 172.19.44.0/24 nhid 5", false),
                ("link set eth0 down", false),
                ("link set eth0 up", false),
                ("link del cali1", false),
                ("link del eth0", true),
            ],
        );
    }
}

/// Sees that the mirror is what the kernel says after each step; `true` beside one after which it may list everything anew.
fn follows(compatible: Option<&'static str>, steps: &'static [(&'static str, bool)]) {
    on_a_node(async move || {
        if let Some(compatible) = compatible {
            fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", compatible)?;
        }
        make_uplink();
        let container = Container::with_veth("cali1");
        let (netlink, mut events) = Netlink::connect()?;
        let mut mirror = load(&netlink).await?;
        let uplink = by_name(&netlink.links().await?, "eth0")?.index;
        for &(step, may_reload) in steps {
            ip(step);
            let reload = follow(&mut mirror, &mut events).await?;
            assert!(!reload || may_reload, "{step}: lists everything anew");
            if reload {
                mirror = load(&netlink).await?;
            }
            // A carrier comes and goes by itself, some time after the step: its event is awaited.
            loop {
                let fresh = load(&netlink).await?;
                let (held, there) = (view(&mirror, uplink), view(&fresh, uplink));
                if held == there {
                    break;
                }
                eprintln!(
                    "{step}: the mirror has {held:?}\nand the kernel {there:?}; there must be an event to come"
                );
                let event = await_event(&mut events, |event| Some(event.clone())).await?;
                if mirror.apply(event) == Effect::Reload {
                    assert!(may_reload, "{step}: lists everything anew");
                    mirror = load(&netlink).await?;
                }
            }
        }
        drop(container);
        Ok(())
    });
}
