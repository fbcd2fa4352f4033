//! The flow table as it is at a moment, read from the maps.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use anyhow::{Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use dataplane_common::{
    atomic::Word32,
    names::{MAP_NAT_FLOWS, MAP_NAT_FRAGMENTS, MAP_NAT_GAUGES, MAP_NAT_REFS, MAP_NAT_SHARES, MAP_NAT_TAGS},
    nat::{
        bucket::{REFS, Ref, Refs, Tags},
        flow::{Flow, Life},
        settings::{Gauges, SHARES, Settings},
        state::State,
        table::{Memory, Table},
        tuple::Hash,
    },
    repeat::{Plainly, Repeat},
};

type Line = [u64; 8];

/// Place of the lock among the 32-bit words of a bucket of tags.
const LOCK: usize = 8;

/// Everything that a packet can change in the flow table, but for the counters of all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    tags: Vec<Line>,
    refs: Vec<Line>,
    flows: Vec<Line>,
    gauges: Line,
    /// The counts of flows of the sources that were asked for.
    shares: Vec<u32>,
    /// Fragments whose datagram is known: key and value.
    fragments: BTreeMap<[u32; 4], [u32; 4]>,
}

/// The maps.
pub struct FlowMaps {
    tags: Array<MapData, Line>,
    refs: Array<MapData, Line>,
    flows: Array<MapData, Line>,
    gauges: Array<MapData, Line>,
    shares: Array<MapData, u32>,
    fragments: HashMap<MapData, [u32; 4], [u32; 4]>,
}

impl FlowMaps {
    /// The maps that are pinned in that directory.
    pub fn open(pins: &Path) -> Result<Self> {
        let pinned = |name: &str| -> Result<MapData> { Ok(MapData::from_pin(pins.join(name))?) };
        let array = |name: &str| -> Result<Array<MapData, Line>> {
            Ok(Array::try_from(Map::from_map_data(pinned(name)?)?)?)
        };
        Ok(Self {
            tags: array(MAP_NAT_TAGS)?,
            refs: array(MAP_NAT_REFS)?,
            flows: array(MAP_NAT_FLOWS)?,
            gauges: array(MAP_NAT_GAUGES)?,
            shares: Array::try_from(Map::from_map_data(pinned(MAP_NAT_SHARES)?)?)?,
            fragments: HashMap::try_from(Map::from_map_data(pinned(MAP_NAT_FRAGMENTS)?)?)?,
        })
    }

    /// What they hold, with the shares of those sources.
    pub fn read(&self, seed: u64, sources: &[Ipv4Addr]) -> Result<Contents> {
        let lines = |array: &Array<MapData, Line>| array.iter().collect::<Result<Vec<_>, _>>();
        let share = |source: &Ipv4Addr| {
            self.shares.get(&Hash::of_endpoint(0, (*source).into(), 0, seed).below(SHARES), 0)
        };
        Ok(Contents {
            tags: lines(&self.tags)?,
            refs: lines(&self.refs)?,
            flows: lines(&self.flows)?,
            gauges: self.gauges.get(&0, 0)?,
            shares: sources.iter().map(share).collect::<Result<_, _>>()?,
            fragments: self.fragments.iter().collect::<Result<_, _>>()?,
        })
    }

    /// The sum of all shares.
    pub fn shares(&self) -> Result<u32> {
        let mut sum = 0;
        for share in self.shares.iter() {
            sum += share?;
        }
        Ok(sum)
    }

    /// Takes the lock of every bucket of tags as another CPU would, or gives it back.
    pub fn lock(&mut self, held: bool) -> Result<()> {
        for bucket in 0..self.tags.len() {
            let mut words: [u32; 16] = bytemuck::cast(self.tags.get(&bucket, 0)?);
            words[LOCK] = held.into();
            self.tags.set(bucket, bytemuck::cast::<_, Line>(words), 0)?;
        }
        Ok(())
    }
}

