//! Route lookups in BPF, without packets: to time them, and to see from when on a route is usable.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use dataplane_common::names::{LAYOUT_VERSION, MAP_ROUTE_ROOT, MAP_ROUTE_SLABS};
use dataplane_common::trie::{Root, Slab};
use tests::harness::{Daemon, Namespace, eventually};

use super::feed::Prefixes;
use super::query::Query;
use super::{Bench, interrupt, machine};

// Names in the object.
const MAP_QUERY: &str = "QUERY";
const MAP_LPM: &str = "LPM";

/// Most rounds of one run: what `bpf_loop` allows (`BPF_MAX_LOOPS` in the kernel's include/linux/bpf.h).
const MOST_ROUNDS: u32 = 8 * 1024 * 1024;

/// How long prefixes may take from their announcement to the table.
const LIMIT: Duration = Duration::from_secs(60);

/// A frame that the programs do not look at; the kernel wants one.
const FRAME: [u8; 64] = [0; 64];

/// What looks addresses up, and which.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lookup {
    /// Random addresses, and nothing looks them up: what the loop itself costs.
    Nothing,
    /// Random addresses, in the data path's table.
    Trie,
    /// Random addresses, in `BPF_MAP_TYPE_LPM_TRIE`.
    Lpm,
    /// An address of each prefix, in the data path's table.
    EachInTrie,
    /// An address of each prefix, in the kernel's routes as an interface of this index has them.
    EachInKernel(u32),
}

impl Lookup {
    const fn program(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Trie => "trie_random",
            Self::Lpm => "lpm_random",
            Self::EachInTrie => "trie_each",
            Self::EachInKernel(_) => "kernel_each",
        }
    }
}

/// The loaded programs.
pub(super) struct Lookups<'a> {
    object: Ebpf,
    place: &'a Namespace,
    prefixes: Prefixes,
    /// Where the next random addresses begin.
    seed: u32,
}

