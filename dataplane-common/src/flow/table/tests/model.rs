//! Any interleaving of packets of both ends, time and sweeps, against a model that is a map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{super::super::state, *};

/// What happens to the table.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A packet of the container's.
    Out(Packet),
    /// A packet of the remote end's: an answer, or one that begins a connection where there is none.
    In(Packet),
    /// So many ticks pass.
    Wait(u32),
    /// This part of the records is swept.
    Sweep(u32),
    /// The flow of that packet is ended.
    End(Packet),
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    port: u16,
    remote: u8,
    tcp: bool,
    flags: u8,
}

impl Packet {
    /// Its tuple, if the container sends it.
    fn tuple<F: Addresses>(self) -> Tuple<F> {
        tuple(if self.tcp { protocol::TCP } else { protocol::UDP }, (2, self.port), (self.remote, 80))
    }

    fn flags(self) -> u8 {
        if self.tcp { self.flags } else { 0 }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let packet = || {
        (0..24u16, 0..4u8, any::<bool>(), prop::sample::select(vec![0x02, 0x10, 0x11, 0x12, 0x04]))
            .prop_map(|(port, remote, tcp, flags)| Packet { port, remote, tcp, flags })
    };
    prop_oneof![
        8 => packet().prop_map(Act::Out),
        8 => packet().prop_map(Act::In),
        1 => (0..700u32).prop_map(Act::Wait),
        1 => (0..4u32).prop_map(Act::Sweep),
        1 => packet().prop_map(Act::End),
    ]
}

/// What the model knows of a flow, which it keeps by the tuple of the container's packets.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The port that the remote end sees; `None` for a connection that it began.
    port: Option<u16>,
    progress: Progress,
    deadline: u32,
}

fn run<F: Addresses>(acts: Vec<Act>, ports: u16) -> Result<(), TestCaseError> {
    // Roomy enough that nothing is evicted but for its port, tight enough in ports that some are refused.
    let arrays = Arrays::<F>::new(4096);
    let ports = Ports::new(50_000, 50_000 + ports - 1);
    let mut known: HashMap<Tuple<F>, Entry> = HashMap::new();
    let mut now = 1;
    for (step, act) in acts.into_iter().enumerate() {
        let table = arrays.at(now);
        known.retain(|_, entry| entry.deadline > now);
        match act {
            Act::Wait(ticks) => now += ticks,
            Act::Sweep(part) => {
                for stretch in (part..table.stretches()).step_by(4) {
                    table.sweep(stretch, |_| true);
                }
            }
            Act::End(packet) => {
                let tuple = packet.tuple();
                if let Some(hit) = table.lookup(&tuple) {
                    prop_assert!(table.end(hit.flow, hit.life));
                }
                known.remove(&tuple);
            }
            Act::Out(packet) | Act::In(packet) => {
                let is_out = matches!(act, Act::Out(_));
                let tuple = packet.tuple::<F>();
                let on_wire = match known.get(&tuple).and_then(|entry| entry.port) {
                    _ if is_out => tuple,
                    None => tuple.reversed(),
                    Some(port) => {
                        Tuple { destination: F::node(), destination_port: port, ..tuple.reversed() }
                    }
                };
                let found = table.lookup(&on_wire);
                prop_assert_eq!(found.is_some(), known.contains_key(&tuple));
                match found {
                    Some(hit) => {
                        let entry = known.get_mut(&tuple).unwrap();
                        let is_original = is_out == entry.port.is_some();
                        prop_assert_eq!(hit.direction == Direction::Original, is_original);
                        prop_assert!(table.renew(&hit, packet.flags()));
                        entry.progress = entry.progress.after(hit.direction, packet.flags());
                        entry.deadline = now + arrays.settings.timeout(entry.progress.state);
                        prop_assert_eq!(Life::from_bits(hit.flow.life.load()).progress(), entry.progress);
                    }
                    None => begin(&arrays, now, &mut known, packet, is_out, ports)?,
                }
            }
        }
        if step % 16 == 0 {
            arrays.check(now);
        }
    }
    arrays.check(now);
    Ok(())
}

/// A packet that belongs to no flow.
fn begin<F: Addresses>(
    arrays: &Arrays<F>,
    now: u32,
    known: &mut HashMap<Tuple<F>, Entry>,
    packet: Packet,
    is_out: bool,
    ports: Ports,
) -> Result<(), TestCaseError> {
    let tuple = packet.tuple::<F>();
    let Some(state) = state::first(tuple.protocol, packet.flags()) else { return Ok(()) };
    let entry = |port| Entry {
        port,
        progress: Progress::first(state),
        deadline: now + arrays.settings.timeout(state),
    };
    if !is_out {
        let outcome = arrays.at(now).insert(&inbound(&tuple.reversed(), state));
        prop_assert!(outcome.is_new(), "{:?}", outcome);
        known.insert(tuple, entry(None));
        return Ok(());
    }
    let rivals = |other: &Tuple<F>, entry: &Entry, port| {
        other.protocol == tuple.protocol && other.destination == tuple.destination && entry.port == Some(port)
    };
    let order =
        |port| known.iter().find(|(other, entry)| rivals(other, entry, port)).map(|(_, entry)| *entry);
    let outcome = arrays.at(now).insert(&snat(&tuple, ports, state));
    let all = || (0..ports.count()).map(|offset| ports.first + offset as u16);
    if let Some(refusal) = outcome.refusal() {
        prop_assert_eq!(refusal, Refusal::Ports);
        let in_use = |port| order(port).is_some_and(|entry| entry.progress.state.rank() != Rank::Ended);
        prop_assert!(all().all(in_use), "there was a port");
        return Ok(());
    }
    let port = arrays.at(now).hit(outcome.slot(), &tuple).unwrap().flow.reply().destination_port;
    prop_assert!(ports.contains(port));
    match order(port) {
        None => {
            prop_assert_eq!(outcome.evicted(), Rank::Gone);
            let is_own_free = ports.contains(packet.port) && order(packet.port).is_none();
            prop_assert!(!is_own_free || port == packet.port, "its own port was free");
        }
        Some(evicted) => {
            prop_assert_eq!(evicted.progress.state.rank(), Rank::Ended, "port {} is another flow's", port);
            prop_assert!(all().all(|port| order(port).is_some()), "another port was free");
            prop_assert_eq!(outcome.evicted(), Rank::Ended);
        }
    }
    known.retain(|other, entry| !rivals(other, entry, port));
    known.insert(tuple, entry(Some(port)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_flow_is_found_as_the_model_says(acts in prop::collection::vec(act(), 1..300), ports in 4..40u16) {
        run::<V4>(acts.clone(), ports)?;
        run::<V6>(acts, ports)?;
    }
}
