//! The same among threads, as among CPUs.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use super::*;

const THREADS: u16 = 4;

/// A small generator (xorshift), so that a run can be told from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }
}

#[test]
fn a_port_is_claimed_by_one() {
    for round in 0..200 {
        let arrays = Arrays::<V4>::new(256);
        // Fewer ports than flows: the threads meet at all of them.
        let ports = Ports::new(50_000, 50_031);
        let claimed: Vec<u16> = thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|worker| {
                    let arrays = &arrays;
                    scope.spawn(move || {
                        let tuples = (0..16).map(|index| udp::<V4>(round * 100 + worker * 16 + index));
                        tuples
                            .map(|tuple| {
                                (tuple, arrays.at(1).insert(&snat(&tuple, ports, State::UdpUnreplied)))
                            })
                            .filter(|(_, outcome)| outcome.refusal().is_none())
                            .map(|(tuple, outcome)| {
                                let hit = arrays.at(1).hit(outcome.slot(), &tuple).unwrap();
                                hit.flow.reply().destination_port
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let mut unique = claimed.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), claimed.len(), "two flows have one port");
        arrays.check(1);
    }
}

#[test]
fn the_same_packet_on_every_cpu_opens_one_flow() {
    for round in 0..500 {
        let arrays = Arrays::<V4>::new(64);
        let opened = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let outcome = arrays.insert(1, &udp::<V4>(round), State::UdpUnreplied);
                    match outcome.refusal() {
                        None if outcome.is_new() => drop(opened.fetch_add(1, Ordering::Relaxed)),
                        None | Some(Refusal::Contended) => {}
                        Some(refusal) => panic!("{refusal:?}"),
                    }
                });
            }
        });
        assert_eq!(opened.into_inner(), 1);
        arrays.check(1);
    }
}

#[test]
fn packets_sweeps_and_time_run_beside_each_other() {
    let arrays = Arrays::<V4>::new(128);
    let clock = AtomicU32::new(1);
    thread::scope(|scope| {
        for worker in 0..THREADS {
            let (arrays, clock) = (&arrays, &clock);
            scope.spawn(move || {
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(worker + 1));
                for _ in 0..50_000 {
                    let now = clock.load(Ordering::Relaxed);
                    let table = arrays.at(now);
                    match random.below(40) {
                        0 => drop(clock.fetch_add(random.below(40) as u32, Ordering::Relaxed)),
                        1 => drop(table.sweep(random.below(u64::from(table.stretches())) as u32, |_| true)),
                        _ => packet(&table, &mut random),
                    }
                }
            });
        }
    });
    let end = clock.into_inner();
    arrays.check(end);
    arrays.sweep(end, |_| false);
    arrays.check(end);
    assert!(arrays.taken().is_empty());
}

/// A packet that begins a flow, from either end, or belongs to one; and one of the other direction, which must be of the very
/// flow.
fn packet(table: &Table<'_, Arrays<V4>>, random: &mut Random) {
    let container = tuple::<V4>(protocol::UDP, (2, random.below(300) as u16), (random.below(3) as u8, 53));
    let is_inbound = random.below(4) == 0;
    let tuple = if is_inbound { container.reversed() } else { container };
    let hit = match table.lookup(&tuple) {
        Some(hit) => hit,
        None => {
            let outcome = if is_inbound {
                table.insert(&inbound(&tuple, State::UdpUnreplied))
            } else {
                table.insert(&snat(&tuple, Ports::new(50_000, 50_063), State::UdpUnreplied))
            };
            let hit = table.hit(outcome.slot(), &tuple).filter(|_| outcome.refusal().is_none());
            let Some(hit) = hit else { return };
            hit
        }
    };
    let other = if hit.direction == Direction::Original { Direction::Reply } else { Direction::Original };
    let (this_way, back_way) = (hit.flow.tuple(hit.direction), hit.flow.tuple(other));
    if !table.renew(&hit, 0) {
        return; // it ended, and the tuples may be another's
    }
    assert_eq!(this_way, tuple);
    let Some(back) = table.lookup(&back_way) else { return };
    let original = back.flow.tuple(hit.direction);
    if table.renew(&back, 0) && back.slot == hit.slot && back.life.is_same_flow(hit.life) {
        assert_eq!((original, back.direction), (tuple, other));
    }
    if random.below(50) == 0 {
        table.end(back.flow, back.life);
    }
}
