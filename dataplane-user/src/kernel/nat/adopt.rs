//! Flows of another table, put into ours before any program uses it.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, IterableMap, MapData},
};
use dataplane_common::{
    atomic::{Word32, Word64},
    names::{MAP_NAT_IN, MAP_NAT_OUT, MAP_NAT_SHARES, MAP_NAT_TAKEN},
    nat::{
        bucket::Refs,
        flow::Flow,
        settings::{Gauges, SHARES},
        state::{Direction, Rank},
        table::{Memory, Table},
    },
    repeat::{Plainly, Repeat},
};

use super::{Nat, now};
use crate::kernel::{mapping::Mapping, previous::Previous};

/// The whole table, for this process to write.
struct Writer<'a> {
    /// By direction.
    refs: [Mapping<Refs>; 2],
    flows: &'a [Flow],
    taken: Mapping<Word64>,
    gauges: &'a [Gauges],
    shares: Vec<Word32>,
}

impl Repeat for Writer<'_> {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

impl Memory for Writer<'_> {
    fn refs(&self, direction: Direction, bucket: u32) -> Option<&Refs> {
        self.refs[direction as usize].values().get(bucket as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.flows.get(slot as usize)
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
            refs: [
                mapping::<_, [u64; size_of::<Refs>() / 8]>(object, MAP_NAT_OUT)?,
                mapping::<_, [u64; size_of::<Refs>() / 8]>(object, MAP_NAT_IN)?,
            ],
            flows: self.flows.values(),
            taken: mapping::<_, u64>(object, MAP_NAT_TAKEN)?,
            gauges: self.gauges.values(),
            shares: (0..SHARES).map(|_| Word32::new(0)).collect(),
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
        let shares = object.map_mut(MAP_NAT_SHARES).context("no map of shares in the BPF object")?;
        let mut shares: Array<&mut MapData, u32> = shares.try_into()?;
        for (share, index) in writer.shares.iter().zip(0..).filter(|(share, _)| share.load() != 0) {
            shares.set(index, share.load(), 0).context("cannot write how many flows a source has")?;
        }
        Ok(adopted)
    }
}

/// The values of a map, each of which is as long as a `Raw`.
fn mapping<T: Sync, Raw: Pod>(object: &Ebpf, name: &str) -> Result<Mapping<T>> {
    const { assert!(size_of::<T>() == size_of::<Raw>()) };
    let map = object.map(name).with_context(|| format!("no map {name} in the BPF object"))?;
    let values: Array<&MapData, Raw> = map.try_into()?;
    Mapping::new(IterableMap::<u32, Raw>::map(&values), values.len(), 1)
}
