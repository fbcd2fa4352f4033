//! What the daemon before this one left in tables that this one cannot use as they are: of an older layout, or of other
//! sizes. Their programs go on forwarding with them until ours take their place.

mod layout2;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use dataplane_common::{
    atomic::Word64,
    names::{MAP_NAT_FLOWS, MAP_NAT_SETTINGS},
    nat::flow::Known,
};
use ipnet::Ipv4Net;
use tracing::warn;

use super::{mapping::Mapping, pins::Pins};
use crate::{datapath::Datapath, wanted::Destination};

/// How the flow table of a layout is read. The other tables have not changed so far.
struct Layout {
    version: u32,
    /// 64-bit words of a record.
    record_words: usize,
    /// Opens the settings.
    settings: fn(Map) -> Result<Box<dyn Settings>>,
    /// The first of the two words of the settings that are the secret of the hashes.
    seed: usize,
    /// The word of the settings that says how many flows a source may have.
    max_flows_per_source: usize,
    /// The flow in a record.
    flow: fn(&[Word64]) -> Option<Known>,
}

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
        map.try_into().with_context(|| format!("map {MAP_NAT_SETTINGS} is not of {WORDS} words"))?;
    Ok(Box::new(map))
}

/// Every layout that can be read.
const LAYOUTS: &[Layout] = &[layout2::LAYOUT, layout2::LAYOUT_3];

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
        let datapath = Datapath::pinned(&self.pins)?;
        let prefixes = datapath.prefixes().into_iter();
        Ok(prefixes.filter_map(|prefix| Some((prefix, datapath.get(prefix)?))).collect())
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
    pub fn flows(&self) -> impl Iterator<Item = Known> {
        self.flows.iter().flat_map(|flows| {
            let records = flows.records.values().chunks_exact(flows.layout.record_words);
            records.filter_map(flows.layout.flow)
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
        let path = pins.maps().join(MAP_NAT_FLOWS);
        let records = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let count = records.info()?.max_entries();
        let path = pins.maps().join(MAP_NAT_SETTINGS);
        let settings = Map::from_map_data(
            MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?,
        )?;
        Ok(Self {
            layout,
            records: Mapping::new(&records, count, layout.record_words).context(MAP_NAT_FLOWS)?,
            settings: (layout.settings)(settings)?,
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
