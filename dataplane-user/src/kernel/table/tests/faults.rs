//! Memory that an earlier run, or somebody else, left in a bad state.

use std::sync::atomic::{AtomicU32, Ordering};

use dataplane_common::route::{Entry, Target};
use dataplane_common::trie::chunk_position;

use super::heap::Heap;
use super::{Memory, Table, assert_empty, at, net};
use crate::kernel::table::{Unreadable, load, prepare};

const ROOT_INDEX: usize = 0xac13;

/// 172.19.35.128/26 alone: a word in the root, one in a chunk of 256, one in a chunk of 4.
fn one_block() -> Heap {
    let memory = Heap::default();
    Table::open(memory.clone()).unwrap().insert(net("172.19.35.128/26"), Target::Block).unwrap();
    memory
}

/// The words of the chunk that the word leads to.
fn below<'a>(memory: &'a Heap, word: &AtomicU32) -> &'a [AtomicU32] {
    let (slab, first) = chunk_position(load(word).as_chunk().unwrap());
    &memory.slab(slab).unwrap()[first as usize..]
}

fn refused(memory: Heap) -> String {
    let before: Vec<u32> = memory.root().iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let error = Table::open(memory.clone()).unwrap_err();
    assert!(error.downcast_ref::<Unreadable>().is_some(), "{error:#}");
    let after = memory.root().iter().map(|word| word.load(Ordering::Relaxed));
    assert!(after.eq(before), "a refused table is left as it is");
    error.to_string()
}

#[test]
fn words_that_make_no_sense_are_refused_and_named() {
    let root = |bits: u32| {
        let memory = one_block();
        memory.root()[ROOT_INDEX].store(bits, Ordering::Relaxed);
        refused(memory)
    };
    let beyond = root(Entry::chunk(1 << 20).to_bits());
    assert!(beyond.contains("172.19.0.0/16") && beyond.contains("lies in no slab"), "{beyond}");
    assert!(beyond.ends_with("must be rebuilt"), "{beyond}");
    assert!(root(Entry::chunk(1).to_bits()).contains("lies in no slab"), "not aligned");
    assert!(root(Entry::route(17, Target::Block).to_bits()).contains("longer than the table's level"));
    assert!(root(0xf000_0001).contains("does not know"), "a kind that is none");
    assert!(root(0x0000_0001).contains("does not know"), "an index without a kind");
    assert!(root(5 << 28 | 0x3fffff).contains("does not know"), "a reason that is none");
}

#[test]
fn loops_and_shared_chunks_are_refused() {
    let memory = one_block();
    let top = &memory.root()[ROOT_INDEX];
    prepare(&below(&memory, top)[0], load(top));
    assert!(refused(memory).contains("172.19.0.0/24"), "a chunk that leads to itself");

    let memory = one_block();
    prepare(&memory.root()[0], load(&memory.root()[ROOT_INDEX]));
    assert!(refused(memory).contains("used twice"));

    let memory = one_block();
    Table::open(memory.clone()).unwrap().insert(net("172.19.35.129/32"), Target::Endpoint(1)).unwrap();
    let block = &below(&memory, &below(&memory, &memory.root()[ROOT_INDEX])[35])[2];
    prepare(&below(&memory, block)[9], Entry::chunk(0));
    assert!(refused(memory).contains("172.19.35.137/32"), "below the last level");
}

#[test]
fn a_half_written_route_is_completed() {
    let memory = Heap::default();
    let mut table = Table::open(memory.clone()).unwrap();
    table.insert(net("10.0.0.0/8"), Target::NextHop(1)).unwrap();
    table.insert(net("10.7.0.0/24"), Target::NextHop(2)).unwrap();
    drop(table);
    // A run was killed as it gave 10.0.0.0/8 another target, and had come as far as 10.5.0.0.
    for word in &memory.root()[0x0a00..0x0a05] {
        prepare(word, Entry::route(8, Target::NextHop(3)));
    }
    let mut table = Table::open(memory.clone()).unwrap();
    let now = at(&table, "10.0.0.1");
    assert_eq!(table.get(net("10.0.0.0/8")), now.target());
    for address in ["10.4.0.1", "10.5.0.1", "10.7.1.1", "10.255.0.1"] {
        assert_eq!(at(&table, address), now, "{address}");
    }
    assert_eq!(at(&table, "10.7.0.1"), Entry::route(24, Target::NextHop(2)));
    table.remove(net("10.0.0.0/8"));
    table.remove(net("10.7.0.0/24"));
    assert_empty(&table);
}

#[test]
fn a_chunk_that_was_emptied_and_not_unlinked_is_unlinked() {
    let memory = one_block();
    let block = &below(&memory, &below(&memory, &memory.root()[ROOT_INDEX])[35])[2];
    assert_eq!(load(block), Entry::route(26, Target::Block));
    prepare(block, Entry::NONE);
    assert_empty(&Table::open(memory).unwrap());
}

#[test]
fn opening_waits_for_the_readers_of_what_looks_free() {
    let memory = one_block();
    let before = memory.synchronized();
    Table::open(memory.clone()).unwrap();
    assert_eq!(memory.synchronized(), before + 1);
}
