//! Which port a flow gets.

use super::*;

fn port_of(arrays: &Arrays<V4>, now: u32, tuple: &Tuple<V4>) -> u16 {
    arrays.at(now).lookup(tuple).expect("a flow").flow.reply().destination_port
}

#[test]
fn a_source_port_is_kept_where_it_is_free() {
    let arrays = Arrays::<V4>::new(1024);
    for host in 1..=100 {
        let to = tuple(protocol::UDP, (2, 50_400), (host, 53));
        arrays.open(0, &to, State::UdpUnreplied);
        assert_eq!(port_of(&arrays, 0, &to), 50_400);
    }
    let second = tuple(protocol::UDP, (3, 50_400), (1, 53));
    arrays.open(0, &second, State::UdpUnreplied);
    assert_ne!(port_of(&arrays, 0, &second), 50_400, "another container's");
    arrays.check(0);
}

#[test]
fn a_port_outside_of_the_range_or_in_use_by_the_host_is_not_kept() {
    let mut arrays = Arrays::<V4>::new(1024);
    arrays.left_out.insert((protocol::UDP, 50_400));
    for port in [80, 50_400, 51_000] {
        let to = udp(port);
        arrays.open(0, &to, State::UdpUnreplied);
        let got = port_of(&arrays, 0, &to);
        assert!(PORTS.contains(got) && got != port, "{got}");
    }
    let by_tcp = tuple(protocol::TCP, (2, 50_400), (1, 80));
    arrays.open(0, &by_tcp, State::TcpOpening);
    assert_eq!(port_of(&arrays, 0, &by_tcp), 50_400, "the host's socket is of another protocol");
}

#[test]
fn a_socket_has_one_port_towards_everybody_while_it_is_free() {
    let arrays = Arrays::<V4>::new(1024);
    let ports: HashSet<u16> = (1..=100)
        .map(|host| {
            let to = tuple(protocol::UDP, (2, 4000), (host, 53));
            arrays.open(0, &to, State::UdpUnreplied).flow.reply().destination_port
        })
        .collect();
    assert_eq!(ports.len(), 1);
}

#[test]
fn ports_run_out_towards_one_remote_end_alone() {
    let arrays = Arrays::<V4>::new(1024);
    let ports = Ports::new(50_000, 50_039);
    let open =
        |now, tuple: Tuple<V4>| arrays.at(now).insert(&snat(&tuple, ports, State::UdpUnreplied)).refusal();
    for port in 0..40 {
        assert_eq!(open(0, udp(port)), None, "port {port}");
    }
    assert_eq!(open(0, udp(40)), Some(Refusal::Ports));
    arrays.check(0);
    assert_eq!(open(0, tuple(protocol::UDP, (2, 40), (2, 53))), None, "another host");
    assert_eq!(open(0, tuple(protocol::UDP, (2, 40), (1, 54))), None, "another port");
    assert_eq!(open(0, tuple(protocol::ICMP, (2, 40), (1, 0))), None, "another protocol");
    let later = arrays.settings.timeout(State::UdpUnreplied);
    assert_eq!(open(later, udp(40)), None, "expired flows give their ports back");
    arrays.check(later);
}

#[test]
fn no_flow_is_refused_while_there_is_a_port() {
    let arrays = Arrays::<V4>::new(8192);
    let ports = Ports::new(50_000, 52_999);
    for port in 0..3000 {
        // Of several containers, as their shares of scarce ports are bounded.
        let tuple = tuple(protocol::UDP, ((port % 30) as u8, port), (1, 53));
        let outcome = arrays.at(1).insert(&snat(&tuple, ports, State::UdpReplied));
        assert!(outcome.is_new(), "flow {port}: {outcome:?}");
    }
    arrays.check(1);
}

#[test]
fn one_container_may_have_98_of_100_ports_and_leaves_some_to_the_others() {
    let arrays = Arrays::<V4>::new(16_384);
    let ports = Ports::new(50_000, 54_535);
    let open = |host, port, remote| {
        let tuple = tuple(protocol::UDP, (host, port), (remote, 53));
        arrays.at(1).insert(&snat(&tuple, ports, State::UdpReplied)).refusal()
    };
    // It asks for each port by its number, so that each could be kept.
    let refused = (50_000..54_536u32).filter(|port| open(2, *port as u16, 1).is_some()).count();
    assert!(refused > 0, "some are left to others");
    assert!(refused < 4536 / 50, "{refused} of 4536 refused");
    for host in 3..8 {
        assert_eq!(open(host, 1000, 1), None, "container {host}");
    }
    assert_eq!(open(2, 50_000, 2), None, "there are enough ports towards other remote ends");
    arrays.check(1);
}

#[test]
fn half_open_flows_of_a_greedy_container_are_evicted() {
    let arrays = Arrays::<V4>::new(1024);
    let ports = Ports::new(50_000, 50_099);
    let open = |host, port| {
        let tuple = tuple(protocol::UDP, (host, port), (1, 53));
        arrays.at(1).insert(&snat(&tuple, ports, State::UdpUnreplied))
    };
    let taken = (0..100).filter(|port| open(2, *port).is_new()).count();
    assert_eq!(taken, 100, "alone it may have all");
    let outcome = open(3, 1);
    assert_eq!((outcome.refusal(), outcome.evicted()), (None, Rank::HalfOpen));
    assert_eq!(open(2, 200).refusal(), Some(Refusal::Ports), "it evicts nobody itself");
    arrays.check(1);
}

#[test]
fn closed_connections_give_their_ports_up_oldest_first_and_no_others_do() {
    let arrays = Arrays::<V4>::new(1024);
    let ports = Ports::new(50_000, 50_019);
    let tcp_to = |port| tuple(protocol::TCP, (2, port), (1, 80));
    let insert = |now, port| arrays.at(now).insert(&snat(&tcp_to(port), ports, State::TcpOpening));
    for port in 0..20 {
        let outcome = insert(1, port);
        assert!(outcome.is_new());
        if [7, 12].contains(&port) {
            let hit = arrays.at(1).hit(outcome.slot(), &tcp_to(port)).unwrap();
            let at = if port == 12 { 1 } else { 3 };
            assert!(arrays.at(at).renew(&Hit { direction: Direction::Reply, ..hit }, tcp::RST));
        }
    }
    for (port, oldest) in [(20, 12), (21, 7)] {
        let outcome = insert(4, port);
        assert_eq!((outcome.refusal(), outcome.evicted()), (None, Rank::Ended));
        assert!(arrays.at(4).lookup(&tcp_to(oldest)).is_none());
        arrays.check(4);
    }
    assert_eq!(insert(4, 22).refusal(), Some(Refusal::Ports));
    arrays.check(4);
}

#[test]
fn a_closed_connection_keeps_its_port_while_others_are_free() {
    let arrays = Arrays::<V4>::new(4096);
    let ports = Ports::new(50_000, 50_999);
    for port in 0..1000 {
        let tuple = tuple(protocol::TCP, ((port % 20) as u8, port), (1, 80));
        let outcome = arrays.at(1).insert(&snat(&tuple, ports, State::TcpOpening));
        assert_eq!((outcome.refusal(), outcome.evicted()), (None, Rank::Gone), "connection {port}");
        let hit = arrays.at(1).hit(outcome.slot(), &tuple).unwrap();
        assert!(arrays.at(1).renew(&Hit { direction: Direction::Reply, ..hit }, tcp::RST));
    }
    arrays.check(1);
}
