use super::*;
use crate::source::bgp::testing::{address, prefix};

const INTERNAL: Encoding = Encoding { four_octets: true, external: false };

fn read(bytes: &[u8]) -> Message {
    assert_eq!(length(bytes), Ok(Some(bytes.len())));
    decode(Bytes::copy_from_slice(bytes)).unwrap()
}

fn read_update(bytes: &[u8], encoding: Encoding) -> update::Update {
    match read(bytes) {
        Message::Update(raw) => raw.decode(encoding).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_open_comes_back_as_it_was_written() {
    let restart = GracefulRestart { restarting: true, seconds: 120, ipv4: Some(true) };
    let open = Open {
        asn: 4_200_000_000,
        hold_seconds: 90,
        identifier: address("10.141.0.1"),
        four_octets: true,
        ipv4: true,
        ipv6: true,
        route_refresh: true,
        graceful_restart: Some(restart),
    };
    assert_eq!(read(&encode_open(&open)), Message::Open(open.clone()));
    let plain = Open {
        asn: 64_512,
        four_octets: false,
        ipv4: false,
        ipv6: false,
        route_refresh: false,
        graceful_restart: None,
        ..open
    };
    let back = Message::Open(Open { ipv4: true, ..plain.clone() });
    assert_eq!(read(&encode_open(&plain)), back, "without families it is IPv4");
}

#[test]
fn announcements_come_back_and_no_message_is_too_long() {
    let prefixes: Vec<_> =
        (0..3_000u32).map(|n| ipnet::Ipv4Net::from(std::net::Ipv4Addr::from(0xac13_0000 + n))).collect();
    for encoding in [INTERNAL, Encoding { four_octets: false, external: true }] {
        let mut heard = Vec::new();
        for message in announcements(&prefixes, address("10.141.0.1"), 4_200_000_000, encoding) {
            assert!(message.len() <= MAX_MESSAGE);
            let update = read_update(&message, encoding);
            assert_eq!(update.fault, None);
            let announced = update.announced.unwrap();
            assert_eq!(announced.attributes.next_hop, address("10.141.0.1"));
            let path: &[u32] = if encoding.external { &[4_200_000_000] } else { &[] };
            assert_eq!(&announced.attributes.as_path[..], path);
            assert_eq!(announced.attributes.local_preference, (!encoding.external).then_some(100));
            heard.extend(announced.prefixes);
        }
        assert_eq!(heard, prefixes);
    }
    let withdrawn: Vec<_> =
        withdrawals(&prefixes).flat_map(|message| read_update(&message, INTERNAL).withdrawn).collect();
    assert_eq!(withdrawn, prefixes);
}

#[test]
fn the_end_of_rib_is_told_from_an_update() {
    assert_eq!(read_update(&end_of_rib(), INTERNAL).end_of_rib, Some(EndOfRib::Ipv4));
    let message = withdrawals(&[prefix("172.19.36.0/24")]).next().unwrap();
    assert_eq!(read_update(&message, INTERNAL).end_of_rib, None);
    // MP_UNREACH_NLRI for IPv6 unicast, empty.
    let other = [&[0xff; 16][..], &[0, 29, 2, 0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]].concat();
    assert_eq!(read_update(&other, INTERNAL).end_of_rib, Some(EndOfRib::Other));
}

#[test]
fn notifications_are_told_in_words() {
    let text = |code, subcode, data: &[u8]| {
        Notification { data: data.to_vec(), ..Notification::new(code, subcode) }.text()
    };
    assert_eq!(text(6, 1, &[]), "Cease: Maximum Number of Prefixes Reached");
    assert_eq!(text(6, 2, b"\x07upgrade"), "Cease: Administrative Shutdown (upgrade)");
    assert_eq!(text(6, 2, b"\x06\x1b[31mx"), "Cease: Administrative Shutdown ([31mx)");
    assert_eq!(text(4, 0, &[]), "Hold Timer Expired");
    assert_eq!(text(200, 3, &[]), "code 200, subcode 3");
    let notification = Notification { data: vec![1, 2], ..Notification::new(3, 5) };
    assert_eq!(read(&encode_notification(&notification)), Message::Notification(notification));
}
