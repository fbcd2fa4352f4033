//! Where records are.

use super::*;

#[test]
fn few_flows_are_on_few_pages() {
    let arrays = Arrays::new(65_536);
    let pages = |arrays: &Arrays| arrays.taken.iter().filter(|word| word.load() != 0).count();
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
    let arrays = Arrays::new(4096);
    let opened = (0..4096u16).zip((0..8).cycle()).filter(|&(port, host)| {
        let tuple = tuple(protocol::UDP, (2, port), (host, 53));
        arrays.at(0).open(&tuple, &POOL, State::UdpReplied).is_new()
    });
    // A few buckets are full before the table is.
    let opened = opened.count();
    assert!(opened > 4096 * 99 / 100, "{opened} of 4096");
    arrays.check(0);
}

/// They are swept after a while, and meanwhile others must have room beside them.
#[test]
fn records_of_flows_that_gave_their_ports_up_are_in_nobody_s_way() {
    let arrays = Arrays::new(65_536);
    let pool = Pool { count: 100, ..POOL };
    for port in 0..5000 {
        let tuple = tuple(protocol::TCP, (2, port), (1, 80));
        let outcome = arrays.at(1).open(&tuple, &pool, State::TcpOpening);
        let hit = arrays.at(1).hit(outcome.slot()).filter(|_| outcome.is_new());
        let hit = hit.unwrap_or_else(|| panic!("connection {port}: {outcome:?}"));
        assert!(arrays.at(1).renew(&hit, Direction::In, flags::RST));
    }
    arrays.check(1);
    assert_eq!(arrays.taken().len(), 5000);
    arrays.sweep(1, |_| true);
    assert_eq!(arrays.taken().len(), 100);
    arrays.check(1);
}
