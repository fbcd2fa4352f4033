//! The table's words in BPF maps.

mod batch;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::{fmt, fs, slice};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, ArrayOfMaps, IterableMap, Map, MapData, MapError};
use dataplane_common::names::{MAP_ROUTE_ROOT, MAP_ROUTE_SLABS};
use dataplane_common::trie::{MAX_SLABS, ROOT_WORDS, Root, SLAB_WORDS, Slab};

use super::memory::Memory;
use crate::kernel::mapping::{BPF_F_MMAPABLE, Mapping};

/// A table grows by one slab and one more for each so many that it has.
///
/// Each growth waits for a grace period, some 10 ms: without this, the 300 slabs of a million scattered
/// routes would take 3 s of it. It costs up to a sixteenth of the memory.
const GROWTH_DIVISOR: u32 = 16;

/// A table's words in BPF maps that are mapped into this process.
///
/// The root is an array of one value of 256 KiB, the slabs are such arrays behind an array of maps. All have
/// the flag `BPF_F_MMAPABLE`. Slabs are added and never taken away while the maps live.
pub struct Mapped {
    root: Mapping<AtomicU32>,
    slabs: Vec<Mapping<AtomicU32>>,
    outer: ArrayOfMaps<MapData, Array<MapData, Slab>>,
    /// The same map: [`ArrayOfMaps`] keeps its descriptor to itself.
    outer_fd: OwnedFd,
    /// The first slab, which [`Memory::synchronize`] puts where it is.
    first: Option<Array<MapData, Slab>>,
    /// Where each slab is pinned by its number.
    pins: Option<PathBuf>,
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("outer", &self.outer).field("slabs", &self.slabs.len()).finish()
    }
}

impl Mapped {
    /// Maps the root and the slabs that are there.
    ///
    /// The two are what [`Ebpf::take_map`](aya::Ebpf::take_map) gives for [`MAP_ROUTE_ROOT`] and
    /// [`MAP_ROUTE_SLABS`], or [`Map::from_map_data`] of pinned ones.
    ///
    /// # Errors
    ///
    /// Where a map has another type, size or flags than the table's, or the kernel refuses to map it.
    pub fn new(root: Map, slabs: Map) -> Result<Self> {
        Self::open(root, slabs, None)
    }

