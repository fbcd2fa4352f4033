//! Random changes, compared with a list of routes and a linear search.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dataplane_common::reason::Reason;
use dataplane_common::route::{Entry, Target};
use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::heap::Heap;
use super::{Table, assert_empty};

#[derive(Clone, Debug)]
enum Step {
    Insert(Ipv4Net, Target),
    Remove(Ipv4Net),
    /// The daemon is gone and another opens its table.
    Reopen,
}

/// Prefixes of all lengths around few addresses, so that they nest, neighbour and meet again.
fn prefixes() -> impl Strategy<Value = Ipv4Net> {
    let centres = prop::sample::select(vec![0, 0xac13_2380, 0xac13_23ff, 0xac13_0000, 0x0a8d_0001, u32::MAX]);
    let nearby = (0_u32..32, any::<bool>()).prop_map(|(bit, flip)| u32::from(flip) << bit);
    // Half of them are lengths of this kind of network; the others are all there are.
    let lengths = prop_oneof![0_u8..=32, prop::sample::select(vec![16_u8, 24, 26, 32])];
    (centres, nearby, lengths).prop_map(|(centre, flipped, length)| {
        Ipv4Net::new_assert(Ipv4Addr::from(centre ^ flipped), length).trunc()
    })
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0_u32..50).prop_map(Target::Endpoint),
        (0_u32..50).prop_map(Target::NextHop),
        Just(Target::Block),
        Just(Target::Kernel(Reason::ToHost)),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prefixes(), targets()).prop_map(|(prefix, target)| Step::Insert(prefix, target)),
        9 => prefixes().prop_map(Step::Remove),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<Ipv4Net, Target>;

fn longest(model: &Model, address: Ipv4Addr) -> Entry {
    model
        .iter()
        .filter(|(prefix, _)| prefix.contains(&address))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map_or(Entry::NONE, |(prefix, target)| Entry::route(prefix.prefix_len(), *target))
}

/// The ends of a prefix, and the addresses just outside.
fn boundaries(prefix: Ipv4Net) -> [Ipv4Addr; 4] {
    let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
    [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(Ipv4Addr::from)
}

fn check(table: &Table<Heap>, model: &Model, addresses: impl IntoIterator<Item = Ipv4Addr>) {
    for address in addresses {
        assert_eq!(table.lookup(address), longest(model, address), "{address}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_list_of_routes(
        steps in prop::collection::vec(steps(), 1..120),
        random in prop::collection::vec(any::<u32>().prop_map(Ipv4Addr::from), 16),
    ) {
        let memory = Heap::default();
        let mut table = Table::open(memory.clone()).unwrap();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Insert(prefix, target) => {
                    prop_assert_eq!(table.insert(prefix, target).unwrap(), model.insert(prefix, target));
                    check(&table, &model, boundaries(prefix));
                }
                Step::Remove(near) => {
                    // One that is there, if there is any at or after it: few random prefixes would be.
                    let prefix = model.range(near..).next().map_or(near, |(prefix, _)| *prefix);
                    prop_assert_eq!(table.remove(prefix), model.remove(&prefix));
                    check(&table, &model, boundaries(prefix));
                }
                Step::Reopen => {
                    let before = table.usage();
                    table = Table::open(memory.clone()).unwrap();
                    prop_assert_eq!(table.usage().chunks_used, before.chunks_used);
                    prop_assert_eq!(table.usage().chunk_bytes_used, before.chunk_bytes_used);
                    for (prefix, target) in table.routes() {
                        prop_assert_eq!(model.get(&prefix), Some(&target));
                    }
                    check(&table, &model, model.keys().flat_map(|prefix| boundaries(*prefix)));
                    // As the daemon does; a route that was hidden is known again from here on.
                    for (&prefix, &target) in &model {
                        table.insert(prefix, target).unwrap();
                    }
                }
            }
            check(&table, &model, random.iter().copied());
            prop_assert_eq!(table.usage().routes, model.len());
        }
        check(&table, &model, model.keys().flat_map(|prefix| boundaries(*prefix)));
        prop_assert!(table.routes().eq(model.iter().map(|(prefix, target)| (*prefix, *target))));
        for prefix in std::mem::take(&mut model).into_keys() {
            prop_assert!(table.remove(prefix).is_some());
        }
        assert_empty(&table);
        assert_empty(&Table::open(memory).unwrap());
    }
}
