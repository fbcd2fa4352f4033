use super::{Direction::*, flags::*, *};
use crate::flow::tuple::protocol;

const START: Progress = Progress::first(State::TcpOpening);

fn progress(packets: &[(Direction, u8)]) -> Progress {
    packets.iter().fold(START, |progress, &(direction, flags)| progress.after(direction, flags))
}

fn after(packets: &[(Direction, u8)]) -> State {
    progress(packets).state
}

const OPEN: [(Direction, u8); 3] = [(Original, SYN), (Reply, SYN | ACK), (Original, ACK)];

fn after_open(packets: &[(Direction, u8)]) -> State {
    after(&[&OPEN[..], packets].concat())
}

#[test]
fn a_connection_opens_and_closes() {
    let steps = [
        ((Original, SYN), State::TcpOpening),
        ((Reply, SYN | ACK), State::TcpAnswered),
        ((Original, ACK), State::TcpEstablished),
        ((Reply, ACK), State::TcpEstablished),
        ((Original, FIN | ACK), State::TcpClosing),
        ((Reply, ACK), State::TcpClosing),
        ((Reply, FIN | ACK), State::TcpClosed),
        ((Original, ACK), State::TcpClosed),
    ];
    let mut now = START;
    for ((direction, flags), expected) in steps {
        now = now.after(direction, flags);
        assert_eq!(now.state, expected, "after {direction:?} {flags:#x}");
    }
}

#[test]
fn both_may_open_at_once() {
    assert_eq!(after(&[(Original, SYN), (Reply, SYN)]), State::TcpAnswered);
    assert_eq!(
        after(&[(Original, SYN), (Reply, SYN), (Original, SYN | ACK), (Reply, ACK), (Original, ACK)]),
        State::TcpEstablished
    );
}

#[test]
fn one_end_alone_establishes_nothing() {
    for flags in [ACK, SYN, SYN | ACK, FIN | ACK] {
        assert_eq!(after(&[(Original, SYN), (Original, flags), (Original, ACK)]), State::TcpOpening);
    }
    assert_eq!(after(&[(Original, SYN), (Original, RST), (Original, ACK)]), State::TcpOpening);
    assert_eq!(State::TcpOpening.rank(), Rank::HalfOpen);
    assert_eq!(after(&[(Original, SYN), (Reply, RST | ACK)]), State::TcpAborted);
    assert_eq!(after(&[(Original, SYN), (Reply, RST | ACK), (Reply, ACK)]), State::TcpAborted);
}

#[test]
fn ports_of_a_closed_connection_are_used_again_by_either_end() {
    for end in [&[(Original, RST)][..], &[(Reply, RST)], &[(Original, FIN | ACK), (Reply, FIN | ACK)]] {
        for opener in Direction::BOTH {
            let peer = if opener == Original { Reply } else { Original };
            let again = [end, &[(opener, SYN)]].concat();
            assert_eq!(after_open(&again), State::TcpOpening, "{end:?}");
            let alone = [&again[..], &[(opener, ACK)]].concat();
            assert_eq!(after_open(&alone), State::TcpOpening, "{end:?}");
            let answered = [&again[..], &[(peer, SYN | ACK)]].concat();
            assert_eq!(after_open(&answered), State::TcpAnswered, "{end:?}");
            let established = [&answered[..], &[(opener, ACK)]].concat();
            assert_eq!(after_open(&established), State::TcpEstablished, "{end:?}");
        }
    }
}

