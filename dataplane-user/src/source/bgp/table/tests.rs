use super::super::filter::Refusal;
use super::super::testing::{LIMITS, address, attributes, prefix, reach, rules, surroundings};
use super::*;
use crate::source::kernel::Reach;

fn neighbour(text: &str) -> Neighbour {
    Neighbour { address: address(text), identifier: address(text), external: false }
}

fn table() -> (Table, PeerId, PeerId) {
    let mut table = Table::new(rules());
    table.set_surroundings(surroundings());
    let (one, two) =
        (table.add_peer(neighbour("10.141.0.2"), LIMITS), table.add_peer(neighbour("10.141.0.3"), LIMITS));
    (table, one, two)
}

fn changes(table: &mut Table) -> Vec<(String, Option<String>)> {
    let mut changes = table.take_changes(usize::MAX);
    changes.sort();
    changes.iter().map(|(prefix, hop)| (prefix.to_string(), hop.map(|hop| hop.to_string()))).collect()
}

fn change(prefix: &str, hop: Option<&str>) -> (String, Option<String>) {
    (prefix.to_owned(), hop.map(str::to_owned))
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Path>(), 8);
    assert_eq!(size_of::<(Ipv4Net, Paths)>(), 24);
}

#[test]
fn the_best_path_is_told_and_its_loss_brings_the_next() {
    let (mut table, one, two) = table();
    let block = [prefix("172.19.36.0/24")];
    table.announce(two, &block, attributes("10.141.0.3"));
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("10.141.0.3"))]);
    table.announce(one, &block, attributes("10.141.0.2"));
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("10.141.0.2"))]);
    table.announce(one, &block, attributes("10.141.0.2"));
    assert_eq!(changes(&mut table), [], "said twice");
    table.withdraw(one, &block);
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("10.141.0.3"))]);
    table.withdraw(one, &block);
    table.withdraw(two, &block);
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", None)]);
    assert_eq!(table.size(), (0, 0));
    assert_eq!(table.counts(one), Counts::default());
}

#[test]
fn a_refused_route_is_counted_and_holds_when_the_cause_is_gone() {
    let (mut table, one, two) = table();
    let block = [prefix("172.20.0.0/24")];
    table.announce(one, &block, attributes("10.141.0.2"));
    table.announce(two, &[prefix("172.19.36.0/24")], attributes("192.0.2.1"));
    assert_eq!(changes(&mut table), []);
    assert_eq!(table.counts(one).accepted(), 0);
    assert_eq!(table.counts(one).refused[Refusal::NotAccepted as usize], 1);
    assert_eq!(table.counts(two).refused[Refusal::NextHopUnreachable as usize], 1);

    table.set_rules(Rules { accept: vec![prefix("172.16.0.0/12")], ..rules() });
    assert_eq!(changes(&mut table), [change("172.20.0.0/24", Some("10.141.0.2"))]);
    let reach = reach(&["0.0.0.0/0"]);
    table.set_surroundings(Surroundings { reach, ..surroundings() });
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("192.0.2.1"))]);
    assert_eq!(table.counts(two).accepted(), 1);
}

#[test]
fn a_container_that_comes_takes_its_address_back_from_a_peer() {
    let (mut table, one, _) = table();
    table.announce(one, &[prefix("172.19.35.9/32")], attributes("10.141.0.2"));
    assert_eq!(changes(&mut table), [change("172.19.35.9/32", Some("10.141.0.2"))]);
    let containers = [address("172.19.35.9")].into();
    table.set_surroundings(Surroundings { containers, ..surroundings() });
    assert_eq!(changes(&mut table), [change("172.19.35.9/32", None)]);
    table.set_surroundings(surroundings());
    assert_eq!(changes(&mut table), [change("172.19.35.9/32", Some("10.141.0.2"))]);
}

#[test]
fn stale_routes_stay_until_they_are_swept() {
    let (mut table, one, _) = table();
    let (kept, lost) = (prefix("172.19.36.0/24"), prefix("172.19.37.0/24"));
    table.announce(one, &[kept, lost], attributes("10.141.0.2"));
    changes(&mut table);
    table.make_stale(one);
    assert_eq!(changes(&mut table), [], "forwarding goes on");
    assert_eq!(table.counts(one).stale, 2);
    table.announce(one, &[kept], attributes("10.141.0.2"));
    assert_eq!(table.counts(one).stale, 1);
    table.remove_stale(one);
    assert_eq!(changes(&mut table), [change("172.19.37.0/24", None)]);
    assert_eq!(table.counts(one), Counts { received: 1, ..Counts::default() });

    table.make_stale(one);
    table.make_stale(one);
    assert_eq!((changes(&mut table), table.counts(one).stale), (Vec::new(), 1));
}

#[test]
fn a_peer_that_is_removed_takes_its_routes_along_and_its_place_is_free() {
    let (mut table, one, two) = table();
    table.announce(one, &[prefix("172.19.36.0/24")], attributes("10.141.0.2"));
    table.announce(two, &[prefix("172.19.36.0/24")], attributes("10.141.0.3"));
    changes(&mut table);
    table.remove_peer(one);
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("10.141.0.3"))]);
    assert_eq!(table.add_peer(neighbour("10.141.0.4"), LIMITS), one);
}

