//! Pools, blocks, endpoints and routes: what must contain what, and what must not overlap.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::Draft;
use super::super::prefixes::Prefixes;
use super::super::report::{Fault, Placed, Report};

/// Prefixes that the data path has on every node, whatever the file says.
pub(super) const NODE_PREFIXES: usize = 8;

pub(super) fn check(draft: &Draft, report: &mut Report<'_>) {
    let pools = disjoint("pool", &draft.network.pools, report);
    let blocks = disjoint("block", &draft.network.blocks, report);
    blocks_in_pools(draft, &pools, report);
    endpoints(draft, &blocks, report);
    routes(draft, &blocks, report);
    limits(draft, report);
}

/// Reports those of a list that overlap an earlier one.
fn disjoint(what: &str, list: &[Option<Placed<Ipv4Net>>], report: &mut Report<'_>) -> Prefixes {
    let mut seen = Prefixes::default();
    for Placed { value: network, at } in list.iter().flatten() {
        if let Some((other, other_at)) = seen.overlapping(*network) {
            let line = report.line(other_at);
            let fault = if other == *network {
                Fault::new(
                    format!("{what} {network} is given in line {line} already"),
                    "remove one of the two",
                )
            } else {
                Fault::new(
                    format!("{what} {network} overlaps {what} {other} of line {line}"),
                    "remove one of the two, or choose prefixes that share no address",
                )
            };
            report.error(*at, fault);
        }
        seen.insert(*network, *at);
    }
    seen
}

fn blocks_in_pools(draft: &Draft, pools: &Prefixes, report: &mut Report<'_>) {
    // Without pools a node knows its blocks only; and one that could not be read may be the one that is
    // missed.
    if pools.is_empty() || !all_read(&draft.network.pools) {
        return;
    }
    for Placed { value: block, at } in draft.network.blocks.iter().flatten() {
        if pools.containing(*block).is_none() {
            let fault = match pools.overlapping(*block) {
                Some((pool, pool_at)) => Fault::new(
                    format!("block {block} is larger than pool {pool} of line {}", report.line(pool_at)),
                    "correct one of the two",
                ),
                None => Fault::new(
                    format!("block {block} lies outside every pool"),
                    "correct it, or add a [[pool]] that contains it",
                ),
            };
            report.error(*at, fault);
        }
    }
}

fn endpoints(draft: &Draft, blocks: &Prefixes, report: &mut Report<'_>) {
    // With an import, the kernel's blackhole routes are blocks too, and are not known yet.
    let blocks_known = all_read(&draft.network.blocks) && !draft.kernel.import;
    let mut seen: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    for Placed { value: address, at } in
        draft.network.endpoints.iter().filter_map(|draft| draft.address.as_ref())
    {
        if let Some(other) = seen.get(address) {
            let message = format!("endpoint {address} is given in line {} already", report.line(*other));
            report.error(*at, Fault::new(message, "remove one of the two, or correct its address"));
            continue;
        }
        seen.insert(*address, *at);
        if blocks_known && blocks.containing((*address).into()).is_none() {
            let fault = Fault::new(
                format!("endpoint {address} lies outside every block"),
                "correct it, or add a [[block]] that contains it",
            );
            report.error(*at, fault);
        }
    }
}

fn routes(draft: &Draft, blocks: &Prefixes, report: &mut Report<'_>) {
    let mut seen = Prefixes::default();
    for route in &draft.network.routes {
        if let Some(Placed { value: to, at }) = &route.to {
            if let Some((_, other)) = seen.exact(*to) {
                let message = format!("a route to {to} is given in line {} already", report.line(other));
                report.error(*at, Fault::new(message, "remove one of the two"));
            }
            seen.insert(*to, *at);
            if let Some((block, block_at)) = blocks.overlapping(*to) {
                let line = report.line(block_at);
                let fault = Fault::new(
                    format!("the route to {to} overlaps block {block} of line {line}, this node's own"),
                    "remove one of the two: a block belongs to one node",
                );
                report.error(*at, fault);
            }
        }
        if let Some(Placed { value: via, at }) = &route.via {
            if let Some((block, block_at)) = blocks.containing((*via).into()) {
                let line = report.line(block_at);
                let fault = Fault::new(
                    format!("next hop {via} lies inside block {block} of line {line}, this node's own"),
                    "write the other node's address on the fabric",
                );
                report.error(*at, fault);
            }
            if let Some(to) = route.to.as_ref().filter(|to| to.value.contains(via)) {
                let fault = Fault::new(
                    format!("next hop {via} lies inside {}, which it is to lead to", to.value),
                    "write the other node's address on the fabric",
                );
                report.error(*at, fault);
            }
        }
    }
}

/// Reports the first section that a table has no room for.
fn limits(draft: &Draft, report: &mut Report<'_>) {
    let datapath = &draft.datapath.datapath;
    let endpoints = draft.network.endpoints.iter().map(|endpoint| endpoint.at);
    let routes = draft.network.routes.iter().map(|route| route.at);
    let lists: [(&str, u32, Vec<usize>); 2] = [
        ("max-endpoints", datapath.max_endpoints, endpoints.collect()),
        ("max-routes", datapath.max_routes, routes.collect()),
    ];
    for (key, limit, places) in lists {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if let Some(at) = places.get(limit) {
            let fault = Fault::new(
                format!("there are more of these than `{key}` of [datapath], {limit}, has room for"),
                format!("write `{key} = {}` or more", places.len()),
            );
            report.error(*at, fault);
            return;
        }
    }
    let network = &draft.network;
    let needed = NODE_PREFIXES + network.blocks.len() + network.endpoints.len() + network.routes.len();
    if let Some(Placed { value, at }) = &draft.datapath.max_routes
        && usize::try_from(*value).is_ok_and(|limit| limit < needed)
    {
        let fault = Fault::new(
            format!(
                "{value} routes are fewer than this file needs with the {NODE_PREFIXES} that every node has (loopback, \
                 multicast, …)"
            ),
            format!(
                "write `max-routes = {needed}` or more: routes of the kernel and of peers need room, too"
            ),
        );
        report.error(*at, fault);
    }
}

fn all_read<T>(list: &[Option<T>]) -> bool {
    list.iter().all(Option::is_some)
}
