//! The flow table as commands read it from its pins: window by window, so that a reader takes the same memory for any table.

use std::{
    ops::ControlFlow,
    sync::atomic::{Ordering, fence},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray};
use dataplane_common::{
    atomic::Word64,
    family::V4,
    flow::{
        counts::Counts,
        index::Bucket,
        record::{Binding, Flow, Life, flags},
        rule::{MAX_RULES, Rule, RuleSet},
        settings::{Gauges, RECORDS_PER_WORD, Settings, Stats},
        state::Direction,
        tuple::Tuple,
    },
    names::{
        MAP_FLOW_COUNTS, MAP_FLOW_GAUGES, MAP_FLOW_RECORDS, MAP_FLOW_RULES, MAP_FLOW_SETTINGS,
        MAP_FLOW_STATS, MAP_FLOW_TAKEN,
    },
};

use super::{
    mapping::{BPF_F_MMAPABLE, Mapping},
    nat,
    pinned::{Pinned, Value},
};

/// Records of a window: 1 MiB of them, and whole pages of counters, whatever a page is.
const WINDOW: usize = 1 << 14;

/// How often a record is read again that became another flow's meanwhile.
const ATTEMPTS: usize = 3;

/// The flow table that is pinned.
pub struct FlowTable {
    records: MapData,
    counts: MapData,
    /// A bit for each record that a flow has, or had a moment ago.
    taken: Mapping<Word64>,
    stats: PerCpuArray<MapData, Value<Stats>>,
    settings: Settings,
    gauges: Mapping<Gauges>,
    rules: Vec<Rule>,
}

/// A flow at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// The tuple of packets of the original direction.
    pub original: Tuple<V4>,
    /// The tuple of packets of the reply direction.
    pub reply: Tuple<V4>,
    /// [`flags`].
    pub flags: u8,
    /// State and deadline.
    pub life: Life,
    /// Way out and rule.
    pub binding: Binding,
    /// The tick at which it began.
    pub opened: u32,
    /// Bytes of frames, by direction.
    pub bytes: [u64; 2],
    /// Packets, by direction.
    pub packets: [u64; 2],
}

impl Snapshot {
    /// The flow of a record, where one lives there.
    fn read(flow: &Flow<V4>, counts: &Counts, now: u32) -> Option<Self> {
        for _ in 0..ATTEMPTS {
            let life = Life::from_bits(flow.life.load());
            if !life.is_alive(now) {
                return None;
            }
            fence(Ordering::Acquire);
            let snapshot = Self {
                original: flow.original(),
                reply: flow.reply(),
                flags: flow.flags(),
                life,
                binding: Binding::from_bits(flow.binding.load()),
                opened: flow.opened(),
                bytes: Direction::BOTH.map(|direction| counts.bytes(direction)),
                packets: Direction::BOTH.map(|direction| counts.packets(direction)),
            };
            fence(Ordering::Acquire);
            // A packet may have changed its life meanwhile; a flow of another generation is another one.
            if life.is_same_flow(Life::from_bits(flow.life.load())) {
                return Some(snapshot);
            }
        }
        None
    }

    /// Whether an address or port of it is translated.
    pub const fn is_translated(&self) -> bool {
        self.flags & (flags::SNAT | flags::DNAT) != 0
    }
}

impl FlowTable {
    /// Opens the table among those maps.
    ///
    /// # Errors
    ///
    /// Where it is missing, or of another layout.
    pub fn open(pinned: &Pinned) -> Result<Self> {
        let settings: Array<_, Value<Settings>> = pinned.open(MAP_FLOW_SETTINGS)?;
        let Value(settings) = settings.get(&0, 0).context("cannot read the settings of the flow table")?;
        let rules: Array<_, Value<Rule>> = pinned.open(MAP_FLOW_RULES)?;
        let set = RuleSet::from_bits(settings.rules);
        let held = set.first()..set.first() + set.count();
        ensure!(held.end as usize <= 2 * MAX_RULES, "the flow table names rules that are missing");
        let taken: Mapping<Word64> = pinned.mapping(MAP_FLOW_TAKEN, 1)?;
        let records = taken.values().len() * RECORDS_PER_WORD as usize;
        Ok(Self {
            records: array(pinned, MAP_FLOW_RECORDS, records, size_of::<Flow<V4>>())?,
            counts: array(pinned, MAP_FLOW_COUNTS, records, size_of::<Counts>())?,
            taken,
            stats: pinned.open(MAP_FLOW_STATS)?,
            rules: held.map(|index| Ok(rules.get(&index, 0)?.0)).collect::<Result<_>>()?,
            gauges: pinned.mapping(MAP_FLOW_GAUGES, 1)?,
            settings,
        })
    }

