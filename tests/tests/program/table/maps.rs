//! The route table's words in BPF maps, without any program.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::atomic::Ordering,
};

use anyhow::Result;
use aya::maps::{Map, MapData};
use dataplane::kernel::table::{Mapped, Memory as _, Table};
use dataplane_common::{
    route::{Entry, Target},
    trie::{MAX_SLABS, SLAB_WORDS, Slab},
};
use ipnet::Ipv4Net;
use tests::harness::{daemon::place, skip::skip_without_root};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const VALUE_BYTES: u32 = size_of::<Slab>() as u32;

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` reads here (`linux/bpf.h`).
#[repr(C)]
#[derive(Default)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

impl Create {
    fn array(value_size: u32, map_flags: u32) -> Self {
        let map_type = BPF_MAP_TYPE_ARRAY;
        Self { map_type, key_size: 4, value_size, max_entries: 1, map_flags, inner_map_fd: 0 }
    }

    fn array_of(max_entries: u32, inner: &OwnedFd) -> Self {
        let (map_type, inner_map_fd) = (BPF_MAP_TYPE_ARRAY_OF_MAPS, inner.as_raw_fd() as u32);
        Self { map_type, key_size: 4, value_size: 4, max_entries, map_flags: 0, inner_map_fd }
    }

    /// aya makes arrays of maps from object files alone.
    fn make(&self) -> Result<OwnedFd> {
        const BPF_MAP_CREATE: libc::c_long = 0;
        // SAFETY: the kernel reads as many bytes as it is told, and takes the rest of the union for zeros.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, self, size_of::<Self>()) };
        if fd < 0 {
            return Err(anyhow::Error::from(io::Error::last_os_error()).context("cannot make a BPF map"));
        }
        // SAFETY: the kernel has just given the descriptor to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

/// The maps as pins hold them: they outlive the tables over them.
struct Pinned {
    root: OwnedFd,
    slabs: OwnedFd,
}

impl Pinned {
    fn new() -> Result<Self> {
        let root = Create::array(VALUE_BYTES, BPF_F_MMAPABLE).make()?;
        let slabs = Create::array_of(MAX_SLABS, &root).make()?;
        Ok(Self { root, slabs })
    }

    fn open(&self) -> Result<Mapped> {
        Mapped::new(map(&self.root)?, map(&self.slabs)?)
    }
}

fn map(fd: &OwnedFd) -> Result<Map> {
    Ok(Map::from_map_data(MapData::from_fd(fd.try_clone()?)?)?)
}

/// Reads a word by system call rather than through the mapping.
fn word_in_kernel(map: &OwnedFd, index: usize) -> Result<Entry> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
    /// The part of `union bpf_attr` that the command reads.
    #[repr(C)]
    struct Lookup<'a> {
        map_fd: u32,
        key: &'a u64,
        value: *mut u32,
        flags: u64,
    }
    let mut value = vec![0; SLAB_WORDS];
    let lookup = Lookup { map_fd: map.as_raw_fd() as u32, key: &0, value: value.as_mut_ptr(), flags: 0 };
    // SAFETY: the kernel reads the attribute and the key, and writes one value, for which there is room.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_ELEM, &lookup, size_of::<Lookup<'_>>()) };
    anyhow::ensure!(result == 0, "cannot read the map: {}", io::Error::last_os_error());
    Ok(Entry::from_bits(value[index]))
}

fn host(number: u32) -> Ipv4Net {
    Ipv4Net::from(Ipv4Addr::from((10 << 24) + (number << 12)))
}

#[test]
fn a_table_in_maps_outlives_the_one_who_wrote_it() -> Result<()> {
    if skip_without_root("a_table_in_maps_outlives_the_one_who_wrote_it") {
        return Ok(());
    }
    let pinned = Pinned::new()?;
    let mut table = Table::open(pinned.open()?)?;
    table.insert("172.19.0.0/16".parse()?, Target::NextHop(7))?;
    for number in 0..2000 {
        table.insert(host(number), Target::Endpoint(number))?;
    }
    let usage = table.usage();
    assert!(usage.slabs > 1, "{usage:?}");
    drop(table);

    let mut table = Table::open(pinned.open()?)?;
    assert_eq!(table.usage(), usage);
    for number in 0..2000 {
        assert_eq!(table.lookup(host(number).addr()), Entry::route(32, Target::Endpoint(number)));
    }
    // What the kernel has is what was stored through the mapping.
    assert_eq!(word_in_kernel(&pinned.root, 0xac13)?, Entry::route(16, Target::NextHop(7)));
    table.remove("172.19.0.0/16".parse()?);
    assert_eq!(word_in_kernel(&pinned.root, 0xac13)?, Entry::NONE);

    for number in 0..2000 {
        assert_eq!(table.remove(host(number)), Some(Target::Endpoint(number)));
    }
    assert_eq!(table.usage().chunks_used, 0);
    for number in 0..2000 {
        table.insert(host(number), Target::Endpoint(number))?;
    }
    assert!(table.usage().slabs <= usage.slabs + 1, "what was freed is used again: {:?}", table.usage());
    Ok(())
}

#[test]
fn a_grace_period_leaves_the_slabs_as_they_are() -> Result<()> {
    if skip_without_root("a_grace_period_leaves_the_slabs_as_they_are") {
        return Ok(());
    }
    let pinned = Pinned::new()?;
    let mut memory = pinned.open()?;
    memory.synchronize()?;
    for slab in 0..2 {
        memory.grow()?;
        memory.slab(slab).expect("it was added")[5].store(50 + slab, Ordering::Relaxed);
    }
    memory.synchronize()?;
    let again = pinned.open()?;
    assert_eq!(again.slabs(), memory.slabs());
    for slab in 0..2 {
        assert_eq!(again.slab(slab).expect("it is kept")[5].load(Ordering::Relaxed), 50 + slab);
    }
    assert!(again.slab(again.slabs()).is_none());
    Ok(())
}

#[test]
fn maps_of_another_shape_are_refused() -> Result<()> {
    if skip_without_root("maps_of_another_shape_are_refused") {
        return Ok(());
    }
    let pinned = Pinned::new()?;
    let refused = |root: &OwnedFd, slabs: &OwnedFd| -> Result<String> {
        Ok(format!("{:#}", Mapped::new(map(root)?, map(slabs)?).expect_err("another shape")))
    };
    let small = Create::array(4096, BPF_F_MMAPABLE).make()?;
    assert!(refused(&small, &pinned.slabs)?.contains("ROUTE_ROOT is not the root"));
    let unmappable = Create::array(VALUE_BYTES, 0).make()?;
    assert!(refused(&unmappable, &pinned.slabs)?.contains("with BPF_F_MMAPABLE are needed"));
    assert!(refused(&pinned.root, &pinned.root)?.contains("ROUTE_SLABS is not an array of maps"));
    let few = Create::array_of(8, &pinned.root).make()?;
    assert!(refused(&pinned.root, &few)?.contains("room for 8 slabs"));
    Ok(())
}

/// A run that ends at any step leaves slabs that are pinned and in the array, or pinned alone.
#[test]
fn slabs_are_found_by_their_pins() -> Result<()> {
    if skip_without_root("slabs_are_found_by_their_pins") {
        return Ok(());
    }
    place::mount_bpf_file_system()?;
    let pins = tempfile::Builder::new().prefix("dataplane-test-").tempdir_in(place::BPF_ROOT)?;
    let maps = Pinned::new()?;
    let open = |maps: &Pinned| Mapped::pinned(map(&maps.root)?, map(&maps.slabs)?, pins.path());
    // The first slab is of a run that pinned none.
    maps.open()?.grow()?;
    let mut memory = open(&maps)?;
    memory.grow()?;
    assert_eq!(memory.slabs(), 2);
    for slab in 0..2 {
        memory.slab(slab).expect("it was added")[5].store(50 + slab, Ordering::Relaxed);
    }
    let interrupted = Pinned::new()?;
    assert_eq!(interrupted.open()?.slabs(), 0);
    for again in [open(&maps)?, open(&interrupted)?, interrupted.open()?] {
        assert_eq!(again.slabs(), 2);
        for slab in 0..2 {
            assert_eq!(again.slab(slab).expect("it is kept")[5].load(Ordering::Relaxed), 50 + slab);
        }
    }
    Ok(())
}

#[test]
fn many_slabs_are_put_where_they_belong() -> Result<()> {
    if skip_without_root("many_slabs_are_put_where_they_belong") {
        return Ok(());
    }
    let pinned = Pinned::new()?;
    let mut memory = pinned.open()?;
    let mut growth = Vec::new();
    while memory.slabs() < 48 {
        let before = memory.slabs();
        memory.grow()?;
        growth.push(memory.slabs() - before);
    }
    assert!(growth.is_sorted() && growth[0] == 1 && growth.ends_with(&[3]), "{growth:?}");
    for slab in 0..memory.slabs() {
        memory.slab(slab).expect("it was added")[7].store(1000 + slab, Ordering::Relaxed);
    }
    let again = pinned.open()?;
    assert_eq!(again.slabs(), memory.slabs());
    for slab in 0..again.slabs() {
        assert_eq!(again.slab(slab).expect("it is kept")[7].load(Ordering::Relaxed), 1000 + slab);
    }
    Ok(())
}
