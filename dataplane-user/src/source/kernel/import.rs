//! Routes that another daemon (BIRD, FRR, flannel) put into the kernel, taken over.

use std::collections::BTreeMap;

use dataplane_common::reason::Reason;
use ipnet::Ipv4Net;

use super::{MAIN, Mirror, Policy, Wanted, is_ours};
use crate::kernel::netlink::{Route, RouteKind};

/// Which routes are taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The table that they are in.
    pub table: u32,
    /// Whose they are (`rtm_protocol`); `None` for everybody's but the kernel's and our own.
    pub protocols: Option<Vec<u8>>,
    /// Where their destinations lie; anywhere where this is empty.
    pub pools: Vec<Ipv4Net>,
}

/// What became of the routes to be taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Routes that the data path carries.
    pub carried: usize,
    /// The others, by cause: how many, and the first.
    pub left: BTreeMap<Cause, (usize, Ipv4Net)>,
}

/// Why a route to be taken over stays the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It has several next hops.
    Multipath,
    /// It encapsulates.
    Encapsulation,
    /// Its next hop is an IPv6 address (RFC 8950, BGP unnumbered).
    Ipv6NextHop,
    /// It holds for one TOS only.
    Tos,
    /// It leads elsewhere than by an uplink that carries.
    NotByUplink,
    /// It answers with an error (`unreachable`, `prohibit`), or is of another kind that the kernel acts on.
    Kind,
}

impl Cause {
    /// The cause in `--json` output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multipath => "multipath",
            Self::Encapsulation => "encapsulation",
            Self::Ipv6NextHop => "ipv6-next-hop",
            Self::Tos => "tos",
            Self::NotByUplink => "not-by-uplink",
            Self::Kind => "kind",
        }
    }

    /// The cause in a sentence about the route.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Multipath => "it has several next hops",
            Self::Encapsulation => "it encapsulates",
            Self::Ipv6NextHop => "its next hop is an IPv6 address",
            Self::Tos => "it holds for one TOS only",
            Self::NotByUplink => "it does not lead by an uplink that is up",
            Self::Kind => "it is of a type that the kernel acts on",
        }
    }

    fn of(route: &Route) -> Self {
        match route {
            _ if route.tos != 0 => Self::Tos,
            _ if route.kind != RouteKind::Unicast => Self::Kind,
            _ if route.multipath => Self::Multipath,
            _ if route.via_ipv6 => Self::Ipv6NextHop,
            _ if route.encap => Self::Encapsulation,
            _ => Self::NotByUplink,
        }
    }
}

impl Import {
    /// The default route is nobody's block.
    fn covers(&self, prefix: Ipv4Net) -> bool {
        let in_pools = self.pools.is_empty() || self.pools.iter().any(|pool| pool.contains(&prefix));
        prefix.prefix_len() != 0 && in_pools
    }

    fn takes(&self, protocol: u8) -> bool {
        match &self.protocols {
            Some(protocols) => protocols.contains(&protocol),
            None => protocol != libc::RTPROT_KERNEL,
        }
    }
}

impl Mirror {
    /// What the route to be taken over for that prefix asks for; `None` where there is none.
    ///
    /// It is the one that the kernel would use: where the best route is not one to be taken over, a worse one
    /// is not either.
    pub(super) fn imported(&self, prefix: Ipv4Net, import: &Import, policy: &Policy) -> Option<Wanted> {
        if !import.covers(prefix) {
            return None;
        }
        let best = self.routes.of(import.table, prefix).find(|route| !is_ours(route))?;
        if !import.takes(best.protocol) {
            return None;
        }
        if best.kind == RouteKind::Blackhole && best.tos == 0 {
            return Some(Wanted::Block);
        }
        Some(Self::next_hop(best, policy).unwrap_or(Wanted::Kernel(Reason::KernelRoute)))
    }

    /// Why the data path does not carry the node's default route; `None` where it does, or there is none.
    pub fn default_obstacle(&self, policy: &Policy) -> Option<Cause> {
        let best = self.routes.of(MAIN, Ipv4Net::default()).find(|route| !is_ours(route))?;
        Self::next_hop(best, policy).is_none().then(|| Cause::of(best))
    }

    /// What became of every route to be taken over; those of endpoints are carried as such, and not counted.
    pub fn import_account(&self, policy: &Policy) -> Account {
        let mut account = Account::default();
        let Some(import) = &policy.import else { return account };
        for routes in self.routes.by_destination(import.table) {
            let Some(best) = routes.into_iter().find(|route| !is_ours(route)) else { continue };
            match self.imported(best.destination, import, policy) {
                None => {}
                _ if policy.is_endpoint(best.destination) => {}
                Some(Wanted::Kernel(_)) => {
                    account.left.entry(Cause::of(best)).or_insert((0, best.destination)).0 += 1;
                }
                Some(_) => account.carried += 1,
            }
        }
        account
    }
}
