//! The table on arrays: what it promises, alone and among threads.

mod adopt;
mod arrays;
mod cost;
mod model;
mod ports;
mod record;
mod threads;

use std::{
    cell::RefCell,
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    super::{
        index::buckets_for,
        record::{Binding, Known, flags, ticks},
        settings::{PORT_USES, RECORDS_PER_WORD, SHARES, TIMEOUTS, words_of_records},
        state::{Progress, State, flags as tcp},
        tuple::protocol,
    },
    *,
};
use crate::{
    family::{V4, V6},
    repeat::Plainly,
};

use arrays::{Addresses, Arrays};

fn tuple<F: Addresses>(protocol: u8, source: (u8, u16), destination: (u8, u16)) -> Tuple<F> {
    Tuple {
        protocol,
        source: F::container(source.0),
        source_port: source.1,
        destination: F::remote(destination.0),
        destination_port: destination.1,
    }
}

const PORTS: Ports = Ports::new(50_000, 50_999);

/// A flow whose source is translated, with one of those ports.
fn snat<F: Addresses>(original: &Tuple<F>, ports: Ports, state: State) -> Request<F> {
    let mut reply = original.reversed();
    reply.destination = F::node();
    Request {
        original: *original,
        reply,
        ports,
        chooses_port: 1,
        flags: (flags::SNAT | flags::BY_MASQUERADE).into(),
        state: state as u32,
        binding: Binding::new(3, 0, 1).to_bits(),
    }
}

/// A flow without translation, begun from outside.
fn inbound<F: Addresses>(original: &Tuple<F>, state: State) -> Request<F> {
    Request {
        original: *original,
        reply: original.reversed(),
        ports: Ports { first: 0, more: 0 },
        chooses_port: 0,
        flags: (flags::INBOUND | flags::BY_MASQUERADE).into(),
        state: state as u32,
        binding: 0,
    }
}

fn udp<F: Addresses>(port: u16) -> Tuple<F> {
    tuple(protocol::UDP, (2, port), (1, 53))
}

/// What another table may know of a flow of container 2's.
pub(in crate::flow) fn known(port: u16, translated: u16, state: State) -> Known<V4> {
    let original = udp(port);
    let mut reply = original.reversed();
    (reply.destination, reply.destination_port) = (V4::node(), translated);
    Known {
        original,
        reply,
        flags: flags::SNAT | flags::BY_MASQUERADE,
        progress: Progress { state, marks: 1 },
        deadline: 500,
        opened: 7,
        bytes: [1000, 2000],
        packets: [10, 20],
    }
}

fn a_flow_is_found_in_both_directions_until_it_expires<F: Addresses>() {
    let arrays = Arrays::<F>::new(64);
    let flow = arrays.open(10, &udp(1000), State::UdpUnreplied).flow;
    let reply = flow.reply();
    assert_eq!(flow.original(), udp(1000));
    assert!(PORTS.contains(reply.destination_port));
    assert_eq!((reply.source, reply.source_port), (F::remote(1), 53));
    assert_eq!(reply.destination, F::node());
    let end = 10 + arrays.settings.timeout(State::UdpUnreplied);
    for now in [10, end - 1] {
        assert_eq!(arrays.at(now).lookup(&udp(1000)).unwrap().direction, Direction::Original);
        assert_eq!(arrays.at(now).lookup(&reply).unwrap().direction, Direction::Reply);
    }
    assert!(arrays.at(end).lookup(&udp(1000)).is_none());
    assert!(arrays.at(end).lookup(&reply).is_none());
    assert!(arrays.at(10).lookup(&udp(1001)).is_none());
    for (port, number) in [(54, protocol::UDP), (53, protocol::TCP)] {
        let other = Tuple { source_port: port, protocol: number, ..reply };
        assert!(arrays.at(10).lookup(&other).is_none(), "only the one that was asked may answer");
    }
    arrays.check(10);
}