impl<'a> Lookups<'a> {
    /// Loads them to ask for these prefixes in that namespace, on the daemon's table if one is given.
    pub(super) fn new(
        bench: &Bench,
        place: &'a Namespace,
        prefixes: Prefixes,
        daemon: Option<&Daemon>,
    ) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        if let Some(daemon) = daemon {
            for name in [MAP_ROUTE_ROOT, MAP_ROUTE_SLABS] {
                loader.map_pin_path(name, pin(daemon, name)?);
            }
        }
        let file = &bench.lookups;
        let mut object = loader.load_file(file).with_context(|| format!("cannot load {}", file.display()))?;
        for (name, program) in object.programs_mut() {
            let program: &mut Xdp = program.try_into()?;
            program.load().with_context(|| format!("the kernel refused the program {name}"))?;
        }
        Ok(Self { object, place, prefixes, seed: 0 })
    }

    /// Nanoseconds for each of many random addresses among the first `prefixes`, on that CPU; all have a route.
    ///
    /// As many others are looked up before, so that caches are as they stay.
    pub(super) fn time(&mut self, lookup: Lookup, prefixes: u32, rounds: u32, cpu: usize) -> Result<f64> {
        self.run(lookup, prefixes, rounds, Some(cpu))?;
        let (hits, elapsed) = self.run(lookup, prefixes, rounds, Some(cpu))?;
        ensure!(hits == u64::from(rounds), "of {rounds} addresses only {hits} have a route");
        Ok(elapsed.as_nanos() as f64 / f64::from(rounds))
    }

    /// How many of the first `prefixes` are there.
    pub(super) fn present(&mut self, lookup: Lookup, prefixes: u32) -> Result<u32> {
        Ok(u32::try_from(self.run(lookup, prefixes, prefixes, None)?.0)?)
    }

    /// Waits until all of the first `prefixes` are there.
    pub(super) fn await_all(&mut self, lookup: Lookup, prefixes: u32) -> Result<()> {
        eventually(LIMIT, || {
            interrupt::check()?;
            let present = self.present(lookup, prefixes)?;
            ensure!(present == prefixes, "of {prefixes} prefixes only {present} are in the table");
            Ok(())
        })
    }

    /// Whether the prefix with that number is there.
    pub(super) fn is_present(&mut self, lookup: Lookup, number: u32) -> Result<bool> {
        let all = self.prefixes;
        self.prefixes.first = all.address(number);
        let found = self.run(lookup, 1, 1, None);
        self.prefixes = all;
        Ok(found?.0 == 1)
    }

    fn run(
        &mut self,
        lookup: Lookup,
        prefixes: u32,
        rounds: u32,
        cpu: Option<usize>,
    ) -> Result<(u64, Duration)> {
        ensure!(rounds <= MOST_ROUNDS, "{rounds} rounds");
        let map = self.object.map_mut(MAP_QUERY).context("no map of queries in the object")?;
        let mut query: Array<_, Plain> = Array::try_from(map)?;
        let ifindex = if let Lookup::EachInKernel(ifindex) = lookup { ifindex } else { 0 };
        self.seed = self.seed.wrapping_add(rounds);
        let asked = Query {
            first: self.prefixes.first.into(),
            length: u32::from(self.prefixes.length),
            prefixes,
            rounds,
            seed: self.seed,
            ifindex,
            hits: 0,
        };
        query.set(0, Plain(asked), 0).context("cannot ask the program")?;
        let program = self.object.program(lookup.program()).context("no such program in the object")?;
        let program: &Xdp = program.try_into()?;
        let elapsed = self.place.enter(|| {
            if let Some(cpu) = cpu {
                machine::take_cpu(cpu)?;
            }
            let mut options = TestRunOptions::new();
            options.data_in = Some(&FRAME);
            Ok(program.test_run(options).context("the lookups did not run")?.duration)
        })?;
        let map = self.object.map(MAP_QUERY).context("no map of queries in the object")?;
        let query: Array<_, Plain> = Array::try_from(map)?;
        Ok((query.get(&0, 0)?.0.hits, elapsed))
    }

    /// Puts the prefixes `numbers` into the `BPF_MAP_TYPE_LPM_TRIE`.
    pub(super) fn fill_lpm(&mut self, numbers: std::ops::Range<u32>) -> Result<()> {
        let prefixes = self.prefixes;
        let map = self.object.map_mut(MAP_LPM).context("no trie in the object")?;
        let mut trie: LpmTrie<_, u32, u32> = LpmTrie::try_from(map)?;
        for number in numbers {
            let key = Key::new(u32::from(prefixes.length), u32::from(prefixes.address(number)).to_be());
            trie.insert(&key, number, 0).context("cannot fill the trie")?;
        }
        Ok(())
    }

    /// Bytes of the `BPF_MAP_TYPE_LPM_TRIE`, as the kernel counts them (`memlock` of a map in proc_pid_fdinfo(5)).
    pub(super) fn lpm_bytes(&self) -> Result<f64> {
        let map = self.object.map(MAP_LPM).context("no trie in the object")?;
        let Map::LpmTrie(data) = map else { bail!("the trie is none") };
        let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        line.and_then(|bytes| bytes.trim().parse().ok()).with_context(|| format!("no memlock in {path}"))
    }
}

/// Bytes of the daemon's route table: its root, the slabs that there are, and the places for them.
pub(super) fn table_bytes(daemon: &Daemon) -> Result<f64> {
    let map = MapData::from_pin(pin(daemon, MAP_ROUTE_SLABS)?)?;
    let slabs: ArrayOfMaps<_, MapData> = ArrayOfMaps::try_from(Map::ArrayOfMaps(map))?;
    let mut bytes = size_of::<Root>() + slabs.len() as usize * size_of::<usize>();
    for index in 0..slabs.len() {
        match slabs.get(&index, 0) {
            Ok(_) => bytes += size_of::<Slab>(),
            Err(MapError::KeyNotFound) => break,
            Err(error) => return Err(error).context("cannot read the slabs of the route table"),
        }
    }
    Ok(bytes as f64)
}

fn pin(daemon: &Daemon, map: &str) -> Result<PathBuf> {
    let path: &Path = daemon.bpf_dir();
    let path = path.join(format!("v{LAYOUT_VERSION}")).join("maps").join(map);
    ensure!(path.exists(), "the daemon has no map at {}", path.display());
    Ok(path)
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain(Query);

// SAFETY: transparent over integers without padding between or after them.
unsafe impl aya::Pod for Plain {}

const _: () = assert!(size_of::<Query>() == 6 * 4 + 8);