#[test]
fn an_end_that_lost_the_connection_opens_it_anew() {
    // The server has rebooted: before it said FIN, or after.
    for before in [&[][..], &[(Original, FIN | ACK)], &[(Reply, FIN | ACK)]] {
        let syn = [before, &[(Original, SYN)]].concat();
        let kept = after_open(before);
        assert_eq!(after_open(&syn), kept, "a SYN alone changes nothing");
        let answered = [&syn[..], &[(Reply, SYN | ACK)]].concat();
        assert_eq!(after_open(&answered), State::TcpAnswered);
        let data = [&answered[..], &[(Original, ACK)]].concat();
        assert_eq!(after_open(&data), State::TcpEstablished);
        let closing = [&data[..], &[(Original, FIN | ACK)]].concat();
        assert_eq!(after_open(&closing), State::TcpClosing, "the old FINs are forgotten");
    }
    assert_eq!(after_open(&[(Original, SYN), (Reply, ACK)]), State::TcpEstablished, "a challenge ACK");
    assert_eq!(after_open(&[(Original, SYN), (Original, SYN | ACK)]), State::TcpEstablished);
}

#[test]
fn a_forged_rst_does_not_end_a_connection_that_goes_on() {
    for forged in Direction::BOTH {
        assert_eq!(after_open(&[(forged, RST)]), State::TcpReset);
        for alive in Direction::BOTH {
            assert_eq!(after_open(&[(forged, RST), (alive, ACK)]), State::TcpEstablished);
        }
    }
    assert_eq!(State::TcpReset.default_timeout(), 240, "RFC 7857, section 2.2");
    let closing = [(Original, FIN | ACK), (Reply, RST), (Reply, ACK)];
    assert_eq!(after_open(&closing), State::TcpClosing);
    let forged_before = [(Reply, RST), (Reply, SYN | ACK), (Original, ACK)];
    assert_eq!(after(&forged_before), State::TcpEstablished);
}

#[test]
fn a_connection_that_was_there_before_is_taken_up() {
    assert_eq!(after(&[(Original, ACK), (Reply, ACK)]), State::TcpEstablished);
    assert_eq!(after(&[(Original, ACK), (Reply, RST)]), State::TcpAborted);
    assert_eq!(after(&[(Original, ACK), (Reply, FIN | ACK)]), State::TcpClosing);
}

#[test]
fn datagrams_are_replied_to() {
    let start = Progress::first(State::UdpUnreplied);
    assert_eq!(start.after(Original, 0).state, State::UdpUnreplied);
    assert_eq!(start.after(Reply, 0).state, State::UdpReplied);
    assert_eq!(start.after(Reply, 0).after(Original, 0).state, State::UdpReplied);
}

#[test]
fn a_flow_begins_with_some_packets_and_not_with_others() {
    assert_eq!(first(protocol::TCP, SYN), Some(State::TcpOpening));
    assert_eq!(first(protocol::TCP, ACK), Some(State::TcpOpening));
    assert_eq!(first(protocol::TCP, RST), None);
    assert_eq!(first(protocol::TCP, FIN | ACK), None);
    assert_eq!(first(protocol::UDP, 0), Some(State::UdpUnreplied));
    assert_eq!(first(protocol::ICMP, 0), Some(State::IcmpEcho));
    assert_eq!(first(protocol::ICMP, ACK), None, "a reply that nobody asked for");
    assert_eq!(first(47, 0), None);
}

#[test]
fn no_segment_leads_nowhere() {
    let states = State::ALL.iter().filter(|state| state.name().starts_with("tcp-"));
    for (state, flags) in states.flat_map(|state| (0..=u8::MAX).map(move |flags| (*state, flags))) {
        for (direction, marks) in Direction::BOTH.into_iter().flat_map(|one| (0..32).map(move |m| (one, m))) {
            let next = Progress { state, marks }.after(direction, flags);
            assert_ne!(next.state, State::Dead, "{state:?} {direction:?} {flags:#x}");
            assert!(next.state.name().starts_with("tcp-"));
        }
    }
}

#[test]
fn numbers_are_dense() {
    for (number, state) in State::ALL.iter().enumerate() {
        assert_eq!(*state as usize, number);
        assert_eq!(State::from_number(number as u8), *state);
    }
    assert_eq!(State::from_number(State::ALL.len() as u8), State::Dead);
}
