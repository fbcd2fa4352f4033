//! The routes that the daemon writes.

use std::net::Ipv4Addr;

use anyhow::Context;
use dataplane::kernel::netlink::{Added, Netlink, OwnRoute, OwnTarget, Present};
use dataplane_common::names::{ROUTE_METRIC, ROUTE_PROTOCOL};

use crate::{
    by_name,
    harness::{ip, on_a_node},
    make_uplink, net,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 141, 0, 2);

#[test]
fn our_routes_are_written_beside_those_of_others() {
    on_a_node(async || {
        make_uplink();
        let (netlink, _events) = Netlink::connect()?;
        let oif = by_name(&netlink.links().await?, "eth0")?.index;
        let own = |destination: &str, target| OwnRoute {
            destination: net(destination),
            target,
            metric: ROUTE_METRIC,
        };
        let via = own("172.19.36.0/24", OwnTarget::Via { gateway: GATEWAY, oif });
        let device = own("172.19.35.2/32", OwnTarget::Device { oif });
        let blackhole = own("172.19.35.0/24", OwnTarget::Blackhole);

        for route in [via, device, blackhole] {
            assert_eq!(netlink.add_route(&route, None).await?, Added::Added, "{route}");
            let known = Some(Present::Own(route));
            assert_eq!(netlink.add_route(&route, known).await?, Added::AlreadyThere, "{route}");
            assert!(netlink.routes().await?.iter().any(|present| route.is(present)), "{route}");
        }
        let metric = format!(" metric {ROUTE_METRIC}");
        let main = |prefix: &str| ip(&format!("route show exact {prefix}")).trim_end().replace(&metric, "");
        assert_eq!(
            main("172.19.36.0/24"),
            format!("via 10.141.0.2 dev eth0 proto {ROUTE_PROTOCOL}").replace("via", "172.19.36.0/24 via")
        );
        assert_eq!(main("172.19.35.2/32"), format!("172.19.35.2 dev eth0 proto {ROUTE_PROTOCOL} scope link"));
        assert_eq!(main("172.19.35.0/24"), format!("blackhole 172.19.35.0/24 proto {ROUTE_PROTOCOL}"));

        // Another gateway, then another kind altogether: ours, so replaced.
        let other = own("172.19.36.0/24", OwnTarget::Via { gateway: Ipv4Addr::new(10, 141, 0, 3), oif });
        assert_eq!(netlink.add_route(&other, None).await?, Added::Added);
        assert_eq!(
            main("172.19.36.0/24"),
            format!("172.19.36.0/24 via 10.141.0.3 dev eth0 proto {ROUTE_PROTOCOL}")
        );
        let none = own("172.19.36.0/24", OwnTarget::Blackhole);
        assert_eq!(netlink.add_route(&none, None).await?, Added::Added);
        assert_eq!(main("172.19.36.0/24"), format!("blackhole 172.19.36.0/24 proto {ROUTE_PROTOCOL}"));

        // Theirs: left alone, also where it is the same but for the protocol, or a longer prefix hides it.
        ip(&format!("route add 172.19.37.0/24 via 10.141.0.2 dev eth0 proto bird metric {ROUTE_METRIC}"));
        ip("route add 172.19.37.0/32 via 10.141.0.4 dev eth0 proto static");
        ip(&format!("route add blackhole 172.19.38.0/24 proto 80 metric {ROUTE_METRIC}"));
        let taken = own("172.19.37.0/24", OwnTarget::Via { gateway: GATEWAY, oif });
        let foreign = |protocol| Some(Present::Foreign { protocol });
        assert_eq!(netlink.add_route(&taken, foreign(12)).await?, Added::TakenBy { protocol: 12 });
        let blackhole_taken = own("172.19.38.0/24", OwnTarget::Blackhole);
        let added = netlink.add_route(&blackhole_taken, foreign(80)).await?;
        assert_eq!(added, Added::TakenBy { protocol: 80 });
        netlink.delete_route(&taken).await?;
        netlink.delete_route(&blackhole_taken).await?;
        assert_eq!(main("172.19.37.0/24"), "172.19.37.0/24 via 10.141.0.2 dev eth0 proto bird");
        assert_eq!(main("172.19.38.0/24"), "blackhole 172.19.38.0/24 proto 80");

        // With another metric there is room for both, and only ours is deleted.
        ip("route add 172.19.39.0/24 via 10.141.0.2 dev eth0 proto bird metric 32");
        let beside = own("172.19.39.0/24", OwnTarget::Via { gateway: GATEWAY, oif });
        assert_eq!(netlink.add_route(&beside, None).await?, Added::Added);
        for route in [beside, none, device, blackhole] {
            netlink.delete_route(&route).await.with_context(|| format!("{route}"))?;
            netlink.delete_route(&route).await.with_context(|| format!("{route}, again"))?;
        }
        assert_eq!(main("172.19.39.0/24"), "172.19.39.0/24 via 10.141.0.2 dev eth0 proto bird metric 32");
        assert_eq!(ip(&format!("route show proto {ROUTE_PROTOCOL}")), "");

        let unreachable = own("172.19.40.0/24", OwnTarget::Via { gateway: Ipv4Addr::new(192, 0, 2, 1), oif });
        let error = format!("{:#}", netlink.add_route(&unreachable, None).await.unwrap_err());
        assert!(error.contains("172.19.40.0/24 via 192.0.2.1"), "{error}");
        assert!(error.contains("invalid gateway"), "the kernel's own words are missing: {error}");
        Ok(())
    });
}
