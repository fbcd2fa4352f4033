//! A reader on another CPU, which never sees anything but the route before a change or the one after it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dataplane_common::route::{Entry, MAX_INDEX, Target};
use dataplane_common::trie::{self, Words};
use ipnet::Ipv4Net;

use super::heap::Heap;
use super::{Memory, Table};

/// A small generator (Marsaglia's xorshift): the test needs speed and variety, not quality.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }
}

/// Reads words as a program does, but lets the writer pass between two of them.
struct Slow<'a>(&'a Heap);

impl Words for Slow<'_> {
    fn root(&self, index: u32) -> Option<u32> {
        Some(self.0.root()[index as usize].load(Ordering::Acquire))
    }

    fn slab(&self, slab: u32, index: u32) -> Option<u32> {
        thread::yield_now();
        Some(self.0.slab(slab)?[index as usize].load(Ordering::Acquire))
    }
}

/// The target of the n-th version of a prefix. It tells the prefix, so that an entry that belongs to another
/// one is noticed.
fn target(prefix: Ipv4Net, version: u32) -> Target {
    let mixed = (prefix.network().to_bits() >> 5).wrapping_mul(0x9e37) ^ u32::from(prefix.prefix_len());
    if version.is_multiple_of(2) {
        Target::NextHop(mixed & MAX_INDEX)
    } else {
        Target::Endpoint(mixed & MAX_INDEX)
    }
}

/// Whether the entry can be what the address is routed by: a version of a prefix that it lies in.
fn belongs(entry: Entry, address: Ipv4Addr) -> bool {
    let prefix = Ipv4Net::new_assert(address, entry.prefix_length()).trunc();
    (0..2).any(|version| entry.target() == Some(target(prefix, version)))
}

/// Prefixes under the two /8s in which the chunks of all sizes come and go.
fn churned(random: u32) -> Ipv4Net {
    let address = [10, 20][random as usize & 1] << 24 | (random & 0x0001_c3c3);
    Ipv4Net::new_assert(Ipv4Addr::from(address), 9 + (random >> 20) as u8 % 24).trunc()
}

/// Ends the reader, also where the writer panics: the scope would otherwise wait for ever.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Prefixes that are there at a time.
const PRESENT: usize = 24;

#[test]
fn a_reader_sees_the_old_route_or_the_new() {
    let stable = ["10.0.0.0/8", "20.0.0.0/8"].map(super::net);
    // So little memory that a chunk is used again soon, for another prefix.
    let memory = Heap::limited(1);
    let mut table = Table::open(memory.clone()).unwrap();
    for prefix in stable {
        table.insert(prefix, target(prefix, 0)).unwrap();
    }
    // At most 1,296 bytes each: little more than those that come and go need is left of the slab.
    for number in 0..200 - PRESENT as u8 - 10 {
        table.insert(Ipv4Net::from(Ipv4Addr::new(192, number, 2, 1)), Target::Block).unwrap();
    }
    let done = AtomicBool::new(false);
    let lookups = AtomicU64::new(0);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut random = Random(0x1234_5678);
            while !done.load(Ordering::Relaxed) {
                // The address of a prefix that may be there, somewhere within it.
                let prefix = churned(random.next());
                let host = random.next().checked_shr(prefix.prefix_len().into()).unwrap_or(0);
                let address = Ipv4Addr::from(prefix.network().to_bits() | host);
                let entry = memory.read(|memory| trie::lookup(&Slow(memory), address.to_bits()));
                let entry = entry.expect("every chunk lies in a slab");
                assert!(entry.prefix_length() >= 8 && belongs(entry, address), "{address}: {entry:?}");
                lookups.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ending = Ending(&done);
        let mut random = Random(0x8765_4321);
        let mut changes = 0_u32;
        let mut present = VecDeque::new();
        // Until chunks were used again often and both have done enough to meet, wherever the scheduler puts them.
        let enough = || memory.synchronized() >= 200 && lookups.load(Ordering::Relaxed) >= 30_000;
        while !enough() && !reader.is_finished() {
            let prefix = churned(random.next());
            table.insert(prefix, target(prefix, changes)).unwrap();
            present.push_back(prefix);
            if present.len() > PRESENT {
                present.pop_front().map(|oldest| table.remove(oldest));
            }
            changes += 1;
            assert!(changes < 1 << 23, "{} grace periods, {lookups:?} lookups", memory.synchronized());
        }
        drop(ending);
        reader.join().expect("the reader saw only what it may see");
    });
}
