use super::*;
use crate::source::bgp::testing::{address, prefix};

const ENCODING: wire::Encoding = wire::Encoding { four_octets: true, external: false };

fn session() -> Session {
    let negotiated = Negotiated {
        identifier: address("10.141.0.2"),
        hold: None,
        encoding: ENCODING,
        ipv4: true,
        ipv6: false,
        graceful_restart: None,
    };
    Session::new(negotiated, address("10.141.0.1"))
}

/// What a peer has after it was sent what `session` has for it now.
fn sent(session: &mut Session, wanted: &[&str], mut has: BTreeSet<Ipv4Net>) -> BTreeSet<Ipv4Net> {
    let wanted = wanted.iter().map(|text| prefix(text)).collect();
    session.advertise(&wanted, 64_512, |message| {
        let Ok(Message::Update(raw)) = wire::decode(message.to_vec().into()) else { panic!("no UPDATE") };
        let update = raw.decode(ENCODING).unwrap();
        has.retain(|prefix| !update.withdrawn.contains(prefix));
        has.extend(update.announced.into_iter().flat_map(|announced| announced.prefixes));
    });
    has
}

#[test]
fn a_withdrawal_that_waits_is_sent_although_the_peer_asks_for_a_refresh() {
    let mut session = session();
    let before = sent(&mut session, &["172.19.35.0/24", "172.19.36.0/24"], BTreeSet::new());
    assert_eq!(before.len(), 2);
    session.refresh = true;
    let after = sent(&mut session, &["172.19.36.0/24", "172.19.37.0/24"], before);
    assert_eq!(after, [prefix("172.19.36.0/24"), prefix("172.19.37.0/24")].into());
}

#[test]
fn a_refresh_sends_everything_once_more_and_only_once() {
    let mut session = session();
    let all = ["172.19.35.0/24", "172.19.36.0/24"];
    sent(&mut session, &all, BTreeSet::new());
    session.refresh = true;
    assert_eq!(sent(&mut session, &all, BTreeSet::new()).len(), 2);
    assert_eq!(sent(&mut session, &all, BTreeSet::new()).len(), 0);
}
