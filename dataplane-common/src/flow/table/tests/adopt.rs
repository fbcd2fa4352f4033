//! Flows of another table.

use super::*;

fn of(arrays: &Arrays<V4>, port: u16) -> Known<V4> {
    let Hit { flow, life, slot, .. } = arrays.at(100).lookup(&udp(port)).expect("a flow");
    let counts = &arrays.counts[slot as usize];
    Known {
        original: flow.original(),
        reply: flow.reply(),
        flags: flow.flags(),
        progress: life.progress(),
        deadline: life.deadline(),
        opened: flow.opened(),
        bytes: Direction::BOTH.map(|direction| counts.bytes(direction)),
        packets: Direction::BOTH.map(|direction| counts.packets(direction)),
    }
}

#[test]
fn all_that_was_known_is_known_again() {
    let mut arrays = Arrays::new(64);
    arrays.settings.max_flows_per_source = 2;
    let flows = [known(1, 50_001, State::TcpClosing), known(2, 50_002, State::UdpReplied)];
    for flow in flows.iter().chain(&flows) {
        assert_eq!(arrays.at(100).adopt(flow), Ok(()), "also the second time, with the share used up");
        arrays.check(100);
    }
    assert_eq!([of(&arrays, 1), of(&arrays, 2)], flows);
    assert_eq!(arrays.at(100).adopt(&known(3, 50_003, State::UdpReplied)), Err(Refusal::Share));
    assert!(arrays.at(500).lookup(&udp(1)).is_none());
}

#[test]
fn what_is_read_later_holds() {
    let arrays = Arrays::new(64);
    assert_eq!(arrays.at(100).adopt(&known(1, 50_001, State::UdpUnreplied)), Ok(()));
    let later = Known { deadline: 700, packets: [11, 21], ..known(1, 50_001, State::UdpReplied) };
    assert_eq!(arrays.at(100).adopt(&later), Ok(()));
    assert_eq!(of(&arrays, 1), later);
    let anew = known(1, 50_009, State::UdpUnreplied);
    assert_eq!(arrays.at(100).adopt(&anew), Ok(()));
    assert_eq!(of(&arrays, 1), anew);
    arrays.check(100);
}

#[test]
fn a_port_is_not_given_twice() {
    let arrays = Arrays::new(64);
    assert_eq!(arrays.at(100).adopt(&known(1, 50_001, State::UdpReplied)), Ok(()));
    assert_eq!(arrays.at(100).adopt(&known(2, 50_001, State::UdpReplied)), Err(Refusal::Clash));
    arrays.check(100);
}
