//! The table over plain memory: against a list of routes, against faulty words, and under a reader.

mod concurrency;
mod faults;
mod heap;
mod model;
mod size;
mod view;

use std::net::Ipv4Addr;

use dataplane_common::route::{Entry, Target};
use dataplane_common::trie::ROOT_WORDS;
use ipnet::Ipv4Net;

use self::heap::Heap;
use super::{Memory, Table, load};

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn at(table: &Table<Heap>, address: &str) -> Entry {
    table.lookup(address.parse().unwrap())
}

/// Asserts that nothing is left of any route.
fn assert_empty(table: &Table<Heap>) {
    let usage = table.usage();
    assert_eq!((usage.routes, usage.chunks_used, usage.chunk_bytes_used), (0, 0, 0));
    assert!(table.memory.root().iter().all(|word| load(word).is_none()));
}

#[test]
fn a_lookup_finds_the_longest_route() {
    let mut table = Table::open(Heap::default()).unwrap();
    assert_eq!(at(&table, "172.19.35.130"), Entry::NONE);
    let routes = [
        ("0.0.0.0/0", Target::NextHop(0)),
        ("172.19.0.0/16", Target::NextHop(16)),
        ("172.19.35.0/24", Target::NextHop(24)),
        ("172.19.35.128/26", Target::Block),
        ("172.19.35.130/32", Target::Endpoint(32)),
    ];
    // The longest first: the shorter ones must not hide them.
    for (prefix, target) in routes.into_iter().rev() {
        assert_eq!(table.insert(net(prefix), target).unwrap(), None);
    }
    for (address, length) in [
        ("192.0.2.1", 0),
        ("172.19.36.1", 16),
        ("172.19.35.127", 24),
        ("172.19.35.129", 26),
        ("172.19.35.130", 32),
        ("172.19.35.191", 26),
        ("172.19.35.192", 24),
    ] {
        let (_, target) = routes.iter().find(|(prefix, _)| net(prefix).prefix_len() == length).unwrap();
        assert_eq!(at(&table, address), Entry::route(length, *target), "{address}");
    }
    assert_eq!(table.routes().collect::<Vec<_>>(), routes.map(|(prefix, target)| (net(prefix), target)));
    assert_eq!(table.usage().chunks_used, 3);
}

#[test]
fn host_bits_do_not_count() {
    let mut table = Table::open(Heap::default()).unwrap();
    table.insert(net("10.1.2.3/8"), Target::Block).unwrap();
    assert_eq!(table.get(net("10.9.9.9/8")), Some(Target::Block));
    assert_eq!(table.insert(net("10.0.0.0/8"), Target::NextHop(1)).unwrap(), Some(Target::Block));
    assert_eq!(table.remove(net("10.255.0.0/8")), Some(Target::NextHop(1)));
    assert_eq!(table.remove(net("10.0.0.0/8")), None);
    assert_empty(&table);
}

#[test]
fn a_route_that_longer_ones_hide_comes_back() {
    let mut table = Table::open(Heap::default()).unwrap();
    table.insert(net("10.1.0.0/24"), Target::NextHop(1)).unwrap();
    table.insert(net("10.1.0.0/25"), Target::NextHop(2)).unwrap();
    table.insert(net("10.1.0.128/25"), Target::NextHop(3)).unwrap();
    table.remove(net("10.1.0.0/25"));
    assert_eq!(at(&table, "10.1.0.1"), Entry::route(24, Target::NextHop(1)));
    assert_eq!(at(&table, "10.1.0.129"), Entry::route(25, Target::NextHop(3)));
    table.remove(net("10.1.0.0/24"));
    assert_eq!(at(&table, "10.1.0.1"), Entry::NONE);
    table.remove(net("10.1.0.128/25"));
    assert_empty(&table);
}

#[test]
fn a_full_memory_refuses_a_route_and_the_table_stays_as_it_was() {
    let memory = Heap::limited(1);
    let mut table = Table::open(memory).unwrap();
    // A /32 takes 1,024 + 16 + 256 bytes where nothing is: the slab is full before the /16s are.
    let host = |number: u32| Ipv4Net::from(Ipv4Addr::from(number << 16));
    let full = (0..=u32::from(u16::MAX))
        .find(|number| {
            let before = table.usage();
            match table.insert(host(*number), Target::Endpoint(*number)) {
                Ok(_) => false,
                Err(error) => {
                    assert!(format!("{error:#}").contains("cannot add a route for"), "{error:#}");
                    assert_eq!(table.usage(), before);
                    true
                }
            }
        })
        .expect("a slab of 256 KiB is full before 65,536 /32s");
    assert_eq!(table.lookup(host(full).addr()), Entry::NONE);
    assert_eq!(table.get(host(full)), None);
    assert!((190..=204).contains(&full), "{full} routes in a slab");
    // What goes makes room, though it has to wait for the readers.
    table.remove(host(0));
    table.insert(host(full), Target::Endpoint(full)).unwrap();
    assert_eq!(table.lookup(host(full).addr()), Entry::route(32, Target::Endpoint(full)));
    assert_eq!(table.usage().slabs, 1);
}

#[test]
fn routes_that_come_and_go_share_few_grace_periods_and_little_memory() {
    let memory = Heap::default();
    let mut table = Table::open(memory.clone()).unwrap();
    for number in 0..20_000_u32 {
        let prefix = Ipv4Net::from(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b9)));
        table.insert(prefix, Target::Endpoint(number)).unwrap();
        table.remove(prefix);
    }
    assert_empty(&table);
    assert!(table.usage().slabs <= 2, "{:?}", table.usage());
    // 20,000 times 1,296 bytes are 99 slabs of garbage, in batches of a quarter at least.
    assert!(memory.synchronized() <= 4 * 99 + 1, "{} grace periods", memory.synchronized());
}

#[test]
fn an_index_beyond_the_entry_is_refused() {
    let mut table = Table::open(Heap::default()).unwrap();
    let error = table.insert(net("10.0.0.1/32"), Target::Endpoint(1 << 22)).unwrap_err();
    assert!(error.to_string().contains("10.0.0.1/32: index 4194304"), "{error}");
    assert_empty(&table);
}

#[test]
fn the_default_route_fills_the_root() {
    let mut table = Table::open(Heap::default()).unwrap();
    table.insert(net("0.0.0.0/0"), Target::NextHop(1)).unwrap();
    let entry = Entry::route(0, Target::NextHop(1));
    assert_eq!(table.memory.root().iter().filter(|word| load(word) == entry).count(), ROOT_WORDS);
    assert_eq!(table.remove(net("0.0.0.0/0")), Some(Target::NextHop(1)));
    assert_empty(&table);
}
