//! Where records are.

use super::*;

#[test]
fn few_flows_are_on_few_pages() {
    let arrays = Arrays::<V4>::new(65_536);
    let pages = |arrays: &Arrays<V4>| arrays.taken.iter().filter(|word| word.load() != 0).count();
    for port in 0..500 {
        arrays.open(0, &udp(port), State::UdpUnreplied);
    }
    assert!(pages(&arrays) <= 500 / 56 + 1, "{} pages", pages(&arrays));
    let end = arrays.settings.timeout(State::UdpUnreplied);
    assert_eq!(arrays.sweep(end, |_| true).expired, 500);
    for port in 500..510 {
        arrays.open(end, &udp(port), State::UdpUnreplied);
    }
    assert_eq!(pages(&arrays), 1);
    arrays.check(end);
}

#[test]
fn a_table_has_room_for_the_flows_that_it_is_meant_for() {
    let arrays = Arrays::<V4>::new(4096);
    let opened = (0..4096u16).zip((0..8).cycle()).filter(|&(port, host)| {
        let tuple = tuple(protocol::UDP, (2, port), (host, 53));
        arrays.insert(0, &tuple, State::UdpReplied).is_new()
    });
    // A few buckets are full before the table is.
    let opened = opened.count();
    assert!(opened > 4096 * 99 / 100, "{opened} of 4096");
    arrays.check(0);
}

/// Connections that come and go one after another, with a sweep now and then as the daemon does it.
#[test]
fn short_connections_never_want_for_records() {
    let arrays = Arrays::<V4>::new(4096);
    let ports = Ports::new(50_000, 50_099);
    let mut now = 1;
    for connection in 0..20_000u32 {
        let tuple = tuple(protocol::TCP, (2, connection as u16), (1, 80));
        let outcome = arrays.at(now).insert(&snat(&tuple, ports, State::TcpOpening));
        assert!(outcome.is_new(), "connection {connection}: {outcome:?}");
        let hit = arrays.at(now).hit(outcome.slot(), &tuple).unwrap();
        assert!(arrays.at(now).renew(&Hit { direction: Direction::Reply, ..hit }, tcp::RST));
        now += u32::from(connection % 100 == 0);
        if connection % 1000 == 0 {
            arrays.sweep(now, |_| true);
            arrays.check(now);
        }
    }
}

#[test]
fn memory_of_a_flow() {
    let max_flows = 1 << 20;
    let records = words_of_records(max_flows) as usize * RECORDS_PER_WORD as usize;
    let bytes = records * (size_of::<Flow<V4>>() + size_of::<Counts>())
        + buckets_for(max_flows) as usize * size_of::<Bucket>()
        + records / 8;
    let per_flow = bytes as f64 / f64::from(max_flows);
    if cfg!(not(feature = "next-layout")) {
        assert!(per_flow < 110.0, "{per_flow} bytes");
    }
}
