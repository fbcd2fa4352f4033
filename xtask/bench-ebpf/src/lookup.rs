//! Route lookups without packets: in the data path's own table, in `BPF_MAP_TYPE_LPM_TRIE`, and in the kernel's.
//!
//! All programs ask for the same addresses in the same loop. The data path's table is the daemon's: its pinned
//! maps take the place of the two maps here, which are declared as in the data path.

#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the xdp macro wraps the functions in undocumented ones")]

mod query;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_fib_lookup as FibLookup, xdp_action},
    btf_maps::{Array, ArrayOfMaps, LpmTrie, lpm_trie::Key},
    helpers::generated::{bpf_fib_lookup, bpf_loop},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use dataplane_common::trie::{self, MAX_SLABS, Root, Slab, Words};

use crate::query::Query;

/// `BPF_F_MMAPABLE`, as the data path has it.
const MMAPABLE: usize = 1 << 10;

/// Most prefixes in the trie of the kernel's.
const MOST_PREFIXES: usize = 1 << 20;

#[btf_map]
static ROUTE_ROOT: Array<Root, 1, MMAPABLE> = Array::new();

#[btf_map]
static ROUTE_SLABS: ArrayOfMaps<Array<Slab, 1, MMAPABLE>, { MAX_SLABS as usize }> = ArrayOfMaps::new();

#[btf_map]
static LPM: LpmTrie<u32, u32, MOST_PREFIXES> = LpmTrie::new();

#[btf_map]
static QUERY: Array<Query, 1> = Array::new();

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

/// What all loops cost that look nothing up.
#[xdp]
pub fn nothing(_: XdpContext) -> u32 {
    ask(random, |_, address| address != 0)
}

/// Random addresses in the data path's table.
#[xdp]
pub fn trie_random(_: XdpContext) -> u32 {
    ask(random, in_trie)
}

/// One address of each prefix in the data path's table.
#[xdp]
pub fn trie_each(_: XdpContext) -> u32 {
    ask(each, in_trie)
}

/// Random addresses in the kernel's trie for BPF.
#[xdp]
pub fn lpm_random(_: XdpContext) -> u32 {
    ask(random, |_, address| LPM.get(&Key::new(32, address.to_be())).is_some())
}

/// One address of each prefix in the kernel's own routes.
#[xdp]
pub fn kernel_each(ctx: XdpContext) -> u32 {
    let ctx = ctx.as_ptr();
    ask(each, move |query, address| {
        // SAFETY: zeros are valid for plain numbers.
        let mut fib: FibLookup = unsafe { core::mem::zeroed() };
        fib.family = AF_INET;
        fib.ifindex = query.ifindex;
        fib.__bindgen_anon_4.ipv4_dst = address.to_be();
        // SAFETY: the context is the program's own, and the kernel is told the structure's size.
        let result = unsafe { bpf_fib_lookup(ctx, &raw mut fib, size_of::<FibLookup>() as i32, 0) };
        result == SUCCESS || result == NO_NEIGHBOUR
    })
}

const AF_INET: u8 = 2;

// `BPF_FIB_LKUP_RET_*`: a route with the neighbour's address, and one whose neighbour is not known.
const SUCCESS: i64 = 0;
const NO_NEIGHBOUR: i64 = 7;

#[inline(always)]
fn in_trie(query: &Query, address: u32) -> bool {
    trie::lookup(&Maps, address).is_some_and(|entry| u32::from(entry.prefix_length()) == query.length)
}

/// Any address of any of the prefixes: MurmurHash3's last mixing of the round's number.
#[inline(always)]
fn random(query: &Query, round: u32) -> u32 {
    let mut hash = round.wrapping_add(query.seed);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^= hash >> 16;
    let prefix = ((u64::from(hash) * u64::from(query.prefixes)) >> 32) as u32;
    let host = hash & ((1 << (32 - (query.length & 31))) - 1);
    query.first + (prefix << (32 - (query.length & 31))) + host
}

/// The first address of the prefix with the round's number.
#[inline(always)]
fn each(query: &Query, round: u32) -> u32 {
    query.first + (round << (32 - (query.length & 31)))
}

/// Asks for the query's addresses and notes how many have a route.
#[inline(always)]
fn ask(address: impl Fn(&Query, u32) -> u32, has_route: impl Fn(&Query, u32) -> bool) -> u32 {
    let Some(query) = QUERY.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: one of the programs runs at a time.
    let query = unsafe { &mut *query };
    let asked = *query;
    let mut hits = 0;
    repeat(asked.rounds, |round| hits += u64::from(has_route(&asked, address(&asked, round))));
    query.hits = hits;
    xdp_action::XDP_DROP
}

/// Calls `body` with 0, 1 and so on, below `count`: `bpf_loop` (Linux 5.17).
#[inline(always)]
fn repeat<F: FnMut(u32)>(count: u32, mut body: F) {
    unsafe extern "C" fn call<F: FnMut(u32)>(round: u32, body: *mut c_void) -> i64 {
        // SAFETY: what `repeat` handed over, which nobody else uses meanwhile.
        unsafe { (*body.cast::<F>())(round) };
        0
    }
    // SAFETY: the callback takes what it is given here, and `body` lives during the call.
    unsafe { bpf_loop(count, call::<F> as *mut c_void, (&raw mut body).cast(), 0) };
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: the verifier proves that no panic can be reached: bounds are checked before each access.
    unsafe { core::hint::unreachable_unchecked() }
}
