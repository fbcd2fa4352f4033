//! The route table: one longest-prefix match says what is to be done with an address.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps},
    macros::btf_map,
};
use dataplane_common::{
    net::Ipv4Be,
    route::Entry,
    trie::{self, MAX_SLABS, Root, Slab, Words},
};

/// `BPF_F_MMAPABLE`: the daemon writes the words with plain stores.
const MMAPABLE: usize = 1 << 10;

#[btf_map]
static ROUTE_ROOT: Array<Root, 1, MMAPABLE> = Array::new();

#[btf_map]
static ROUTE_SLABS: ArrayOfMaps<Array<Slab, 1, MMAPABLE>, { MAX_SLABS as usize }> = ArrayOfMaps::new();

struct Maps;

impl Words for Maps {
    #[inline(always)]
    fn root(&self, index: u32) -> Option<u32> {
        ROUTE_ROOT.get(0)?.get(index as usize).copied()
    }

    #[inline(always)]
    fn slab(&self, slab: u32, index: u32) -> Option<u32> {
        ROUTE_SLABS.get_value(slab, &0)?.get(index as usize).copied()
    }
}

/// What a lookup gives where an entry points to a slab that is not there: it leads to no target.
const FAULT: Entry = Entry::chunk(0);

/// The entry of the longest prefix that holds the address; [`Entry::NONE`] where there is none.
#[inline(always)]
pub fn lookup(address: Ipv4Be) -> Entry {
    trie::lookup(&Maps, address.to_host()).unwrap_or(FAULT)
}
