//! Any interleaving of packets, time and sweeps, against a model that is a map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{super::super::state, *};

/// What happens to the table.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A packet out of this source port to this destination.
    Out { source: u16, destination: u8, tcp: bool, flags: u8 },
    /// A reply to the flow that this packet has or had.
    In { source: u16, destination: u8, tcp: bool, flags: u8 },
    /// So many ticks pass.
    Wait(u32),
    /// This share of the records is swept.
    Sweep(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let packet =
        || (0..24u16, 0..4u8, any::<bool>(), prop::sample::select(vec![0x02, 0x10, 0x11, 0x12, 0x04]));
    prop_oneof![
        6 => packet().prop_map(|(source, destination, tcp, flags)| Act::Out { source, destination, tcp, flags }),
        6 => packet().prop_map(|(source, destination, tcp, flags)| Act::In { source, destination, tcp, flags }),
        1 => (0..700u32).prop_map(Act::Wait),
        1 => (0..4u32).prop_map(Act::Sweep),
    ]
}

fn key(source: u16, destination: u8, tcp: bool) -> Tuple {
    tuple(if tcp { protocol::TCP } else { protocol::UDP }, (2, source), (destination, 80))
}

/// What the model knows of a flow.
#[derive(Clone, Copy, Debug)]
struct Known {
    port: u16,
    progress: state::Progress,
    deadline: u32,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_a_bijection(acts in prop::collection::vec(act(), 1..300), ports in 4..40u16) {
        // Roomy enough that nothing gives way, tight enough in ports that some are refused.
        let arrays = Arrays::new(1024);
        let pool = Pool { count: ports, ..POOL };
        let mut known: HashMap<Tuple, Known> = HashMap::new();
        let mut now = 0;
        for (step, act) in acts.into_iter().enumerate() {
            let table = arrays.at(now);
            known.retain(|_, flow| flow.deadline > now);
            match act {
                Act::Wait(ticks) => now += ticks,
                Act::Sweep(part) => {
                    for stretch in (part..table.stretches()).step_by(4) {
                        table.sweep(stretch, |_| true);
                    }
                }
                Act::Out { source, destination, tcp, flags } => {
                    let tuple = key(source, destination, tcp);
                    let flags = if tcp { flags } else { 0 };
                    let found = table.find_out(&tuple);
                    prop_assert_eq!(found.is_some(), known.contains_key(&tuple));
                    if let Some(hit) = found {
                        let flow = known.get_mut(&tuple).unwrap();
                        prop_assert_eq!(hit.flow.translated_port(), flow.port);
                        prop_assert!(table.renew(&hit, Direction::Out, flags));
                        flow.progress = flow.progress.after(Direction::Out, flags);
                        flow.deadline = now + arrays.settings.timeout(flow.progress.state);
                        prop_assert_eq!(Life::from_bits(hit.flow.life.load()).state(), flow.progress.state);
                    } else if let Some(state) = state::first(tuple.protocol, flags) {
                        let rivals = |other: &Tuple, flow: &Known, port| {
                            other.protocol == tuple.protocol
                                && other.destination == tuple.destination
                                && flow.port == port
                        };
                        // A closed connection gives its port up where no other is left.
                        let in_use = |port| known.iter().any(|(other, flow)| {
                            rivals(other, flow, port) && flow.progress.state.rank() != Rank::Ended
                        });
                        let outcome = table.open(&tuple, &pool, state);
                        if let Some(refusal) = outcome.refusal() {
                            prop_assert_eq!(refusal, Refusal::Ports);
                            prop_assert!((pool.first..pool.first + ports).all(in_use), "there was a port");
                        } else {
                            let port = table.hit(outcome.slot()).unwrap().flow.translated_port();
                            prop_assert!(!in_use(port), "port {} is another flow's", port);
                            let before = known.len();
                            known.retain(|other, flow| !rivals(other, flow, port));
                            let displaced = if known.len() < before { Rank::Ended } else { Rank::Gone };
                            prop_assert_eq!(outcome.displaced(), displaced);
                            prop_assert!((pool.first..pool.first + ports).contains(&port));
                            let progress = state::Progress { state, marks: 0 };
                            let deadline = now + arrays.settings.timeout(state);
                            known.insert(tuple, Known { port, progress, deadline });
                        }
                    }
                }
                Act::In { source, destination, tcp, flags } => {
                    let tuple = key(source, destination, tcp);
                    let flags = if tcp { flags } else { 0 };
                    if let Some(flow) = known.get_mut(&tuple) {
                        let mut reply = tuple.reversed();
                        (reply.destination, reply.destination_port) = (pool.address, flow.port);
                        let hit = table.find_in(&reply).expect("a reply to a living flow");
                        prop_assert_eq!(hit.flow.original(), tuple);
                        prop_assert!(table.renew(&hit, Direction::In, flags));
                        flow.progress = flow.progress.after(Direction::In, flags);
                        flow.deadline = now + arrays.settings.timeout(flow.progress.state);
                    }
                }
            }
            if step % 16 == 0 {
                arrays.check(now);
            }
        }
        arrays.check(now);
    }
}