fn a_connection_from_outside_is_answered_as_it_came<F: Addresses>() {
    let arrays = Arrays::<F>::new(64);
    let original = tuple::<F>(protocol::TCP, (2, 80), (1, 40_000)).reversed();
    let outcome = arrays.at(1).insert(&inbound(&original, State::TcpOpening));
    assert!(outcome.is_new(), "{outcome:?}");
    let answer = arrays.at(1).lookup(&original.reversed()).unwrap();
    assert_eq!((answer.slot, answer.direction), (outcome.slot(), Direction::Reply));
    assert_eq!(answer.flow.reply(), original.reversed());
    arrays.check(1);
    let again = arrays.at(1).insert(&inbound(&original, State::TcpOpening));
    assert_eq!((again.refusal(), again.is_new(), again.slot()), (None, false, outcome.slot()));
    // The container's own packet of that tuple is an answer, and begins nothing.
    let outbound = arrays.insert(1, &original.reversed(), State::TcpOpening);
    assert_eq!(outbound.refusal(), Some(Refusal::Clash));
    arrays.check(1);
}

#[test]
fn flows_of_both_families() {
    a_flow_is_found_in_both_directions_until_it_expires::<V4>();
    a_flow_is_found_in_both_directions_until_it_expires::<V6>();
    a_connection_from_outside_is_answered_as_it_came::<V4>();
    a_connection_from_outside_is_answered_as_it_came::<V6>();
}

#[test]
fn a_packet_renews_its_flow_and_a_swept_one_is_gone() {
    let arrays = Arrays::<V4>::new(64);
    let hit = arrays.open(0, &udp(1), State::UdpUnreplied);
    let [unreplied, replied] =
        [State::UdpUnreplied, State::UdpReplied].map(|state| arrays.settings.timeout(state));
    let answer = arrays.at(5).lookup(&hit.flow.reply()).unwrap();
    assert!(arrays.at(5).renew(&answer, 0));
    let hit = arrays.at(unreplied + 1).lookup(&udp(1)).expect("an answer makes it live longer");
    assert_eq!(arrays.sweep(4 + replied, |_| true).expired, 0);
    assert_eq!(arrays.sweep(5 + replied, |_| true).expired, 1);
    assert!(arrays.taken().is_empty());
    assert!(!arrays.at(5 + replied).renew(&hit, 0), "no packet brings it back");
    arrays.check(5 + replied);
    assert_eq!(arrays.gauges.flows.load(), 0);
}

#[test]
fn a_container_has_its_share_and_others_take_nothing_of_it() {
    let mut arrays = Arrays::<V4>::new(1024);
    arrays.settings.max_flows_per_source = 10;
    let from_outside = |port| tuple::<V4>(protocol::TCP, (2, 80), (1, port)).reversed();
    let inbound = |port| arrays.at(0).insert(&inbound(&from_outside(port), State::TcpOpening)).refusal();
    for port in 0..10 {
        assert_eq!(inbound(port), None);
    }
    assert_eq!(inbound(10), Some(Refusal::Share));
    for port in 0..10 {
        arrays.open(0, &udp(port), State::UdpUnreplied);
    }
    assert_eq!(arrays.insert(0, &udp(10), State::UdpUnreplied).refusal(), Some(Refusal::Share));
    let neighbour = tuple(protocol::UDP, (3, 10), (1, 53));
    arrays.open(0, &neighbour, State::UdpUnreplied);
    arrays.check(0);
}

/// A table with established flows only, and no place left.
fn full() -> (Arrays<V4>, Vec<Tuple<V4>>) {
    let arrays = Arrays::new(64);
    let mut established = Vec::new();
    for port in 0..2000 {
        let tuple = udp(port);
        let outcome = arrays.insert(0, &tuple, State::UdpReplied);
        match outcome.refusal() {
            Some(refusal) => assert_eq!(refusal, Refusal::Full),
            None => established.push(tuple),
        }
    }
    (arrays, established)
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let (arrays, established) = full();
    assert_eq!(established.len(), 64, "as many as it is meant for");
    arrays.check(0);
    for port in 3000..4000 {
        assert_eq!(arrays.insert(0, &udp(port), State::UdpUnreplied).refusal(), Some(Refusal::Full));
    }
    assert!(established.iter().all(|tuple| arrays.at(0).lookup(tuple).is_some()));
    arrays.check(0);
}

