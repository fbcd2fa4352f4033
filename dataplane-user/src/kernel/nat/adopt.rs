//! Flows of another table, put into ours before any program uses it.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, IterableMap, MapData},
};
use dataplane_common::{
    atomic::{Word32, Word64},
    family::V4,
    flow::{
        counts::Counts,
        index::Bucket,
        record::Flow,
        settings::{Gauges, PORT_USES, SHARES},
        state::Rank,
        table::{Memory, Table},
    },
    names::{MAP_FLOW_INDEX, MAP_FLOW_PORT_USES, MAP_FLOW_SHARES, MAP_FLOW_TAKEN},
    repeat::{Plainly, Repeat},
};

use super::{Nat, now};
use crate::kernel::{mapping::Mapping, previous::Previous};

/// The whole table, for this process to write.
struct Writer<'a> {
    buckets: Mapping<Bucket>,
    flows: &'a [Flow<V4>],
    counts: &'a [Counts],
    taken: Mapping<Word64>,
    gauges: &'a [Gauges],
    shares: Vec<Word32>,
    port_uses: Vec<Word32>,
}

impl Repeat for Writer<'_> {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

impl Memory for Writer<'_> {
    type Family = V4;

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.values().get(number as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow<V4>> {
        self.flows.get(slot as usize)
    }

    fn counts(&self, slot: u32) -> Option<&Counts> {
        self.counts.get(slot as usize)
    }

    fn port_use(&self, index: u32) -> Option<&Word32> {
        self.port_uses.get(index as usize)
    }

    /// Ports of flows that are there stay theirs.
    fn is_usable(&self, _protocol: u8, _port: u16) -> bool {
        true
    }

    fn taken(&self, word: u32) -> Option<&Word64> {
        self.taken.values().get(word as usize)
    }

    fn share(&self, index: u32) -> Option<&Word32> {
        self.shares.get(index as usize)
    }

    fn gauges(&self) -> Option<&Gauges> {
        self.gauges.first()
    }
}

/// What became of the flows of another table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adopted {
    /// Flows that are in our table now.
    pub flows: usize,
    /// Those that it has no room for.
    pub left_out: usize,
}

impl Nat {
    /// Puts the flows of another table into this one, which no program may use yet: it is written without its locks.
    ///
    /// They are looked through twice, first for those that are established, and in between the other table is kept from
    /// getting more: so that new flows must wait for the second look alone, which has little to do. `synchronize` returns
    /// when no program opens one any more.
    ///
    /// # Errors
    ///
    /// Where a map cannot be read or written.
    pub fn adopt(
        &self,
        object: &mut Ebpf,
        previous: &mut Previous,
        synchronize: impl FnOnce() -> Result<()>,
    ) -> Result<Adopted> {
        if self.current.buckets == 0 {
            return Ok(Adopted::default());
        }
        let writer = Writer {
            buckets: mapping::<_, [u64; size_of::<Bucket>() / 8]>(object, MAP_FLOW_INDEX)?,
            flows: self.flows.values(),
            counts: self.counts.values(),
            taken: mapping::<_, u64>(object, MAP_FLOW_TAKEN)?,
            gauges: self.gauges.values(),
            shares: (0..SHARES).map(|_| Word32::new(0)).collect(),
            port_uses: (0..PORT_USES).map(|_| Word32::new(0)).collect(),
        };
        let look = |previous: &Previous, last: bool| {
            let table = Table { memory: &writer, settings: &self.current, now: now() };
            let mut adopted = Adopted::default();
            for known in previous.flows().filter(|known| known.deadline > table.now) {
                // Where there is less room than before, it is theirs.
                if !last && known.progress.state.rank() != Rank::Established {
                    continue;
                }
                match table.adopt(&known) {
                    Ok(()) => adopted.flows += 1,
                    Err(_) => adopted.left_out += 1,
                }
            }
            adopted
        };
        look(previous, false);
        previous.hold()?;
        synchronize()?;
        let adopted = look(previous, true);
        write_counts(object, MAP_FLOW_SHARES, &writer.shares)?;
        write_counts(object, MAP_FLOW_PORT_USES, &writer.port_uses)?;
        Ok(adopted)
    }
}

fn write_counts(object: &mut Ebpf, name: &str, counts: &[Word32]) -> Result<()> {
    let map = object.map_mut(name).with_context(|| format!("no map {name} in the BPF object"))?;
    let mut map: Array<&mut MapData, u32> = map.try_into()?;
    for (count, index) in counts.iter().zip(0..).filter(|(count, _)| count.load() != 0) {
        map.set(index, count.load(), 0).with_context(|| format!("cannot write the counts in {name}"))?;
    }
    Ok(())
}

/// The values of a map, each of which is as long as a `Raw`.
fn mapping<T: Sync, Raw: Pod>(object: &Ebpf, name: &str) -> Result<Mapping<T>> {
    const { assert!(size_of::<T>() == size_of::<Raw>()) };
    let map = object.map(name).with_context(|| format!("no map {name} in the BPF object"))?;
    let values: Array<&MapData, Raw> = map.try_into()?;
    Mapping::new(IterableMap::<u32, Raw>::map(&values), values.len(), 1)
}
