//! The flow table as it is at a moment, read from the maps.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use anyhow::{Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use dataplane_common::{
    atomic::{Word32, Word64},
    names::{
        MAP_NAT_FLOWS, MAP_NAT_FRAGMENTS, MAP_NAT_GAUGES, MAP_NAT_IN, MAP_NAT_OUT, MAP_NAT_SHARES,
        MAP_NAT_TAKEN,
    },
    nat::{
        bucket::{REFS, Ref, Refs},
        flow::{Flow, Life},
        settings::{Gauges, RECORDS_PER_WORD, SHARES, Settings},
        state::{Direction, State},
        table::{Memory, Table},
        tuple::Hash,
    },
    repeat::{Plainly, Repeat},
};

type Line = [u64; 8];

/// Place of the lock among the 32-bit words of a bucket.
const LOCK: usize = REFS as usize;

/// Everything that a packet can change in the flow table, but for the counters of all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The indexes, by direction.
    refs: [Vec<Line>; 2],
    flows: Vec<Line>,
    taken: Vec<u64>,
    gauges: Line,
    /// The counts of flows of the sources that were asked for.
    shares: Vec<u32>,
    /// Fragments whose datagram is known: key and value.
    fragments: BTreeMap<[u32; 4], [u32; 4]>,
}

/// The maps.
pub struct FlowMaps {
    /// By direction.
    refs: [Array<MapData, Line>; 2],
    flows: Array<MapData, Line>,
    taken: Array<MapData, u64>,
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
            refs: [array(MAP_NAT_OUT)?, array(MAP_NAT_IN)?],
            flows: array(MAP_NAT_FLOWS)?,
            taken: Array::try_from(Map::from_map_data(pinned(MAP_NAT_TAKEN)?)?)?,
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
            refs: [lines(&self.refs[0])?, lines(&self.refs[1])?],
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

    /// Takes the lock of every bucket for packets out as another CPU would, or gives it back.
    pub fn lock(&mut self, held: bool) -> Result<()> {
        let buckets = &mut self.refs[Direction::Out as usize];
        for bucket in 0..buckets.len() {
            let mut words: [u32; 16] = bytemuck::cast(buckets.get(&bucket, 0)?);
            words[LOCK] = held.into();
            buckets.set(bucket, bytemuck::cast::<_, Line>(words), 0)?;
        }
        Ok(())
    }
}

/// A copy of the table on which the algorithm can run.
struct Copy {
    refs: [Vec<Refs>; 2],
    flows: Vec<Flow>,
    taken: Vec<Word64>,
    gauges: Gauges,
    none: Word32,
}

impl Repeat for Copy {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

impl Memory for Copy {
    fn refs(&self, direction: Direction, bucket: u32) -> Option<&Refs> {
        self.refs[direction as usize].get(bucket as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.flows.get(slot as usize)
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
        let bucket = |line: &Line| unsafe { std::mem::transmute::<Line, Refs>(*line) };
        // SAFETY: as above.
        let flow = |line: &Line| unsafe { std::mem::transmute::<Line, Flow>(*line) };
        // SAFETY: as above.
        let gauges = unsafe { std::mem::transmute::<Line, Gauges>(self.gauges) };
        Copy {
            refs: self.refs.each_ref().map(|index| index.iter().map(bucket).collect()),
            flows: self.flows.iter().map(flow).collect(),
            taken: self.taken.iter().map(|word| Word64::new(*word)).collect(),
            gauges,
            none: Word32::new(0),
        }
    }

    /// Checks that each flow is found by both of its tuples, and no two by the same; that one reference of each index
    /// leads to it; that the records that are taken are those that the index for packets out leads to; and that the gauge
    /// and the shares, of which the sum is given, count the flows.
    ///
    /// # Errors
    /// If the table is not sound.
    pub fn check(&self, settings: &Settings, shares: u32) -> Result<()> {
        let copy = self.copy();
        // At the beginning of time nothing has expired.
        let table = Table { memory: &copy, settings, now: 0 };
        let (mut flows, mut seen) = (0, std::collections::HashSet::new());
        let [referred_out, referred_in] = copy.refs.each_ref().map(|index| {
            let mut references: BTreeMap<u32, u32> = BTreeMap::new();
            let places = index.iter().flat_map(|refs| (0..REFS).map(|place| refs.get(place)));
            for reference in places.filter(|place| *place != Ref::NONE) {
                *references.entry(reference.slot()).or_insert(0) += 1;
            }
            references
        });
        for (flow, slot) in copy.flows.iter().zip(0..) {
            let is_taken =
                copy.taken[(slot / RECORDS_PER_WORD) as usize].load() >> (slot % RECORDS_PER_WORD) & 1 != 0;
            let of_out = referred_out.get(&slot).copied().unwrap_or(0);
            ensure!(of_out == u32::from(is_taken), "{of_out} references to record {slot}, taken: {is_taken}");
            let count = referred_in.get(&slot).copied().unwrap_or(0);
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
        ensure!(copy.refs.iter().flatten().all(|refs| refs.lock.take(&Plainly)), "a bucket is still locked");
        let gauge = copy.gauges.flows.load();
        ensure!(gauge == flows, "{flows} flows are counted as {gauge}");
        ensure!(shares == flows, "{flows} flows are counted as {shares} of their sources");
        Ok(())
    }
}

fn is_there(flow: &Flow) -> bool {
    Life::from_bits(flow.life.load()).state() != State::Dead
}
