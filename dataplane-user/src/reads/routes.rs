//! `dataplane route list`, `route get` and `endpoint list`.

use std::{collections::HashMap, net::Ipv4Addr, ops::ControlFlow};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use dataplane_common::{
    endpoint::Endpoint,
    names::{MAP_ENDPOINTS, MAP_NEXT_HOPS},
    net::Ipv4Be,
    next_hop::NextHop,
    route::Target,
};
use ipnet::Ipv4Net;

use super::{
    output::Output,
    sources::{self, Sources},
};
use crate::{
    commands,
    control::{Request, answers, client::Client},
    kernel::{
        interface,
        pinned::{Pinned, Value},
        table::{View, Windows},
    },
    rib::Source,
    show,
    wanted::Destination,
};

/// What an index in the route table stands for.
pub(super) struct Slots {
    endpoints: Array<MapData, Value<Endpoint>>,
    next_hops: Array<MapData, Value<NextHop>>,
    /// Of these there are few, and each is asked for by many routes.
    known: HashMap<u32, NextHop>,
    names: HashMap<u32, String>,
}

impl Slots {
    pub(super) fn open(pinned: &Pinned) -> Result<Self> {
        Ok(Self {
            endpoints: pinned.open(MAP_ENDPOINTS)?,
            next_hops: pinned.open(MAP_NEXT_HOPS)?,
            known: HashMap::new(),
            names: HashMap::new(),
        })
    }

    pub(super) fn resolve(&mut self, target: Target) -> Option<Destination> {
        Some(match target {
            Target::Endpoint(index) => Destination::Endpoint(self.endpoints.get(&index, 0).ok()?.0),
            Target::NextHop(index) => {
                if !self.known.contains_key(&index) {
                    self.known.insert(index, self.next_hops.get(&index, 0).ok()?.0);
                }
                Destination::NextHop(*self.known.get(&index)?)
            }
            Target::Block => Destination::Block,
            Target::Kernel(reason) => Destination::Kernel(reason),
        })
    }

    fn interface(&mut self, ifindex: u32) -> String {
        self.names.entry(ifindex).or_insert_with(|| interface::name(ifindex)).clone()
    }

    fn route(&mut self, prefix: Ipv4Net, target: Target, source: Option<Source>) -> Option<answers::Route> {
        let destination = self.resolve(target)?;
        Some(answers::Route::new(prefix, &destination, source, &mut |ifindex| self.interface(ifindex)))
    }
}

/// By interface, the address that SNAT takes for packets that leave by it where no rule names one: that of its least specific
/// route, as the programs find it there.
pub(super) fn snat_addresses(pinned: &Pinned) -> Result<HashMap<u32, Ipv4Addr>> {
    let (mut view, mut slots) = (View::new(Windows::open(pinned)?), Slots::open(pinned)?);
    let mut found: HashMap<u32, (u8, Ipv4Addr)> = HashMap::new();
    view.routes(|prefix, target| {
        if let Target::NextHop(_) = target
            && let Some(Destination::NextHop(next_hop)) = slots.resolve(target)
            && next_hop.source != Ipv4Be::UNSPECIFIED
        {
            let candidate = (prefix.prefix_len(), next_hop.source.into());
            let least = found.entry(next_hop.ifindex).or_insert(candidate);
            *least = candidate.min(*least);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found.into_iter().map(|(ifindex, (_, address))| (ifindex, address)).collect())
}

/// Prints every route in the data path.
///
/// # Errors
///
/// Where no data path of this version is pinned, or its tables cannot be read.
pub fn route_list(client: &Client, json: bool) -> Result<()> {
    let pinned = super::pinned(client)?;
    let (mut view, mut slots) = (View::new(Windows::open(&pinned)?), Slots::open(&pinned)?);
    let mut sources = Sources::ask(client);
    let mut output = Output::start(json, show::ROUTES)?;
    view.routes(|prefix, target| {
        let source = sources.of(prefix);
        match slots.route(prefix, target, source) {
            Some(route) => output.entry(&route, show::route),
            None => Ok(ControlFlow::Continue(())),
        }
    })?;
    output.end()?;
    sources.report();
    Ok(())
}

/// Prints the route that packets to an address take, and what else was offered for its prefix.
///
/// # Errors
///
/// As [`route_list`].
pub fn route_get(client: &Client, json: bool, address: Ipv4Addr) -> Result<()> {
    let pinned = super::pinned(client)?;
    let found = View::new(Windows::open(&pinned)?).lookup(address)?;
    let mut answer = answers::RouteGet { address, route: None, other_offers: Vec::new() };
    if let Some((prefix, target)) = found {
        let offers = client.ask::<answers::Offers>(&Request::Offers { prefix });
        let mut slots = Slots::open(&pinned)?;
        let route = slots.route(prefix, target, None);
        let mut route = route.context("the table changed while it was read: try again")?;
        match offers {
            Ok(answers::Offers { source, others }) => (route.source, answer.other_offers) = (source, others),
            Err(error) => sources::missing(&error),
        }
        answer.route = Some(route);
    }
    commands::print(json, &answer, show::route_get)
}

/// Prints the containers of this node.
///
/// # Errors
///
/// As [`route_list`].
pub fn endpoint_list(client: &Client, json: bool) -> Result<()> {
    let pinned = super::pinned(client)?;
    let (mut view, mut slots) = (View::new(Windows::open(&pinned)?), Slots::open(&pinned)?);
    let mut sources = Sources::ask(client);
    let mut output = Output::start(json, show::ENDPOINTS)?;
    view.routes(|prefix, target| {
        let Target::Endpoint(_) = target else { return Ok(ControlFlow::Continue(())) };
        let source = sources.of(prefix);
        match slots.resolve(target) {
            // A slot that was given to another container meanwhile is left out.
            Some(Destination::Endpoint(endpoint)) if Ipv4Addr::from(endpoint.address) == prefix.addr() => {
                let interface = slots.interface(endpoint.ifindex);
                output.entry(&answers::Endpoint::new(&endpoint, interface, source), show::endpoint)
            }
            _ => Ok(ControlFlow::Continue(())),
        }
    })?;
    output.end()?;
    sources.report();
    Ok(())
}