#[test]
fn ended_flows_are_evicted_first_then_half_open_ones() {
    let mut arrays = Arrays::<V4>::new(3); // one bucket
    assert_eq!(arrays.buckets.len(), 1);
    arrays.settings.max_flows = 7;
    let tcp_to = |port| tuple(protocol::TCP, (2, port), (1, 80));
    for port in 0..7 {
        let hit = arrays.open(u32::from(port), &tcp_to(port), State::TcpOpening);
        let table = arrays.at(6);
        let reply = |flags| assert!(table.renew(&Hit { direction: Direction::Reply, ..hit }, flags));
        if port == 4 {
            reply(tcp::RST);
        }
        if port >= 5 {
            reply(tcp::SYN | tcp::ACK);
            assert!(table.renew(&table.lookup(&tcp_to(port)).unwrap(), tcp::ACK));
        }
    }
    let evicted: Vec<_> =
        (10..15).map(|port| arrays.insert(8, &tcp_to(port), State::TcpOpening).evicted()).collect();
    assert_eq!(evicted[0], Rank::Ended);
    assert!(evicted[1..].iter().all(|rank| *rank == Rank::HalfOpen), "{evicted:?}");
    assert!(arrays.at(8).lookup(&tcp_to(0)).is_none(), "the oldest goes first");
    assert!((5..7).all(|port| arrays.at(8).lookup(&tcp_to(port)).is_some()), "established ones stay");
    arrays.check(8);
}

#[test]
fn a_refused_flow_costs_nobody_a_place() {
    let mut arrays = Arrays::<V4>::new(3);
    arrays.settings.max_flows = 7;
    let ports = Ports::new(50_000, 50_000);
    let request = |port, host| snat(&tuple(protocol::UDP, (2, port), (host, 53)), ports, State::UdpUnreplied);
    for host in 0..7 {
        assert!(arrays.at(1).insert(&request(1, host)).is_new());
    }
    let mut established = arrays.at(1).lookup(&request(1, 3).original).unwrap();
    established.direction = Direction::Reply;
    assert!(arrays.at(1).renew(&established, 0));
    for _ in 0..20 {
        assert_eq!(arrays.at(2).insert(&request(9, 3)).refusal(), Some(Refusal::Ports));
    }
    assert!((0..7).all(|host| arrays.at(2).lookup(&request(1, host).original).is_some()));
    arrays.check(2);
}

#[test]
fn a_flow_that_is_not_to_go_on_is_swept() {
    let arrays = Arrays::<V4>::new(64);
    for port in 0..20 {
        arrays.open(0, &udp(port), State::UdpUnreplied);
    }
    let go_on = |flow: &Flow<V4>| flow.original().source_port >= 5;
    assert_eq!(arrays.sweep(0, go_on), Swept { expired: 0, revoked: 5 });
    arrays.check(0);
    assert_eq!(arrays.gauges.flows.load(), 15);
}

#[test]
fn a_flow_ended_by_its_packet_is_swept_or_gives_its_tuples_up() {
    let arrays = Arrays::<V4>::new(64);
    for port in 0..20 {
        let hit = arrays.open(0, &udp(port), State::UdpUnreplied);
        assert!(arrays.at(0).end(hit.flow, hit.life));
        assert!(arrays.at(0).lookup(&udp(port)).is_none());
        if port % 2 == 0 {
            arrays.open(0, &udp(port), State::UdpUnreplied);
        }
    }
    arrays.check(0);
    arrays.sweep(0, |_| true);
    arrays.check(0);
    assert_eq!((arrays.gauges.flows.load(), arrays.taken().len()), (10, 10));
}
