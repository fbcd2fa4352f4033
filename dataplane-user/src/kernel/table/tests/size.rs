//! What many routes take.

use std::net::Ipv4Addr;

use dataplane_common::route::Target;
use ipnet::Ipv4Net;

use super::Table;
use super::heap::Heap;

/// Slab bytes that these /26 take. `share` is the part of a million routes that they are.
fn slab_bytes(prefixes: impl Iterator<Item = Ipv4Net>) -> usize {
    let mut table = Table::open(Heap::default()).unwrap();
    for (prefix, number) in prefixes.zip(0..) {
        table.insert(prefix, Target::NextHop(number % 1000)).unwrap();
    }
    table.usage().slabs as usize * (256 << 10)
}

/// Every /26 of so many addresses from 10.0.0.0 on.
fn dense(routes: u32) -> impl Iterator<Item = Ipv4Net> {
    (0..routes).map(|block| Ipv4Net::new_assert(Ipv4Addr::from((10 << 24) + (block << 6)), 26))
}

/// Blocks all over 2^`bits` addresses, none twice: an odd multiplier permutes the numbers of the blocks.
fn random(routes: u32, bits: u32) -> impl Iterator<Item = Ipv4Net> {
    let mask = (1 << (bits - 6)) - 1;
    (0..routes)
        .map(move |n| Ipv4Net::new_assert(Ipv4Addr::from((n.wrapping_mul(0x9e37_79b1) & mask) << 6), 26))
}

#[test]
fn an_eighth_of_a_million_blocks_is_small() {
    assert!(slab_bytes(dense(1 << 17)) < 10_000_000 / 8);
    assert!(slab_bytes(random(125_000, 29)) < 100_000_000 / 8);
}

#[test]
#[ignore = "takes long without optimisation: run it with --release"]
fn a_million_blocks_are_small() {
    assert!(slab_bytes(dense(1 << 20)) < 10_000_000);
    assert!(slab_bytes(random(1_000_000, 32)) < 100_000_000);
}
