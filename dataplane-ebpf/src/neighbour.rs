//! Neighbours of frames at XDP hooks, which have no `bpf_redirect_neigh`: the kernel's table, asked now and then.
//!
//! The kernel goes on to say whose MAC is whose, with or without a daemon: what is kept of its answers is good for a
//! tenth of a second. It confirms only neighbours that its own packets go to, so some go by it: the first one of each,
//! and one every few seconds.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_FIB_LOOKUP_DIRECT, BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup as FibLookup},
    btf_maps::PerCpuArray,
    cty::c_void,
    helpers::{bpf_fib_lookup, bpf_ktime_get_coarse_ns},
    macros::btf_map,
};
use dataplane_common::{
    neighbour::{CONFIRM_PERIOD, NEIGHBOUR_SLOTS, Neighbour, TICK_SHIFT, slot},
    net::{Ipv4Be, MacPair},
    reason::Reason,
};

use crate::{observe, verdict::Walk};

const AF_INET: u8 = 2;

/// Each CPU's own, so that nobody reads half of an entry.
#[btf_map]
static NEIGHBOURS: PerCpuArray<Neighbour, { NEIGHBOUR_SLOTS as usize }> = PerCpuArray::new();

/// The addresses of a frame that leaves to `address` by `ifindex`; `context` is that of the program.
#[inline(always)]
pub fn find(context: *mut c_void, ifindex: u32, address: Ipv4Be) -> Walk<MacPair> {
    let entry = NEIGHBOURS.get_ptr_mut(slot(ifindex, address)).ok_or(Reason::TableFault)?;
    // SAFETY: this CPU's own value, and nothing interrupts a program at an XDP hook to run another one there.
    let entry = unsafe { &mut *entry };
    // SAFETY: a helper without arguments.
    let now = (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32;
    let is_new = entry.address != address || entry.ifindex != ifindex;
    if (is_new || now.wrapping_sub(entry.confirmed) > CONFIRM_PERIOD) && !observe::is_trace() {
        entry.address = address;
        entry.ifindex = ifindex;
        entry.confirmed = now;
        entry.asked = now.wrapping_sub(1); // the next packet asks
        return Err(Reason::NoNeighbour);
    }
    if !is_new && now == entry.asked {
        return Ok(entry.addresses);
    }
    let addresses = ask(context, ifindex, address)?;
    if !observe::is_trace() {
        entry.addresses = addresses;
        entry.asked = now;
    }
    Ok(addresses)
}

/// What the kernel knows of a neighbour now (bpf-helpers(7), `bpf_fib_lookup`).
#[inline(always)]
fn ask(context: *mut c_void, ifindex: u32, address: Ipv4Be) -> Walk<MacPair> {
    let mut lookup = MaybeUninit::<FibLookup>::uninit();
    for word in 0..size_of::<FibLookup>() / 8 {
        // SAFETY: within the structure. Volatile, in whole words: a loop over its bytes is long for the verifier.
        unsafe { lookup.as_mut_ptr().cast::<u64>().add(word).write_volatile(0) };
    }
    // SAFETY: integers, for which zero is valid.
    let lookup = unsafe { lookup.assume_init_mut() };
    lookup.family = AF_INET;
    lookup.ifindex = ifindex;
    lookup.__bindgen_anon_4.ipv4_dst = address.to_wire();
    let flags = BPF_FIB_LOOKUP_DIRECT | BPF_FIB_LOOKUP_OUTPUT;
    // SAFETY: the structure lives during the call and is as long as it says.
    let result = unsafe { bpf_fib_lookup(context, lookup, size_of::<FibLookup>() as i32, flags) };
    // The kernel's route to a router may lead by another one (`onlink`): it gives back whose MAC that is.
    // SAFETY: an integer, whatever the call has made of it.
    let next_hop = unsafe { lookup.__bindgen_anon_4.ipv4_dst };
    if result != 0 || lookup.ifindex != ifindex || next_hop != address.to_wire() {
        return Err(Reason::NoNeighbour);
    }
    // SAFETY: six bytes each, at even offsets.
    let half = |mac: &[u8; 6], index| unsafe { mac.as_ptr().cast::<u16>().add(index).read_volatile() };
    let (destination, source) = (&lookup.dmac, &lookup.smac);
    Ok(MacPair::from_halves([
        half(destination, 0),
        half(destination, 1),
        half(destination, 2),
        half(source, 0),
        half(source, 1),
        half(source, 2),
    ]))
}