/// A copy of the table on which the algorithm can run.
struct Copy {
    tags: Vec<Tags>,
    refs: Vec<Refs>,
    flows: Vec<Flow>,
    gauges: Gauges,
    none: Word32,
}

impl Repeat for Copy {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

impl Memory for Copy {
    fn tags(&self, bucket: u32) -> Option<&Tags> {
        self.tags.get(bucket as usize)
    }

    fn refs(&self, bucket: u32) -> Option<&Refs> {
        self.refs.get(bucket as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.flows.get(slot as usize)
    }

    fn share(&self, _: u32) -> Option<&Word32> {
        Some(&self.none)
    }

    fn gauges(&self) -> Option<&Gauges> {
        Some(&self.gauges)
    }
}

impl Contents {
    /// How many flows there are, those that have expired among them.
    pub fn count(&self) -> usize {
        self.copy().flows.iter().filter(|flow| is_there(flow)).count()
    }

    fn copy(&self) -> Copy {
        // SAFETY: a cache line of words, every value of which is valid.
        let tags = |line: &Line| unsafe { std::mem::transmute::<Line, Tags>(*line) };
        // SAFETY: as above.
        let refs = |line: &Line| unsafe { std::mem::transmute::<Line, Refs>(*line) };
        // SAFETY: as above.
        let flow = |line: &Line| unsafe { std::mem::transmute::<Line, Flow>(*line) };
        // SAFETY: as above.
        let gauges = unsafe { std::mem::transmute::<Line, Gauges>(self.gauges) };
        Copy {
            tags: self.tags.iter().map(tags).collect(),
            refs: self.refs.iter().map(refs).collect(),
            flows: self.flows.iter().map(flow).collect(),
            gauges,
            none: Word32::new(0),
        }
    }

    /// Checks that each flow is found by both of its tuples, and no two by the same; that every tag and reference
    /// leads to a flow of its own; and that the gauge and the shares, of which the sum is given, count the flows.
    ///
    /// # Errors
    /// If the table is not sound.
    pub fn check(&self, settings: &Settings, shares: u32) -> Result<()> {
        let copy = self.copy();
        // At the beginning of time nothing has expired.
        let table = Table { memory: &copy, settings, now: 0 };
        let (mut flows, mut references, mut seen) = (0, BTreeMap::new(), std::collections::HashSet::new());
        for refs in &copy.refs {
            for reference in (0..REFS).map(|place| refs.get(place)).filter(|found| *found != Ref::NONE) {
                *references.entry(reference.slot()).or_insert(0) += 1;
            }
        }
        for (flow, slot) in copy.flows.iter().zip(0..) {
            let count = references.get(&slot).copied().unwrap_or(0);
            if !is_there(flow) {
                continue;
            }
            flows += 1;
            let (original, reply) = (flow.original(), flow.reply());
            let out = table.find_out(&original).map(|hit| hit.slot);
            let back = table.find_in(&reply).map(|hit| hit.slot);
            ensure!(out == Some(slot), "{original:?} in slot {slot} is found in {out:?}");
            ensure!(back == Some(slot), "{reply:?} in slot {slot} is found in {back:?}");
            ensure!(count == 1, "{count} references lead to {original:?} in slot {slot}");
            ensure!(seen.insert(original) && seen.insert(reply), "{original:?} or its reply is there twice");
        }
        ensure!(copy.tags.iter().all(|tags| tags.lock.take(&Plainly)), "a bucket of tags is still locked");
        ensure!(
            copy.refs.iter().all(|refs| refs.lock.take(&Plainly)),
            "a bucket of references is still locked"
        );
        let gauge = copy.gauges.flows.load();
        ensure!(gauge == flows, "{flows} flows are counted as {gauge}");
        ensure!(shares == flows, "{flows} flows are counted as {shares} of their sources");
        Ok(())
    }
}

fn is_there(flow: &Flow) -> bool {
    Life::from_bits(flow.life.load()).state() != State::Dead
}
