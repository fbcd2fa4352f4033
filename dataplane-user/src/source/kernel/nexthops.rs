//! Routes that refer to nexthop objects, as FRR writes them, and change with these.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::{Effect, Mirror};
use crate::kernel::netlink::{NextHop, NextHopTarget, Route, RouteKind};

/// The nexthop objects of the node's namespace.
///
/// With the kernel's default (`net.ipv4.nexthop_compat_mode`) routes also say themselves where they lead, and without it
/// they do not; so they are always asked here. One that went because its link did is still held: the kernel does not tell
/// of it, and has no routes any more that refer to it.
#[derive(Clone, Debug, Default)]
pub(super) struct NextHops(BTreeMap<u32, NextHopTarget>);

impl NextHops {
    /// Whether that changed anything.
    pub(super) fn put(&mut self, nexthop: NextHop) -> bool {
        let changed = self.0.get(&nexthop.id) != Some(&nexthop.target);
        self.0.insert(nexthop.id, nexthop.target);
        changed
    }

    /// The object, and the groups that it is in.
    fn concerned(&self, id: u32) -> Vec<u32> {
        let holds = |target: &NextHopTarget| matches!(target, NextHopTarget::Group(ids) if ids.contains(&id));
        let groups = self.0.iter().filter(|(_, target)| holds(target)).map(|(group, _)| *group);
        groups.chain([id]).collect()
    }

    /// Has a route lead where its object does.
    pub(super) fn resolve(&self, route: &mut Route) {
        let Some((id, target)) = route.nexthop.and_then(|id| self.0.get_key_value(&id)) else { return };
        let members = match target {
            NextHopTarget::Group(members) => &**members,
            _ => &[*id],
        };
        let members: Vec<_> = members.iter().filter_map(|member| self.0.get(member)).collect();
        let oif = |target: &NextHopTarget| match target {
            NextHopTarget::Single { oif, .. } => *oif,
            _ => None,
        };
        (route.gateway, route.oif, route.encap, route.via_ipv6) = (None, None, false, false);
        route.multipath = members.len() > 1;
        route.multipath_oifs = Box::default();
        let mut kind = RouteKind::Unicast;
        match *members.as_slice() {
            [&NextHopTarget::Single { gateway, oif, encap, via_ipv6 }] => {
                (route.gateway, route.oif) = (gateway, oif);
                (route.encap, route.via_ipv6) = (encap, via_ipv6);
            }
            [NextHopTarget::Blackhole] => kind = RouteKind::Blackhole,
            ref several => route.multipath_oifs = several.iter().filter_map(|target| oif(target)).collect(),
        }
        if matches!(route.kind, RouteKind::Unicast | RouteKind::Blackhole) {
            route.kind = kind;
        }
    }
}

impl Mirror {
    /// The kernel tells of the object, and with its default of each route as well; that is none to be waited for.
    pub(super) fn put_nexthop(&mut self, nexthop: NextHop) -> Effect {
        let id = nexthop.id;
        if !self.nexthops.put(nexthop) {
            return Effect::Unchanged;
        }
        let Self { nexthops, routes, .. } = self;
        let changed = routes.change_by_nexthop(&nexthops.concerned(id), |route| nexthops.resolve(route));
        self.touch(changed)
    }

    /// The routes that refer to it go with it, and the kernel does not tell of them (`__remove_nexthop_fib()` in
    /// net/ipv4/nexthop.c). Of each group that it was in it does.
    pub(super) fn remove_nexthop(&mut self, id: u32) -> Effect {
        self.nexthops.0.remove(&id);
        let gone = self.routes.remove_by_nexthop(id);
        self.touch(gone)
    }

    fn touch(&mut self, prefixes: Vec<Ipv4Net>) -> Effect {
        let effect = Effect::changed(!prefixes.is_empty());
        self.touched.extend(prefixes);
        effect
    }
}
