//! The flow table: what the daemon sets, sweeps and reads of it. Flows are written by programs alone, but for those of
//! another table.

mod adopt;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, IterableMap, Map, MapData, PerCpuArray},
};
use bytemuck::Zeroable as _;
use dataplane_common::{
    family::V4,
    flow::{
        counts::Counts,
        index::Bucket,
        record::{Flow, Life, TICK_SHIFT},
        rule::{MAX_RULES, Rule, RuleSet},
        settings::{Gauges, PROBE_ROWS, RECORDS_PER_WORD, Settings, Stats},
        state::State,
        table::STRETCH,
    },
    names::{
        MAP_FLOW_COUNTS, MAP_FLOW_GAUGES, MAP_FLOW_RECORDS, MAP_FLOW_RULES, MAP_FLOW_SETTINGS,
        MAP_FLOW_STATS, STRETCHES_PER_SWEEP,
    },
};
use ipnet::Ipv4Net;

use super::{
    mapping::Mapping,
    object::{self, Program},
    pinned::Value,
};

/// A record, which is only ever reached through a mapping.
type Record = [u64; size_of::<Flow<V4>>() / 8];

/// Its counters, likewise.
type Counters = [u64; size_of::<Counts>() / 8];

/// The gauges, likewise.
type Line = [u64; size_of::<Gauges>() / 8];

/// The daemon's side of the flow table.
pub struct Nat {
    settings: Array<MapData, Value<Settings>>,
    rules: Array<MapData, Value<Rule>>,
    stats: PerCpuArray<MapData, Value<Stats>>,
    flows: Mapping<Flow<V4>>,
    counts: Mapping<Counts>,
    gauges: Mapping<Gauges>,
    current: Settings,
    active: Vec<Rule>,
    /// The addresses that translation by those rules depends on: interface and network.
    sources: Vec<(u32, Ipv4Net)>,
}

/// What the configuration says of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Buckets of the table; 0 where nothing is translated.
    pub buckets: u32,
    /// Most flows.
    pub max_flows: u32,
    /// Most flows of one source.
    pub max_flows_per_source: u32,
    /// Ticks that a flow lives in each state without a packet, by the state's number.
    pub timeouts: Vec<(State, u32)>,
}

impl Nat {
    /// Takes over the object's maps, with the flows of an earlier run.
    ///
    /// # Errors
    ///
    /// Where a map has another layout, or cannot be read.
    pub fn open(object: &mut Ebpf) -> Result<Self> {
        let settings: Array<_, Value<Settings>> = take(object, MAP_FLOW_SETTINGS)?.try_into()?;
        let rules: Array<_, Value<Rule>> = take(object, MAP_FLOW_RULES)?.try_into()?;
        let flows: Array<_, Record> = take(object, MAP_FLOW_RECORDS)?.try_into()?;
        let counts: Array<_, Counters> = take(object, MAP_FLOW_COUNTS)?.try_into()?;
        let gauges: Array<_, Line> = take(object, MAP_FLOW_GAUGES)?.try_into()?;
        let Value(current) = settings.get(&0, 0).context("cannot read the settings of the flow table")?;
        let set = RuleSet::from_bits(current.rules);
        let held = set.first()..set.first() + set.count();
        ensure!(
            held.end as usize <= 2 * MAX_RULES,
            "the settings of the flow table name rules that are not there"
        );
        let active =
            held.map(|index| Ok(Rule { number: 0, ..rules.get(&index, 0)?.0 })).collect::<Result<_>>()?;
        Ok(Self {
            flows: Mapping::new(IterableMap::<u32, Record>::map(&flows), flows.len(), 1)?,
            counts: Mapping::new(IterableMap::<u32, Counters>::map(&counts), counts.len(), 1)?,
            gauges: Mapping::new(IterableMap::<u32, Line>::map(&gauges), 1, 1)?,
            stats: take(object, MAP_FLOW_STATS)?.try_into()?,
            settings,
            rules,
            current,
            active,
            sources: Vec::new(),
        })
    }

    /// Makes that the secret of the hashes: of a table that holds no flow.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the write.
    pub fn set_seed(&mut self, seed: u64) -> Result<()> {
        self.write(Settings { seed, ..self.current })
    }

    /// Sets what the configuration says. The table keeps its secret and its flows.
    ///
    /// # Errors
    ///
    /// Where the kernel gives no random numbers or refuses the write.
    pub fn configure(&mut self, limits: &Limits) -> Result<()> {
        let mut wanted = self.current;
        if wanted.seed == 0 {
            wanted.seed = random()?;
        }
        wanted.buckets = limits.buckets;
        wanted.max_flows = limits.max_flows;
        wanted.max_flows_per_source = limits.max_flows_per_source;
        for &(state, ticks) in &limits.timeouts {
            wanted.timeouts[state as usize] = ticks;
        }
        self.write(wanted)
    }

    /// Tells those who read the maps whether the kernel decides about connections.
    pub fn set_respect(&self, respect: bool) {
        if let Some(gauges) = self.gauges.values().first() {
            gauges.respect.store(respect.into());
        }
    }

