//! Flows of another table.

use super::{
    super::super::{flow::Known, state::Progress},
    *,
};

fn known(port: u16, translated: u16, state: State) -> Known {
    Known {
        original: udp(port),
        address: POOL.address,
        port: translated,
        progress: Progress { state, marks: 1 },
        deadline: 500,
        opened: 7,
        bytes: [1000, 2000],
        packets: [10, 20],
    }
}

fn of(arrays: &Arrays, port: u16) -> Known {
    let Hit { flow, life, .. } = arrays.at(100).find_out(&udp(port)).expect("a flow");
    Known {
        original: flow.original(),
        address: flow.translated_address(),
        port: flow.translated_port(),
        progress: life.progress(),
        deadline: life.deadline(),
        opened: flow.opened(),
        bytes: [Direction::Out, Direction::In].map(|direction| flow.bytes(direction)),
        packets: [Direction::Out, Direction::In].map(|direction| flow.packets(direction)),
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
    assert!(arrays.at(500).find_out(&udp(1)).is_none());
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
    assert_eq!(arrays.at(100).adopt(&known(2, 50_001, State::UdpReplied)), Err(Refusal::Ports));
    arrays.check(100);
}
