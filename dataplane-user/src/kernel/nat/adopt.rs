//! Flows of another table, put into ours before any program uses it.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, IterableMap, MapData},
};
use dataplane_common::{
    atomic::Word32,
    names::{MAP_NAT_REFS, MAP_NAT_SHARES, MAP_NAT_TAGS},
    nat::{
        bucket::{Refs, Tags},
        flow::Flow,
        settings::{Gauges, SHARES},
        state::Rank,
        table::{Memory, Table},
    },
    repeat::{Plainly, Repeat},
};

use super::{Nat, now};
use crate::kernel::{mapping::Mapping, previous::Previous};

/// A bucket of either index, which is only ever reached through a mapping.
type Bucket = [u64; 8];

const _: () = assert!(size_of::<Bucket>() == size_of::<Tags>() && size_of::<Bucket>() == size_of::<Refs>());

/// The whole table, for this process to write.
struct Writer<'a> {
    tags: Mapping<Tags>,
    refs: Mapping<Refs>,
    flows: &'a [Flow],
    gauges: &'a [Gauges],
    shares: Vec<Word32>,
}

impl Repeat for Writer<'_> {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

impl Memory for Writer<'_> {
    fn tags(&self, bucket: u32) -> Option<&Tags> {
        self.tags.values().get(bucket as usize)
    }

    fn refs(&self, bucket: u32) -> Option<&Refs> {
        self.refs.values().get(bucket as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.flows.get(slot as usize)
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
            tags: mapping(object, MAP_NAT_TAGS)?,
            refs: mapping(object, MAP_NAT_REFS)?,
            flows: self.flows.values(),
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

fn mapping<T: Sync>(object: &Ebpf, name: &str) -> Result<Mapping<T>> {
    let map = object.map(name).with_context(|| format!("no map {name} in the BPF object"))?;
    let buckets: Array<&MapData, Bucket> = map.try_into()?;
    Mapping::new(IterableMap::<u32, Bucket>::map(&buckets), buckets.len(), 1)
}