    /// Makes these the rules, of which the default addresses come from `sources`. Says whether anything is another than before:
    /// flows are then judged anew. `synchronize` returns when no program can be reading the rules before the last.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a write: the rules are then as before.
    pub fn set_rules(
        &mut self,
        rules: &[Rule],
        sources: Vec<(u32, Ipv4Net)>,
        synchronize: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        if self.active == rules && self.sources == sources {
            return Ok(false);
        }
        // Two sets have room: the one that does not hold is written, and made the one that does.
        synchronize()?;
        let first = if RuleSet::from_bits(self.current.rules).first() == 0 { MAX_RULES as u16 } else { 0 };
        for (rule, index) in rules.iter().zip(u32::from(first)..) {
            let rule = Rule { number: index - u32::from(first), ..*rule };
            self.rules.set(index, Value(rule), 0).context("cannot write a rule of translation")?;
        }
        let set = RuleSet::new(first, rules.len() as u16);
        // Of 16 bits, of which 0 stands for no epoch: flows of another table, which are bound to none.
        let epoch = self.current.epoch % 0xffff + 1;
        self.write(Settings { rules: set.to_bits(), epoch, ..self.current })?;
        self.active = rules.to_vec();
        self.sources = sources;
        Ok(true)
    }

    fn write(&mut self, wanted: Settings) -> Result<()> {
        if self.current != wanted {
            self.settings.set(0, Value(wanted), 0).context("cannot write the settings of the flow table")?;
            self.current = wanted;
        }
        Ok(())
    }

    /// The rules that hold.
    pub fn rules(&self) -> &[Rule] {
        &self.active
    }

    /// What is set.
    pub fn settings(&self) -> &Settings {
        &self.current
    }

    /// Sweeps one part of so many of the table. Where it holds no flow, a few records tell the programs that somebody
    /// sweeps: new flows need not.
    ///
    /// # Errors
    ///
    /// Where the program cannot be run.
    pub fn sweep(&self, object: &mut Ebpf, parts: u32) -> Result<()> {
        if self.current.buckets == 0 {
            return Ok(());
        }
        let records = self.current.words() * RECORDS_PER_WORD;
        let all = if self.flows_held() == 0 { 1 } else { records.div_ceil(STRETCHES_PER_SWEEP * STRETCH) };
        let runs = all.div_ceil(parts);
        // The kernel wants a frame, if only a header's worth.
        let frame = [0; 14];
        object::classifier(object, Program::Sweep)?
            .test_run(TestRunOptions { data_in: Some(&frame), repeat: runs, ..TestRunOptions::new() })
            .context("cannot sweep the flow table")?;
        Ok(())
    }

    /// Flows that the table holds, those that have expired and were not swept yet among them.
    pub fn flows_held(&self) -> u32 {
        self.gauges.values().first().map_or(0, |gauges| gauges.flows.load())
    }

    /// The flows that live, each with its counters, and the tick that it is.
    pub fn flows(&self) -> (u32, impl Iterator<Item = (&Flow<V4>, &Counts, Life)>) {
        let now = now();
        let living =
            self.flows.values().iter().zip(self.counts.values()).filter_map(move |(flow, counts)| {
                let life = Life::from_bits(flow.life.load());
                life.is_alive(now).then_some((flow, counts, life))
            });
        (now, living)
    }

    /// What the programs counted, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn counters(&self) -> Result<Stats> {
        sum(&self.stats)
    }

    /// Bytes of the maps that flows take.
    pub fn bytes(&self) -> u64 {
        let index = self.current.buckets as usize * size_of::<Bucket>();
        let taken = self.current.words() as usize * size_of::<u64>();
        let records = size_of_val(self.flows.values()) + size_of_val(self.counts.values());
        (index + taken + records) as u64
    }
}

/// What the programs counted, summed over the CPUs.
pub(super) fn sum(stats: &PerCpuArray<MapData, Value<Stats>>) -> Result<Stats> {
    let mut sum = Stats::zeroed();
    for Value(one) in stats.get(&0, 0).context("cannot read the flow table's counters")?.iter() {
        sum.opened += one.opened;
        sum.expired += one.expired;
        sum.displaced_ended += one.displaced_ended;
        sum.displaced_half_open += one.displaced_half_open;
        sum.revoked += one.revoked;
        for row in 0..PROBE_ROWS {
            sum.probes[row] += one.probes[row];
        }
    }
    Ok(sum)
}

/// The tick that it is: by the clock of `bpf_ktime_get_coarse_ns`.
pub(super) fn now() -> u32 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    let nanoseconds = Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos() as u64;
    (nanoseconds >> TICK_SHIFT) as u32
}

/// A secret that is not zero.
fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the buffer has the length that is given.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    ensure!(
        got == bytes.len() as isize,
        "the kernel gives no random numbers: {}",
        std::io::Error::last_os_error()
    );
    Ok(u64::from_ne_bytes(bytes) | 1)
}

fn take(object: &mut Ebpf, name: &str) -> Result<Map> {
    object.take_map(name).with_context(|| format!("no map {name} in the BPF object"))
}
