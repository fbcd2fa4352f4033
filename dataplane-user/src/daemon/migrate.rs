//! The tables that an earlier run left: used as they are, or read into new ones.

use anyhow::Result;
use aya::Ebpf;
use dataplane_common::flow::settings::words_of_records;
use tracing::{info, warn};

use super::Daemon;
use crate::{
    config::Config,
    datapath::{Claim, Datapath},
    kernel::{
        nat::Nat,
        object::{self, Purpose, Sizes},
        pins::Pins,
        previous::Previous,
        uplinks::Uplinks,
    },
};

/// The loaded programs and their tables.
pub(super) struct Tables {
    pub(super) object: Ebpf,
    pub(super) datapath: Datapath,
    pub(super) nat: Nat,
    pub(super) uplinks: Uplinks,
    /// The tables whose place these are to take.
    pub(super) previous: Option<Previous>,
}

impl Tables {
    /// Those that are pinned, if they can be used; else new ones, with the routes of those.
    pub(super) fn open(pins: &Pins, config: &Config) -> Result<Self> {
        let previous = pins.previous(sizes(config))?;
        let mut tables = match Self::load(pins, config)? {
            (object, Ok(tables)) => tables(object),
            (object, Err(error)) => {
                warn!("the pinned tables cannot be used and are rebuilt: {error:#}");
                drop(object);
                pins.discard_maps()?;
                let (object, tables) = Self::load(pins, config)?;
                tables?(object)
            }
        };
        let previous = previous.map(|(pins, version)| Previous::open(pins, version));
        if let Some(seed) = previous.as_ref().map(Previous::seed).transpose()?.flatten() {
            tables.nat.set_seed(seed)?;
        }
        tables.nat.configure(&config.limits())?;
        tables.nat.set_respect(config.respects());
        if let Some(previous) = &previous {
            tables.take_routes(previous);
        }
        Ok(Self { previous, ..tables })
    }

    /// The object, and what makes the rest of it.
    fn load(pins: &Pins, config: &Config) -> Result<(Ebpf, Result<impl FnOnce(Ebpf) -> Self>)> {
        let mut object = object::load(&pins.maps(), sizes(config), Purpose::Attach)?;
        let datapath = Datapath::open(&mut object, &pins.slabs(), config.datapath.max_routes);
        let rest = datapath
            .and_then(|datapath| Ok((datapath, Nat::open(&mut object)?, Uplinks::open(&mut object)?)));
        let tables = rest.map(|(datapath, nat, uplinks)| {
            move |object| Self { object, datapath, nat, uplinks, previous: None }
        });
        Ok((object, tables))
    }

    /// What was learned from peers is not known anew for a while.
    fn take_routes(&mut self, previous: &Previous) {
        let routes = match previous.routes() {
            Ok(routes) => routes,
            Err(error) => {
                return warn!("the routes of the daemon before this one cannot be read: {error:#}");
            }
        };
        for (prefix, destination) in routes {
            if let Err(error) = self.datapath.set(prefix, Some(destination), Claim::Own) {
                return warn!("not every route of the daemon before this one has room: {error:#}");
            }
        }
    }
}

impl Daemon {
    /// Makes our tables the ones that count, with the translations of those before: the hooks are next.
    pub(super) fn succeed(&mut self) -> Result<()> {
        let Some(mut previous) = self.previous.take() else { return Ok(()) };
        let adopted = self.nat.adopt(&mut self.object, &mut previous, || self.datapath.synchronize())?;
        self.pins.replace(previous.pins())?;
        info!(
            layout = previous.version(),
            translations = adopted.flows,
            left_out = adopted.left_out,
            "the tables of the daemon before this one were read into new ones"
        );
        previous.retire();
        Ok(())
    }
}

/// The sizes of the maps. Without rules there is no table of flows to speak of.
fn sizes(config: &Config) -> Sizes {
    let limits = config.limits();
    let max_flows = if limits.buckets == 0 { 0 } else { limits.max_flows };
    Sizes {
        endpoints: config.datapath.max_endpoints,
        buckets: limits.buckets.max(1),
        words: words_of_records(max_flows),
        respect: config.respects(),
    }
}