    /// What the daemon has set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the kernel decides about connections (`netfilter = "respect"`).
    pub fn respects(&self) -> bool {
        self.gauges.values().first().is_some_and(|gauges| gauges.respect.load() != 0)
    }

    /// The rules that hold.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What the programs counted, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        nat::sum(&self.stats)
    }

    /// Bytes of the maps that flows take; none where there is no table.
    pub fn bytes(&self) -> u64 {
        if self.settings.buckets == 0 {
            return 0;
        }
        let records = self.taken.values().len() * RECORDS_PER_WORD as usize;
        let index = self.settings.buckets as usize * size_of::<Bucket>();
        let each = size_of::<Flow<V4>>() + size_of::<Counts>();
        (index + records * each + size_of_val(self.taken.values())) as u64
    }

    /// Visits the flows that live, until the visitor breaks; each with the tick that it is.
    ///
    /// # Errors
    ///
    /// Where the table cannot be mapped, or the visitor fails.
    pub fn each(&self, mut visit: impl FnMut(&Snapshot, u32) -> Result<ControlFlow<()>>) -> Result<()> {
        let now = nat::now();
        self.each_record(false, |flow, counts| match Snapshot::read(flow, counts, now) {
            Some(snapshot) => visit(&snapshot, now),
            None => Ok(ControlFlow::Continue(())),
        })
    }

    /// The flow that lives in a record, with the tick that it is.
    ///
    /// # Errors
    ///
    /// Where the table cannot be mapped.
    pub fn at(&self, slot: u32) -> Result<Option<(Snapshot, u32)>> {
        let (slot, now) = (slot as usize, nat::now());
        let records = self.taken.values().len() * RECORDS_PER_WORD as usize;
        if slot >= records {
            return Ok(None);
        }
        let first = slot / WINDOW * WINDOW;
        let count = WINDOW.min(records - first);
        let flows = window::<Flow<V4>>(&self.records, first, count, false)?;
        let counts = window::<Counts>(&self.counts, first, count, false)?;
        let (flow, counts) = (&flows.values()[slot - first], &counts.values()[slot - first]);
        Ok(Snapshot::read(flow, counts, now).map(|snapshot| (snapshot, now)))
    }

    /// Ends the flows that the predicate names; gives how many.
    ///
    /// A flow ends by one compare-and-exchange of its life word, as programs end flows, and the sweep reclaims its record. Who
    /// comes in between is:
    /// * a packet that renews the flow or changes its state: the word is another one, and the flow is read and asked about again;
    /// * another flow that took the record: its word has another generation, so that it is not ended unread;
    /// * a packet whose program has found the flow already: it leaves as the flow had it, as one that came before the end; its
    ///   renewal finds the word changed and does not revive the flow.
    ///
    /// # Errors
    ///
    /// Where the table cannot be mapped for writing.
    pub fn end(&self, wanted: impl Fn(&Snapshot) -> bool) -> Result<u64> {
        let (now, mut ended) = (nat::now(), 0);
        self.each_record(true, |flow, counts| {
            while let Some(snapshot) = Snapshot::read(flow, counts, now).filter(&wanted) {
                if flow.life.replace(snapshot.life.to_bits(), snapshot.life.ended().to_bits()) {
                    ended += 1;
                    break;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ended)
    }

    fn each_record(
        &self,
        writes: bool,
        mut visit: impl FnMut(&Flow<V4>, &Counts) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        for (number, taken) in self.taken.values().chunks(WINDOW / RECORDS_PER_WORD as usize).enumerate() {
            if taken.iter().all(|word| word.load() == 0) {
                continue;
            }
            let (first, count) = (number * WINDOW, taken.len() * RECORDS_PER_WORD as usize);
            let flows = window::<Flow<V4>>(&self.records, first, count, writes)?;
            let counts = window::<Counts>(&self.counts, first, count, false)?;
            for (index, (flow, counts)) in flows.values().iter().zip(counts.values()).enumerate() {
                let word = taken[index / RECORDS_PER_WORD as usize].load();
                let is_taken = word >> (index as u32 % RECORDS_PER_WORD) & 1 != 0;
                if is_taken && visit(flow, counts)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn window<T: Sync>(map: &MapData, first: usize, count: usize, writes: bool) -> Result<Mapping<T>> {
    let offset = first * size_of::<T>();
    if writes { Mapping::writable_part(map, offset, count) } else { Mapping::part(map, offset, count) }
}

/// An array that can be mapped, of so many values of that size.
fn array(pinned: &Pinned, name: &str, values: usize, bytes: usize) -> Result<MapData> {
    let data = pinned.data(name)?;
    let info = data.info()?;
    ensure!(
        info.max_entries() as usize == values
            && info.value_size() as usize == bytes
            && info.map_flags() & BPF_F_MMAPABLE != 0,
        "map {name} is none of a flow table of this version"
    );
    Ok(data)
}
