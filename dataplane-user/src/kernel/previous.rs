//! What the daemon before this one left in tables that this one cannot use as they are: of an older layout, or of other
//! sizes. Their programs go on forwarding with them until ours take their place.

mod layout2;
mod layout4;
mod routes;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use dataplane_common::{
    atomic::Word64, endpoint::Endpoint, family::V4, flow::record::Known, next_hop::NextHop,
};
use ipnet::Ipv4Net;
use tracing::warn;

use super::{mapping::Mapping, pins::Pins};
use crate::wanted::Destination;
use routes::{Endpoint3, NextHop3};

/// How the flow table of a layout is read.
struct Layout {
    version: u32,
    settings_map: &'static str,
    records_map: &'static str,
    /// 64-bit words of a record.
    record_words: usize,
    /// The map of counters, where they are not in the records.
    counts_map: Option<&'static str>,
    /// Opens the settings.
    settings: fn(Map) -> Result<Box<dyn Settings>>,
    /// The first of the two words of the settings that are the secret of the hashes.
    seed: usize,
    /// The word of the settings that says how many flows a source may have.
    max_flows_per_source: usize,
    /// The flow in a record, with its counters.
    flow: fn(&[Word64], &[Word64]) -> Option<Known<V4>>,
}

/// 64-bit words of a flow's counters.
const COUNTS_WORDS: usize = 3;

/// The last layout with small slots of endpoints and next hops.
const LAST_WITH_SMALL_SLOTS: u32 = 3;

/// A map of one value of 32-bit words.
trait Settings: Send {
    fn read(&self) -> Result<Vec<u32>>;
    fn write(&mut self, words: &[u32]) -> Result<()>;
}

impl<const WORDS: usize> Settings for Array<MapData, [u32; WORDS]> {
    fn read(&self) -> Result<Vec<u32>> {
        Ok(self.get(&0, 0).context("cannot read the settings of the earlier flow table")?.to_vec())
    }

    fn write(&mut self, words: &[u32]) -> Result<()> {
        let words: [u32; WORDS] = words.try_into()?;
        self.set(0, words, 0).context("cannot write the settings of the earlier flow table")
    }
}

/// Settings of so many words.
fn settings<const WORDS: usize>(map: Map) -> Result<Box<dyn Settings>> {
    let map: Array<MapData, [u32; WORDS]> =
        map.try_into().with_context(|| format!("the map of settings is not of {WORDS} words"))?;
    Ok(Box::new(map))
}

/// Every layout that can be read.
const LAYOUTS: &[Layout] = &[layout2::LAYOUT, layout2::LAYOUT_3, layout4::LAYOUT];

/// The tables of the daemon before this one.
pub struct Previous {
    pins: Pins,
    version: u32,
    flows: Option<Flows>,
}

/// Its flow table.
struct Flows {
    layout: &'static Layout,
    records: Mapping<Word64>,
    counts: Option<Mapping<Word64>>,
    settings: Box<dyn Settings>,
    /// How many flows a source had before we let it have none.
    held: Option<u32>,
}

impl Previous {
    /// Opens those tables, of that layout. Where its flows cannot be read, it is without them, with a word why.
    pub fn open(pins: Pins, version: u32) -> Self {
        let flows = Flows::open(&pins, version);
        if let Err(error) = &flows {
            warn!("the translations of the daemon before this one cannot be read, and end: {error:#}");
        }
        Self { pins, version, flows: flows.ok() }
    }

    /// Where its maps, links and filters are pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Its layout version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its routes.
    ///
    /// # Errors
    ///
    /// Where they cannot be read, or hold what no daemon can have written.
    pub fn routes(&self) -> Result<Vec<(Ipv4Net, Destination)>> {
        if self.version <= LAST_WITH_SMALL_SLOTS {
            routes::read::<Endpoint3, NextHop3>(&self.pins)
        } else {
            routes::read::<Endpoint, NextHop>(&self.pins)
        }
    }

    /// The secret of its hashes.
    ///
    /// # Errors
    ///
    /// Where the settings cannot be read.
    pub fn seed(&self) -> Result<Option<u64>> {
        let Some(flows) = &self.flows else { return Ok(None) };
        let words = flows.settings.read()?;
        let half = |index: usize| u64::from(words[flows.layout.seed + index]);
        Ok(Some(half(0) | half(1) << 32))
    }

    /// The flows that it holds, those that have expired among them.
    pub fn flows(&self) -> impl Iterator<Item = Known<V4>> {
        self.flows.iter().flat_map(|flows| {
            let records = flows.records.values().chunks_exact(flows.layout.record_words).enumerate();
            let counts = flows.counts.as_ref().map_or(&[][..], Mapping::values);
            records.filter_map(move |(slot, record)| {
                let counts = counts.get(slot * COUNTS_WORDS..(slot + 1) * COUNTS_WORDS).unwrap_or(&[]);
                (flows.layout.flow)(record, counts)
            })
        })
    }

    /// Lets no more flows come up there; those that are there go on. It ends when this is dropped, unless
    /// [`Self::retire`] was called.
    ///
    /// # Errors
    ///
    /// Where the settings cannot be written.
    pub fn hold(&mut self) -> Result<()> {
        let Some(flows) = &mut self.flows else { return Ok(()) };
        let before = flows.allow(0)?;
        // A daemon that was killed here left it so.
        flows.held = (before != 0).then_some(before);
        Ok(())
    }

    /// Leaves it as it is: nothing of it is to be used any more.
    pub fn retire(mut self) {
        if let Some(flows) = &mut self.flows {
            flows.held = None;
        }
    }
}

impl Flows {
    fn open(pins: &Pins, version: u32) -> Result<Self> {
        let layout = LAYOUTS
            .iter()
            .find(|layout| layout.version == version)
            .with_context(|| format!("this dataplane has no reader for layout {version}"))?;
        let open = |name: &str| {
            let path = pins.maps().join(name);
            MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        let records = open(layout.records_map)?;
        let count = records.info()?.max_entries();
        let map =
            |map: &MapData, words: usize, name: &'static str| Mapping::new(map, count, words).context(name);
        let counts = match layout.counts_map {
            Some(name) => Some(map(&open(name)?, COUNTS_WORDS, name)?),
            None => None,
        };
        Ok(Self {
            layout,
            records: map(&records, layout.record_words, layout.records_map)?,
            counts,
            settings: (layout.settings)(Map::from_map_data(open(layout.settings_map)?)?)?,
            held: None,
        })
    }

    /// Sets how many flows a source may have; gives what was set before.
    fn allow(&mut self, flows: u32) -> Result<u32> {
        let mut words = self.settings.read()?;
        let before = std::mem::replace(&mut words[self.layout.max_flows_per_source], flows);
        self.settings.write(&words)?;
        Ok(before)
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        if let Some(before) = self.held {
            // It goes on without new flows otherwise, and the next daemon takes over all the same.
            let _ = self.allow(before);
        }
    }
}