#[test]
fn changes_are_taken_in_parts_and_the_last_of_a_prefix_holds() {
    let (mut table, one, two) = table();
    let prefixes: Vec<_> = (0..10).map(|n| prefix(&format!("172.19.36.{n}/32"))).collect();
    table.announce(one, &prefixes, attributes("10.141.0.2"));
    assert_eq!(table.take_changes(4).len(), 4);
    assert_eq!(table.pending(), 6);
    // What comes meanwhile comes after them.
    table.withdraw(one, &prefixes[..1]);
    assert_eq!(table.take_changes(10).len(), 6);
    assert_eq!(changes(&mut table), [change("172.19.36.0/32", None)]);
    assert_eq!(table.pending(), 0);

    table.withdraw(one, &prefixes);
    table.announce(two, &prefixes[1..3], attributes("10.141.0.3"));
    let taken = changes(&mut table);
    assert_eq!(taken.len(), 9);
    assert_eq!(taken[..2].to_vec(), [1, 2].map(|n| change(&format!("172.19.36.{n}/32"), Some("10.141.0.3"))));
    assert!(taken[2..].iter().all(|(_, hop)| hop.is_none()));
}

#[test]
fn a_path_by_an_uplink_without_carrier_gives_way_to_one_by_another() {
    let (mut table, one, two) = table();
    let by = |links: [Option<u32>; 2]| {
        let networks = [prefix("10.141.0.0/16"), prefix("10.142.0.0/16")];
        let reach = Reach { links: networks.into_iter().zip(links).collect(), ..Reach::default() };
        Surroundings { reach, ..surroundings() }
    };
    table.set_surroundings(by([Some(2), Some(3)]));
    let block = [prefix("172.19.36.0/24")];
    table.announce(one, &block, attributes("10.141.0.2"));
    table.announce(two, &block, attributes("10.142.0.2"));
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("10.141.0.2"))]);
    table.set_surroundings(by([None, Some(3)]));
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("10.142.0.2"))]);
    table.set_surroundings(by([Some(2), Some(3)]));
    assert_eq!(changes(&mut table), [change("172.19.36.0/24", Some("10.141.0.2"))]);
}

#[test]
fn a_peer_has_so_many_next_hops_and_others_are_used_when_one_is_free() {
    let (mut table, _, other) = table();
    let limits = Limits { next_hops: 2, ..LIMITS };
    let one = table.add_peer(neighbour("10.141.0.9"), limits);
    let block = |n: u8| prefix(&format!("172.19.{n}.0/24"));
    for n in 1..=4 {
        table.announce(one, &[block(n)], attributes(&format!("10.141.1.{n}")));
    }
    assert_eq!(changes(&mut table).len(), 2);
    assert_eq!(table.counts(one).refused[Refusal::NextHopLimit as usize], 2);
    table.announce(one, &[block(5)], attributes("10.141.1.1"));
    table.announce(other, &[block(4)], attributes("10.141.1.4"));
    assert_eq!(changes(&mut table).len(), 2, "one that it has, and what another peer says");
    assert!(!table.can_readmit());

    // Another next hop in the place of one that no route has any more is none more.
    table.announce(one, &[block(2)], attributes("10.141.1.22"));
    assert_eq!(changes(&mut table), [change("172.19.2.0/24", Some("10.141.1.22"))]);
    table.withdraw(one, &[block(2)]);
    assert!(table.can_readmit());
    table.readmit();
    assert_eq!(
        changes(&mut table),
        [change("172.19.2.0/24", None), change("172.19.3.0/24", Some("10.141.1.3"))]
    );
    assert!(!table.can_readmit());
    // To judge everything again changes nothing.
    table.set_rules(Rules { router_id: address("10.141.0.77"), ..rules() });
    assert_eq!(changes(&mut table), []);
    table.remove_all(one);
    assert_eq!(table.counts(one), Counts::default());
}

#[test]
fn all_peers_together_leave_next_hops_to_the_node() {
    let mut table = Table::new(rules());
    table.set_surroundings(surroundings());
    let peers = [1, 2, 3].map(|n| table.add_peer(neighbour(&format!("10.141.0.{n}")), LIMITS));
    for (peer, first) in peers.into_iter().zip([0u32, 4096, 4096]) {
        for n in first..first + 4096 {
            let (prefix, next_hop) = (Ipv4Addr::from(0xac13_0000 + n), Ipv4Addr::from(0x0a8d_0100 + n));
            table.announce(peer, &[prefix.into()], attributes(&next_hop.to_string()));
        }
    }
    // Seven sixteenths of 16,384, each of which takes two slots at most; who has the same as another takes no more.
    let accepted = peers.map(|peer| table.counts(peer).accepted());
    assert_eq!(accepted, [4096, 3072, 3072]);
    table.remove_all(peers[0]);
    table.readmit();
    assert_eq!([peers[1], peers[2]].map(|peer| table.counts(peer).accepted()), [4096, 4096]);
}
