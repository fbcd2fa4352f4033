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
            let announced = update.announced.into_iter().next().unwrap();
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
    let turned = "a\u{202e}b\u{2066}c\u{200f}d";
    let data = [&[turned.len() as u8], turned.as_bytes()].concat();
    assert_eq!(text(6, 2, &data), "Cease: Administrative Shutdown (abcd)");
    assert_eq!(text(4, 0, &[]), "Hold Timer Expired");
    assert_eq!(text(200, 3, &[]), "code 200, subcode 3");
    let notification = Notification { data: vec![1, 2], ..Notification::new(3, 5) };
    assert_eq!(read(&encode_notification(&notification)), Message::Notification(notification));
}

/// An UPDATE with these path attributes alone.
fn with_attributes(attributes: &[u8]) -> Vec<u8> {
    let length = (23 + attributes.len() as u16).to_be_bytes();
    let size = (attributes.len() as u16).to_be_bytes();
    [&[0xff; 16][..], &length, &[2, 0, 0], &size, attributes].concat()
}

#[test]
fn ipv6_is_told_apart_from_ipv4() {
    // ORIGIN IGP, AS_PATH empty, LOCAL_PREF 100, and MP_REACH_NLRI: 2001:db8:1::/48 via 2001:db8::1.
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100, 0x80, 14, 28, 0, 2, 1, 16];
    attributes
        .extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 48, 0x20, 1, 0xd, 0xb8, 0, 1]);
    let update = read_update(&with_attributes(&attributes), INTERNAL);
    assert_eq!(update.announced_ipv6, ["2001:db8:1::/48".parse().unwrap()]);
    assert_eq!((update.announced, update.fault), (vec![], None));
    // MP_UNREACH_NLRI of the same.
    let withdrawal = [0x80, 15, 10, 0, 2, 1, 48, 0x20, 1, 0xd, 0xb8, 0, 1];
    let update = read_update(&with_attributes(&withdrawal), INTERNAL);
    assert_eq!(update.withdrawn_ipv6, ["2001:db8:1::/48".parse().unwrap()]);
    assert_eq!(update.end_of_rib, None);
}

#[test]
fn ipv4_may_come_as_any_other_family() {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100, 0x80, 14, 13, 0, 1, 1, 4];
    attributes.extend([10, 141, 0, 2, 0, 24, 172, 19, 36]);
    let announced = read_update(&with_attributes(&attributes), INTERNAL).announced.pop().unwrap();
    assert_eq!(announced.prefixes, [prefix("172.19.36.0/24")]);
    assert_eq!(announced.attributes.next_hop, address("10.141.0.2"));
}

#[test]
fn prefixes_of_the_nlri_and_of_mp_reach_have_each_their_own_next_hop() {
    // MP_REACH_NLRI: 172.19.36.0/24 via 10.141.0.2, then ORIGIN, AS_PATH, NEXT_HOP 10.141.0.3 and LOCAL_PREF.
    let mut attributes = vec![0x80, 14, 13, 0, 1, 1, 4, 10, 141, 0, 2, 0, 24, 172, 19, 36];
    attributes.extend([0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 141, 0, 3, 0x40, 5, 4, 0, 0, 0, 100]);
    let body = |attributes: &[u8]| {
        let mut message = with_attributes(attributes);
        message.extend([24, 172, 19, 37]);
        let length = message.len() as u16;
        message[16..18].copy_from_slice(&length.to_be_bytes());
        read_update(&message, INTERNAL)
    };
    let update = body(&attributes);
    let of = |announced: &update::Announced| (announced.prefixes.clone(), announced.attributes.next_hop);
    let expected = [
        (vec![prefix("172.19.37.0/24")], address("10.141.0.3")),
        (vec![prefix("172.19.36.0/24")], address("10.141.0.2")),
    ];
    assert_eq!(update.announced.iter().map(of).collect::<Vec<_>>(), expected);
    assert_eq!(update.fault, None);

    // Without a NEXT_HOP the message is malformed, which is about all its routes (RFC 7606 section 2).
    let without = [&attributes[..23], &attributes[30..]].concat();
    let update = body(&without);
    assert_eq!((update.announced.len(), update.withdrawn.len()), (0, 2), "{:?}", update.fault);
}

#[test]
fn a_path_without_end_is_not_kept() {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 3, 4, 10, 141, 0, 2, 0x50, 2, 2, 6, 2, 129];
    attributes.extend([0, 0, 0xfc, 0].repeat(129));
    let mut message = with_attributes(&attributes);
    message.extend([24, 172, 19, 36]);
    let length = message.len() as u16;
    message[16..18].copy_from_slice(&length.to_be_bytes());
    let update = read_update(&message, Encoding { four_octets: true, external: true });
    assert_eq!((update.withdrawn, update.announced), (vec![prefix("172.19.36.0/24")], vec![]));
    assert!(update.fault.unwrap().contains("more than 128"));
}

/// Messages of every kind, to be damaged.
fn samples() -> Vec<Vec<u8>> {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0, 0x40, 3, 4, 10, 141, 0, 2];
    attributes.extend([0x80, 4, 4, 0, 0, 0, 5, 0x40, 5, 4, 0, 0, 0, 100, 0x80, 9, 4, 10, 141, 0, 3]);
    attributes.extend([0x80, 10, 8, 10, 141, 0, 4, 10, 141, 0, 5, 0x80, 15, 7, 0, 2, 1, 24, 0x20, 1, 0xd]);
    let open = Open {
        asn: 4_200_000_000,
        hold_seconds: 90,
        identifier: address("10.141.0.1"),
        four_octets: true,
        ipv4: true,
        ipv6: true,
        route_refresh: true,
        graceful_restart: Some(GracefulRestart { restarting: true, seconds: 120, ipv4: Some(true) }),
    };
    vec![
        with_attributes(&attributes),
        encode_open(&open),
        encode_notification(&Notification { data: b"\x07upgrade".to_vec(), ..Notification::SHUTDOWN }),
        withdrawals(&[prefix("172.19.36.0/24")]).next().unwrap(),
        announcements(&[prefix("172.19.36.0/24")], address("10.141.0.1"), 1, INTERNAL).next().unwrap(),
        [&[0xff; 16][..], &[0, 23, 5, 0, 1, 0, 1]].concat(),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]

    /// Whatever comes is a message, or is refused with words and with a NOTIFICATION that can be sent.
    #[test]
    fn any_bytes_are_answered(
        sample in 0..6_usize,
        changes in proptest::collection::vec((19..120_usize, proptest::prelude::any::<u8>()), 0..6),
        cut in 0..40_usize,
        four_octets: bool,
        external: bool,
    ) {
        let mut bytes = samples().swap_remove(sample);
        for (place, value) in changes {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        bytes.truncate(19.max(bytes.len().saturating_sub(cut.saturating_sub(30))));
        let length = (bytes.len() as u16).to_be_bytes();
        bytes[16..18].copy_from_slice(&length);
        let refused = match decode(Bytes::from(bytes)) {
            Ok(Message::Update(raw)) => raw.decode(Encoding { four_octets, external }).err(),
            Ok(Message::Notification(notification)) => {
                proptest::prop_assert!(!notification.text().contains(char::is_control));
                None
            }
            Ok(_) => None,
            Err(unreadable) => Some(unreadable),
        };
        if let Some(unreadable) = refused {
            proptest::prop_assert!(!unreadable.detail.is_empty());
            proptest::prop_assert!(encode_notification(&unreadable.notification).len() <= MAX_MESSAGE);
        }
    }
}
