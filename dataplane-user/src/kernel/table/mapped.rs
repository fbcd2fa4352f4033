//! The table's words in BPF maps.

mod batch;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::{fmt, io, ptr, slice};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, ArrayOfMaps, IterableMap, Map, MapData, MapError};
use dataplane_common::names::{MAP_ROUTE_ROOT, MAP_ROUTE_SLABS};
use dataplane_common::trie::{MAX_SLABS, ROOT_WORDS, Root, SLAB_WORDS, Slab};

use super::memory::Memory;

/// `BPF_F_MMAPABLE` of `linux/bpf.h`: the map's values can be mapped into a process (Linux 5.5).
const BPF_F_MMAPABLE: u32 = 1 << 10;

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
    root: Mapping,
    slabs: Vec<Mapping>,
    outer: ArrayOfMaps<MapData, Array<MapData, Slab>>,
    /// The same map: [`ArrayOfMaps`] keeps its descriptor to itself.
    outer_fd: OwnedFd,
    /// The first slab, which [`Memory::synchronize`] puts where it is.
    first: Option<Array<MapData, Slab>>,
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
        let root = Array::<MapData, Root>::try_from(root)
            .with_context(|| format!("map {MAP_ROUTE_ROOT} is not the root of a route table"))?;
        let root = Mapping::new(&root, ROOT_WORDS).with_context(|| format!("map {MAP_ROUTE_ROOT}"))?;
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
        let mut mapped = Self { root, slabs: Vec::new(), outer, outer_fd, first: None };
        while mapped.slabs() < MAX_SLABS {
            let number = mapped.slabs();
            match mapped.outer.get(&number, 0) {
                Ok(slab) => mapped.take_in(slab)?,
                Err(MapError::KeyNotFound) => break,
                Err(error) => return Err(error).with_context(|| format!("{MAP_ROUTE_SLABS}[{number}]")),
            }
        }
        Ok(mapped)
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
        let mapping = Mapping::new(&slab, SLAB_WORDS)
            .with_context(|| format!("map {MAP_ROUTE_SLABS}[{}]", self.slabs.len()))?;
        self.slabs.push(mapping);
        // The mapping keeps a slab alive without its file descriptor; one of them is enough.
        self.first.get_or_insert(slab);
        Ok(())
    }
}

impl Memory for Mapped {
    fn root(&self) -> &[AtomicU32] {
        self.root.words()
    }

    fn slab(&self, slab: u32) -> Option<&[AtomicU32]> {
        self.slabs.get(slab as usize).map(Mapping::words)
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
        self.put(first, &slabs).with_context(|| {
            format!("cannot put {count} slabs from {first} on into map {MAP_ROUTE_SLABS}")
        })?;
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

/// The one value of an array, mapped into this process.
struct Mapping {
    start: ptr::NonNull<AtomicU32>,
    words: usize,
}

impl Mapping {
    fn new<V: aya::Pod>(map: &Array<MapData, V>, words: usize) -> Result<Self> {
        let data = IterableMap::<u32, V>::map(map);
        let (info, bytes) = (data.info()?, words * size_of::<AtomicU32>());
        ensure!(
            info.max_entries() == 1
                && info.value_size() as usize == bytes
                && info.map_flags() & BPF_F_MMAPABLE != 0,
            "it has {} values of {} bytes and flags {:#x}; one of {bytes} bytes with BPF_F_MMAPABLE is needed",
            info.max_entries(),
            info.value_size(),
            info.map_flags()
        );
        map_shared(data.fd().as_fd(), bytes)
            .map(|start| Self { start, words })
            .context("cannot map it into memory (Linux 5.5 or later is needed)")
    }

    fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has that many words, is aligned to a page, holds initialised memory and lives
        // as long as `self`. Programs and other processes write the words too, which atomics allow.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

// SAFETY: the mapping belongs to the process and not to a thread, and its words are atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing but atomics is reached through a shared reference.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and the length are those of a mapping that `map_shared` made, and every reference
        // into it borrows `self`.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<AtomicU32>()) };
        debug_assert_eq!(result, 0, "munmap: {}", io::Error::last_os_error());
    }
}

fn map_shared(map: BorrowedFd<'_>, bytes: usize) -> io::Result<ptr::NonNull<AtomicU32>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    ptr::NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
}
