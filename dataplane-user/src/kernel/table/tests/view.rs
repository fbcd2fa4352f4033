//! What a reader in another process sees.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use anyhow::Result;
use dataplane_common::reason::Reason;
use dataplane_common::route::Target;
use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::heap::Heap;
use super::{Memory, Table, net};
use crate::kernel::table::view::{Source, View};

impl Source for Heap {
    fn root(&self, index: usize) -> u32 {
        Memory::root(self)[index].load(Ordering::Acquire)
    }

    fn slab(&mut self, slab: u32, first: u32, words: &mut [u32]) -> Result<bool> {
        let Some(slab) = Memory::slab(self, slab) else { return Ok(false) };
        for (word, from) in words.iter_mut().zip(&slab[first as usize..]) {
            *word = from.load(Ordering::Acquire);
        }
        Ok(true)
    }
}

fn listed(heap: &Heap) -> Vec<(Ipv4Net, Target)> {
    let mut routes = Vec::new();
    View::new(heap.clone())
        .routes(|prefix, target| {
            routes.push((prefix, target));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    routes
}

#[test]
fn routes_come_in_order_each_once() {
    let heap = Heap::default();
    let mut table = Table::open(heap.clone()).unwrap();
    let routes = [
        ("0.0.0.0/0", Target::NextHop(1)),
        // Hides the beginning of all that are shorter and begin there.
        ("10.0.0.0/8", Target::NextHop(2)),
        ("10.0.0.0/15", Target::Block),
        ("10.0.0.0/16", Target::NextHop(3)),
        ("10.0.0.0/24", Target::NextHop(4)),
        ("10.0.0.0/32", Target::Endpoint(5)),
        ("10.0.0.255/32", Target::Endpoint(6)),
        ("10.1.0.0/17", Target::Kernel(Reason::ToHost)),
        ("10.1.128.0/18", Target::NextHop(2)),
        ("224.0.0.0/4", Target::Kernel(Reason::Multicast)),
        ("255.255.255.255/32", Target::Block),
    ];
    let routes: Vec<_> = routes.into_iter().map(|(prefix, target)| (net(prefix), target)).collect();
    for &(prefix, target) in routes.iter().rev() {
        table.insert(prefix, target).unwrap();
    }
    // 10.0.0.0/15 lies under 10.0.0.0/16 and, in its second half, under nothing that hides it all.
    assert_eq!(listed(&heap), routes);
    let mut view = View::new(heap);
    assert_eq!(
        view.lookup([10, 0, 0, 255].into()).unwrap(),
        Some((net("10.0.0.255/32"), Target::Endpoint(6)))
    );
    assert_eq!(view.lookup([10, 9, 0, 1].into()).unwrap(), Some((net("10.0.0.0/8"), Target::NextHop(2))));
}

#[test]
fn a_reader_breaks_off() {
    let heap = Heap::default();
    let mut table = Table::open(heap.clone()).unwrap();
    for third in 0..100 {
        table.insert(Ipv4Net::new_assert([10, 0, third, 0].into(), 24), Target::Block).unwrap();
    }
    let mut seen = 0;
    View::new(heap)
        .routes(|_, _| {
            seen += 1;
            Ok(if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .unwrap();
    assert_eq!(seen, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Prefixes near each other, so that they hide one another.
    #[test]
    fn a_list_is_what_the_writer_has(
        routes in proptest::collection::vec((0_u32..1 << 12, 0_u32..1 << 12, 0_u8..=32, 0_u32..50), 0..200)
    ) {
        let heap = Heap::default();
        let mut table = Table::open(heap.clone()).unwrap();
        for (high, low, length, index) in routes {
            let prefix = Ipv4Net::new_assert((high << 20 | low).into(), length);
            table.insert(prefix, Target::NextHop(index)).unwrap();
        }
        // What longer routes hide entirely stands in no word.
        let visible: Vec<_> = Table::open(heap.clone()).unwrap().routes().collect();
        prop_assert_eq!(listed(&heap), visible);
    }
}

/// A writer that takes the chunk away, and uses it for other addresses, between a reader's word and its chunk.
struct Meddling {
    heap: Heap,
    reads: usize,
}

impl Source for Meddling {
    fn root(&self, index: usize) -> u32 {
        Source::root(&self.heap, index)
    }

    fn slab(&mut self, slab: u32, first: u32, words: &mut [u32]) -> Result<bool> {
        self.reads += 1;
        // The first time is for the short prefixes.
        if self.reads == 2 {
            let root = Memory::root(&self.heap);
            root[0xc800].store(root[0xac01].swap(0, Ordering::AcqRel), Ordering::Release);
        }
        Source::slab(&mut self.heap, slab, first, words)
    }
}

#[test]
fn a_chunk_that_is_used_again_is_not_taken_for_what_it_was() {
    let heap = Heap::default();
    let mut table = Table::open(heap.clone()).unwrap();
    table.insert(net("172.1.0.0/24"), Target::Block).unwrap();
    let mut routes = Vec::new();
    View::new(Meddling { heap, reads: 0 })
        .routes(|prefix, _| {
            routes.push(prefix);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert_eq!(routes, [net("200.0.0.0/24")]);
}
