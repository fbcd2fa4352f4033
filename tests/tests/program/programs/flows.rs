//! The flow table as it is at a moment, read from the maps.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use anyhow::{Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use dataplane_common::{
    atomic::{Word32, Word64},
    family::V4,
    flow::{
        counts::Counts,
        index::{Bucket, REFS},
        record::{Flow, Life},
        settings::{Gauges, RECORDS_PER_WORD, SHARES, Settings},
        state::Direction,
        table::{Memory, Table},
        tuple::Hash,
    },
    names::{
        MAP_FLOW_FRAGMENTS, MAP_FLOW_GAUGES, MAP_FLOW_INDEX, MAP_FLOW_RECORDS, MAP_FLOW_SHARES,
        MAP_FLOW_TAKEN,
    },
    repeat::{Plainly, Repeat},
};

type Line = [u64; 8];

/// Place of the lock among the 32-bit words of a bucket.
const LOCK: usize = REFS as usize;

/// Everything that a packet can change in the flow table, but for the counters of all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    buckets: Vec<Line>,
    flows: Vec<Line>,
    taken: Vec<u64>,
    gauges: Line,
    /// The counts of flows of the sources that were asked for.
    shares: Vec<u32>,
    /// Fragments whose datagram is known: key and value.
    fragments: BTreeMap<[u32; 4], [u32; 6]>,
}

/// The maps.
pub struct FlowMaps {
    buckets: Array<MapData, Line>,
    flows: Array<MapData, Line>,
    taken: Array<MapData, u64>,
    gauges: Array<MapData, Line>,
    shares: Array<MapData, u32>,
    fragments: HashMap<MapData, [u32; 4], [u32; 6]>,
}

impl FlowMaps {
    /// The maps that are pinned in that directory.
    pub fn open(pins: &Path) -> Result<Self> {
        let pinned = |name: &str| -> Result<MapData> { Ok(MapData::from_pin(pins.join(name))?) };
        let array = |name: &str| -> Result<Array<MapData, Line>> {
            Ok(Array::try_from(Map::from_map_data(pinned(name)?)?)?)
        };
        Ok(Self {
            buckets: array(MAP_FLOW_INDEX)?,
            flows: array(MAP_FLOW_RECORDS)?,
            taken: Array::try_from(Map::from_map_data(pinned(MAP_FLOW_TAKEN)?)?)?,
            gauges: array(MAP_FLOW_GAUGES)?,
            shares: Array::try_from(Map::from_map_data(pinned(MAP_FLOW_SHARES)?)?)?,
            fragments: HashMap::try_from(Map::from_map_data(pinned(MAP_FLOW_FRAGMENTS)?)?)?,
        })
    }

    /// What they hold, with the shares of those sources.
    pub fn read(&self, seed: u64, sources: &[Ipv4Addr]) -> Result<Contents> {
        let lines = |array: &Array<MapData, Line>| array.iter().collect::<Result<Vec<_>, _>>();
        let share = |source: &Ipv4Addr| {
            self.shares.get(&Hash::of_endpoint::<V4>(0, 0, (*source).into(), 0, seed).below(SHARES), 0)
        };
        Ok(Contents {
            buckets: lines(&self.buckets)?,
            flows: lines(&self.flows)?,
            taken: self.taken.iter().collect::<Result<_, _>>()?,
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

    /// Takes the lock of every bucket as another CPU would, or gives it back.
    pub fn lock(&mut self, held: bool) -> Result<()> {
        for bucket in 0..self.buckets.len() {
            let mut words: [u32; 16] = bytemuck::cast(self.buckets.get(&bucket, 0)?);
            words[LOCK] = held.into();
            self.buckets.set(bucket, bytemuck::cast::<_, Line>(words), 0)?;
        }
        Ok(())
    }
}

/// A copy of the table on which the algorithm can run.
struct Copy {
    buckets: Vec<Bucket>,
    flows: Vec<Flow<V4>>,
    taken: Vec<Word64>,
    gauges: Gauges,
    none: Word32,
    no_counts: Counts,
}

impl Repeat for Copy {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

impl Memory for Copy {
    type Family = V4;

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.get(number as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow<V4>> {
        self.flows.get(slot as usize)
    }

    fn counts(&self, _: u32) -> Option<&Counts> {
        Some(&self.no_counts)
    }

    fn port_use(&self, _: u32) -> Option<&Word32> {
        Some(&self.none)
    }

    fn is_usable(&self, _: u8, _: u16) -> bool {
        true
    }

    fn taken(&self, word: u32) -> Option<&Word64> {
        self.taken.get(word as usize)
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
        let bucket = |line: &Line| unsafe { std::mem::transmute::<Line, Bucket>(*line) };
        // SAFETY: as above.
        let flow = |line: &Line| unsafe { std::mem::transmute::<Line, Flow<V4>>(*line) };
        // SAFETY: as above.
        let gauges = unsafe { std::mem::transmute::<Line, Gauges>(self.gauges) };
        Copy {
            buckets: self.buckets.iter().map(bucket).collect(),
            flows: self.flows.iter().map(flow).collect(),
            taken: self.taken.iter().map(|word| Word64::new(*word)).collect(),
            gauges,
            none: Word32::new(0),
            no_counts: Counts::default(),
        }
    }

    /// Checks that each flow is found by both of its tuples, in the right direction, and no two by the same; that records are
    /// taken by flows and by those that ended and were not reclaimed yet; and that the gauge and the shares, of which the sum
    /// is given, count the flows.
    ///
    /// # Errors
    /// If the table is not sound.
    pub fn check(&self, settings: &Settings, shares: u32) -> Result<()> {
        let copy = self.copy();
        // At the beginning of time nothing has expired.
        let table = Table { memory: &copy, settings, now: 0 };
        let (mut flows, mut seen) = (0, std::collections::HashSet::new());
        for (flow, slot) in copy.flows.iter().zip(0..) {
            let is_taken =
                copy.taken[(slot / RECORDS_PER_WORD) as usize].load() >> (slot % RECORDS_PER_WORD) & 1 != 0;
            let life = Life::from_bits(flow.life.load());
            ensure!(
                is_taken == (!life.is_dead() || life.is_to_reclaim()),
                "record {slot}: {life:?}, {is_taken}"
            );
            if !is_there(flow) {
                continue;
            }
            flows += 1;
            for direction in Direction::BOTH {
                let tuple = flow.tuple(direction);
                let found = table.lookup(&tuple).map(|hit| (hit.slot, hit.direction));
                ensure!(found == Some((slot, direction)), "{tuple:?} in slot {slot} is found in {found:?}");
                ensure!(seen.insert(tuple), "{tuple:?} is there twice");
            }
        }
        ensure!(copy.buckets.iter().all(|refs| refs.lock.take(&Plainly)), "a bucket is still locked");
        let gauge = copy.gauges.flows.load();
        ensure!(gauge == flows, "{flows} flows are counted as {gauge}");
        ensure!(shares == flows, "{flows} flows are counted as {shares} of their sources");
        Ok(())
    }
}

fn is_there(flow: &Flow<V4>) -> bool {
    !Life::from_bits(flow.life.load()).is_dead()
}
