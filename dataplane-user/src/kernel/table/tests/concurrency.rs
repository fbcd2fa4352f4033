//! A reader on another CPU, which never sees anything but the route before a change or the one after it.

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
    let address = [10, 20][random as usize & 1] << 24 | (random & 0x0007_e3c3);
    Ipv4Net::new_assert(Ipv4Addr::from(address), 9 + (random >> 20) as u8 % 24).trunc()
}

#[test]
fn a_reader_sees_the_old_route_or_the_new() {
    let stable = ["10.0.0.0/8", "20.0.0.0/8"].map(super::net);
    // So little memory that a chunk is used again soon, for another prefix.
    let memory = Heap::limited(1);
    let mut table = Table::open(memory.clone()).unwrap();
    for prefix in stable {
        table.insert(prefix, target(prefix, 0)).unwrap();
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
        let mut random = Random(0x8765_4321);
        let mut changes = 0_u32;
        // Until both have done enough to meet, wherever the scheduler puts them.
        while (changes < 30_000 || lookups.load(Ordering::Relaxed) < 30_000) && !reader.is_finished() {
            let prefix = churned(random.next());
            if random.next().is_multiple_of(3) {
                table.remove(prefix);
            } else if table.insert(prefix, target(prefix, changes)).is_err() {
                let present: Vec<_> = table.routes().map(|(prefix, _)| prefix).collect();
                present
                    .into_iter()
                    .filter(|prefix| !stable.contains(prefix))
                    .for_each(|p| _ = table.remove(p));
            }
            changes += 1;
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("the reader saw only what it may see");
    });
    assert!(memory.synchronized() > 10, "chunks were used again: {} grace periods", memory.synchronized());
}