    /// The same, with the slabs pinned in that directory, too.
    ///
    /// The kernel opens what an array of maps holds for `CAP_SYS_ADMIN` alone (`bpf_map_get_fd_by_id()` in
    /// kernel/bpf/syscall.c), and pins for who may read them: so a daemon without it finds the slabs again.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn pinned(root: Map, slabs: Map, pins: &Path) -> Result<Self> {
        Self::open(root, slabs, Some(pins.to_owned()))
    }

    fn open(root: Map, slabs: Map, pins: Option<PathBuf>) -> Result<Self> {
        let root = Array::<MapData, Root>::try_from(root)
            .with_context(|| format!("map {MAP_ROUTE_ROOT} is not the root of a route table"))?;
        let root = Mapping::new(IterableMap::<u32, Root>::map(&root), 1, ROOT_WORDS)
            .with_context(|| format!("map {MAP_ROUTE_ROOT}"))?;
        let outer_fd = match &slabs {
            Map::ArrayOfMaps(data) => data.fd().as_fd().try_clone_to_owned()?,
            _ => bail!("map {MAP_ROUTE_SLABS} is not an array of maps"),
        };
        let outer = ArrayOfMaps::<MapData, Array<MapData, Slab>>::try_from(slabs)
            .with_context(|| format!("map {MAP_ROUTE_SLABS} is not a route table's array of slabs"))?;
        ensure!(
            outer.len() == MAX_SLABS,
            "map {MAP_ROUTE_SLABS} has room for {} slabs, not {MAX_SLABS}: another version made it",
            outer.len()
        );
        let mut mapped = Self { root, slabs: Vec::new(), outer, outer_fd, first: None, pins };
        while mapped.slabs() < MAX_SLABS {
            let number = mapped.slabs();
            let found = mapped.find(number).with_context(|| format!("{MAP_ROUTE_SLABS}[{number}]"))?;
            let Some(slab) = found else { break };
            mapped.take_in(slab)?;
        }
        Ok(mapped)
    }

    /// The slab of that number, if there is one: by its pin, or in the array of maps.
    fn find(&mut self, number: u32) -> Result<Option<Array<MapData, Slab>>> {
        let in_array = self.outer.get(&number, 0);
        let pin = self.pins.as_ref().map(|pins| pins.join(number.to_string()));
        if let Some(pin) = pin.as_ref().filter(|pin| pin.exists()) {
            let slab = Array::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
            if let Err(MapError::KeyNotFound) = in_array {
                // Whoever pinned it ended before the next step.
                self.put(number, slice::from_ref(&slab))?;
            }
            return Ok(Some(slab));
        }
        match in_array {
            Ok(slab) => {
                pin.map(|pin| pin_to(&slab, &pin)).transpose()?;
                Ok(Some(slab))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Pins the slabs again whose pins somebody removed, and says whether there were any. The directory is there.
    ///
    /// # Errors
    ///
    /// Where a slab cannot be pinned; without `CAP_SYS_ADMIN` the kernel does not open what an array of maps holds.
    pub fn pin_missing(&self) -> Result<bool> {
        let Some(pins) = &self.pins else { return Ok(false) };
        let mut found = false;
        for number in 0..self.slabs() {
            let pin = pins.join(number.to_string());
            if !pin.exists() {
                let slab = self.outer.get(&number, 0).with_context(|| {
                    format!("cannot open slab {number}, to pin it again: that takes CAP_SYS_ADMIN")
                })?;
                pin_to(&slab, &pin)?;
                found = true;
            }
        }
        Ok(found)
    }

    fn put(&mut self, first: u32, slabs: &[Array<MapData, Slab>]) -> Result<()> {
        if slabs.len() > 1
            && batch::put(self.outer_fd.as_fd(), first, slabs).context("bpf_map_update_batch")?
        {
            return Ok(());
        }
        for (slab, number) in slabs.iter().zip(first..) {
            self.outer.set(number, slab, 0)?;
        }
        Ok(())
    }

    fn take_in(&mut self, slab: Array<MapData, Slab>) -> Result<()> {
        let mapping = Mapping::new(IterableMap::<u32, Slab>::map(&slab), 1, SLAB_WORDS)
            .with_context(|| format!("map {MAP_ROUTE_SLABS}[{}]", self.slabs.len()))?;
        self.slabs.push(mapping);
        // The mapping keeps a slab alive without its file descriptor; one of them is enough.
        self.first.get_or_insert(slab);
        Ok(())
    }
}

fn pin_to(slab: &Array<MapData, Slab>, path: &Path) -> Result<()> {
    IterableMap::<u32, Slab>::map(slab)
        .pin(path)
        .with_context(|| format!("cannot pin a slab at {}", path.display()))
}

impl Memory for Mapped {
    fn root(&self) -> &[AtomicU32] {
        self.root.values()
    }

    fn slab(&self, slab: u32) -> Option<&[AtomicU32]> {
        self.slabs.get(slab as usize).map(Mapping::values)
    }

    fn slabs(&self) -> u32 {
        self.slabs.len() as u32
    }

    fn grow(&mut self) -> Result<()> {
        let first = self.slabs();
        let count = (1 + first / GROWTH_DIVISOR).min(MAX_SLABS - first);
        ensure!(
            count > 0,
            "the route table has its {MAX_SLABS} slabs (512 MiB) already: announce or import fewer routes"
        );
        let slabs = (0..count)
            .map(|_| Array::<MapData, Slab>::create(1, BPF_F_MMAPABLE))
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("cannot make {count} slabs of 256 KiB for the route table"))?;
        let pin = |number: u32| self.pins.as_ref().map(|pins| pins.join(number.to_string()));
        let pins: Vec<PathBuf> = (first..first + count).filter_map(pin).collect();
        // Pinned first: what is pinned and not in the array is put there by the next run.
        let added = slabs.iter().zip(&pins).try_for_each(|(slab, pin)| pin_to(slab, pin));
        if let Err(error) = added.and_then(|()| self.put(first, &slabs)) {
            pins.iter().for_each(|pin| drop(fs::remove_file(pin)));
            return Err(
                error.context(format!("cannot put {count} slabs from {first} on into map {MAP_ROUTE_SLABS}"))
            );
        }
        slabs.into_iter().try_for_each(|slab| self.take_in(slab))
    }

    /// An update of an array of maps returns only when the programs that were running have ended
    /// (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`, commit 1ae80cf31938 "bpf: wait for running BPF
    /// programs when updating map-in-map"), whatever the new value is. Where there is no slab yet, nothing
    /// was ever unlinked.
    fn synchronize(&mut self) -> Result<()> {
        let Some(first) = &self.first else { return Ok(()) };
        self.outer.set(0, first, 0).with_context(|| format!("cannot update map {MAP_ROUTE_SLABS}"))
    }
}
