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
        let arrays = Arrays::new(256);
        // Fewer ports than flows: the threads meet at all of them.
        let pool = Pool { count: 32, ..POOL };
        let claimed: Vec<u16> = thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|worker| {
                    let arrays = &arrays;
                    scope.spawn(move || {
                        let tuples = (0..16).map(|index| udp(round * 100 + worker * 16 + index));
                        tuples
                            .map(|tuple| arrays.at(1).open(&tuple, &pool, State::UdpUnreplied))
                            .filter(|outcome| outcome.refusal().is_none())
                            .map(|outcome| arrays.at(1).hit(outcome.slot()).unwrap().flow.translated_port())
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
        let arrays = Arrays::new(64);
        let opened = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let outcome = arrays.at(1).open(&udp(round), &POOL, State::UdpUnreplied);
                    match outcome.refusal() {
                        None if outcome.probes() > 0 => drop(opened.fetch_add(1, Ordering::Relaxed)),
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
    let arrays = Arrays::new(128);
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
    arrays.check(clock.into_inner());
}

/// A packet out, and sometimes its reply: it must be that of the very flow.
fn packet(table: &Table<'_, Arrays>, random: &mut Random) {
    let tuple = tuple(protocol::UDP, (2, random.below(300) as u16), (random.below(3) as u8, 53));
    let pool = Pool { count: 64, ..POOL };
    let hit = match table.find_out(&tuple) {
        Some(hit) => hit,
        None => {
            let outcome = table.open(&tuple, &pool, State::UdpUnreplied);
            let Some(hit) = table.hit(outcome.slot()).filter(|_| outcome.refusal().is_none()) else { return };
            hit
        }
    };
    let reply = hit.flow.reply();
    if !table.renew(&hit, Direction::Out, 0) {
        return; // it ended, and `reply` may be another's
    }
    let Some(back) = table.find_in(&reply) else { return };
    let original = back.flow.original();
    if table.renew(&back, Direction::In, 0) {
        assert_eq!(original.destination, tuple.destination);
        if back.slot == hit.slot && back.life.is_same_flow(hit.life) {
            assert_eq!(original, tuple);
        }
    }
}
