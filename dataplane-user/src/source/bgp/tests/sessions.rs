//! What two speakers tell each other.

use super::*;

/// Two speakers that both dial and listen, each with a block.
async fn pair() -> ((SocketAddrV4, Node), (SocketAddrV4, Node)) {
    let (one, two) = (node(), node());
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &["172.19.35.0/24"]).await;
    let second = Node::start(two, settings(two, vec![peer(one)]), false, &["172.19.36.0/24"]).await;
    ((one, first), (two, second))
}

#[tokio::test]
async fn two_speakers_learn_each_others_blocks_over_one_session() {
    let ((one, mut first), (two, mut second)) = pair().await;
    first.until_routes(&["172.19.36.0/24"]).await;
    second.until_routes(&["172.19.35.0/24"]).await;
    assert_eq!(first.routes[&prefix("172.19.36.0/24")], hop(two), "next hop self");
    assert_eq!(second.routes[&prefix("172.19.35.0/24")], hop(one));
    let peer = first.until_established().await;
    assert_eq!((peer.prefixes_accepted, peer.prefixes_announced, peer.sessions), (1, 1, 1));
    assert_eq!(peer.router_id, Some(*two.ip()));
    assert_eq!(second.until_established().await.sessions, 1);
}

#[tokio::test]
async fn a_withdrawn_block_is_withdrawn_before_the_announcement_returns() {
    let ((_, first), (_, mut second)) = pair().await;
    second.until_routes(&["172.19.35.0/24"]).await;
    first.speaker.announce(set(&["172.19.37.0/24", "172.19.38.0/24"])).await;
    let peer = first.until_established().await;
    assert_eq!(peer.prefixes_announced, 2);
    second.until_routes(&["172.19.37.0/24", "172.19.38.0/24"]).await;
    let routes = first.speaker.routes(false, None).await.unwrap();
    assert_eq!(routes.announced, [prefix("172.19.37.0/24"), prefix("172.19.38.0/24")]);
    assert_eq!(routes.learned.len(), 1);
    assert!(routes.learned[0].best);
}

#[tokio::test]
async fn what_is_announced_is_split_into_messages_that_fit() {
    let (one, two) = (node(), node());
    let blocks: BTreeSet<Ipv4Net> =
        (0..5_000u32).map(|n| Ipv4Net::from(Ipv4Addr::from(0xac13_0000 + n))).collect();
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    first.speaker.announce(blocks.clone()).await;
    let mut second = Node::start(two, settings(two, vec![peer(one)]), false, &[]).await;
    second.until("all are learned", |node| node.routes.len() == 5_000).await;
    assert!(second.routes.keys().eq(blocks.iter()));
    first.speaker.announce(BTreeSet::new()).await;
    second.until("all are gone", |node| node.routes.is_empty()).await;
}

#[tokio::test]
async fn a_passive_peer_waits_and_one_without_a_listener_only_dials() {
    let (one, two) = (node(), node());
    let mut passive = settings(one, vec![peer(two)]);
    passive.peers[0].0.passive = true;
    let mut dialling = settings(two, vec![peer(one)]);
    dialling.listen = None;
    let mut first = Node::start(one, passive, false, &["172.19.35.0/24"]).await;
    first.until_peer("it waits", |peer| peer.state == "active").await;
    let mut second = Node::start(two, dialling, false, &["172.19.36.0/24"]).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    second.until_routes(&["172.19.35.0/24"]).await;
}

#[tokio::test]
async fn another_configuration_touches_only_the_peers_that_it_changes() {
    let ((one, mut first), (two, second)) = pair().await;
    let three = node();
    let mut third = Node::start(three, settings(three, vec![peer(one)]), false, &["172.19.37.0/24"]).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    first.speaker.configure(settings(one, vec![peer(two), peer(three)]));
    first.until_routes(&["172.19.36.0/24", "172.19.37.0/24"]).await;
    third.until_routes(&["172.19.35.0/24"]).await;

    first.speaker.configure(settings(one, vec![peer(two)]));
    first.until_routes(&["172.19.36.0/24"]).await;
    third.until_error("Peer De-configured").await;
    third.until_routes(&[]).await;
    assert_eq!(second.until_established().await.sessions, 1, "it kept its session");

    let mut narrower = settings(one, vec![peer(two)]);
    narrower.rules.accept = vec![prefix("172.20.0.0/16")];
    first.speaker.configure(narrower);
    first.until_routes(&[]).await;
    let peer = first.until_established().await;
    assert_eq!(peer.refused, BTreeMap::from([("not-accepted".to_owned(), 1)]));
    assert_eq!(peer.sessions, 1);
    let refused = first.speaker.routes(true, None).await.unwrap().learned;
    assert_eq!(refused[0].refused_text.as_deref(), Some("outside `accept` of [bgp]"));
}

#[tokio::test]
async fn a_wrong_system_or_identifier_is_named_on_both_sides() {
    let (one, two) = (node(), node());
    let mut wrong = settings(one, vec![peer(two)]);
    wrong.peers[0].0.asn = 64_999;
    let first = Node::start(one, wrong.clone(), false, &[]).await;
    let second = Node::start(two, settings(two, vec![peer(one)]), false, &[]).await;
    first.until_error("the peer is in autonomous system 64512, not 64999").await;
    second.until_error("Bad Peer AS").await;

    let mut same = settings(one, vec![peer(two)]);
    same.local.router_id = *two.ip();
    first.speaker.configure(same);
    first.until_error("router-id").await;
    first.speaker.configure(settings(one, vec![peer(two)]));
    first.until_established().await;
    second.until_established().await;
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_said_to_be_not_there() {
    let (one, two) = (node(), node());
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    first.until_error("connection refused on port").await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_complained_about_and_tried_again() {
    let one = node();
    let taken = std::net::TcpListener::bind(one).unwrap();
    let first = Node::start(one, settings(one, vec![peer(node())]), false, &[]).await;
    let complaint = first.speaker.complaint().unwrap_or_default();
    assert!(complaint.contains("another program does"), "{complaint}");
    drop(taken);
    first.speaker.complaint.clone().wait_for(Option::is_none).await.unwrap();
}

#[tokio::test]
async fn an_external_peer_sees_our_system_and_we_see_its() {
    let (one, two) = (node(), node());
    let mut external = settings(one, vec![peer(two)]);
    (external.local.asn, external.rules.asn) = (4_200_000_000, 4_200_000_000);
    let mut expecting = settings(two, vec![peer(one)]);
    expecting.peers[0].0.asn = 4_200_000_000;
    let mut first = Node::start(one, external, false, &["172.19.35.0/24"]).await;
    let mut second = Node::start(two, expecting, false, &["172.19.36.0/24"]).await;
    second.until_routes(&["172.19.35.0/24"]).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    let learned = second.speaker.routes(false, None).await.unwrap().learned;
    assert_eq!(learned[0].as_path, [4_200_000_000]);
    assert_eq!(first.speaker.routes(false, None).await.unwrap().learned[0].as_path, [ASN]);
}

#[tokio::test]
async fn a_connection_from_another_address_is_named_with_the_peer_that_it_may_be_of() {
    let (one, two, other) = (node(), node(), node());
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    assert_eq!(Hand::connect(other, one).await.hear().await, None);
    let words = format!("connections come from {}, which is no peer's address", other.ip());
    let said = |peer: &answers::BgpPeer| peer.warnings.iter().any(|warning| warning.contains(&words));
    first.until_peer("it is named", said).await;
    let _hand = Hand::establish(two, one).await;
    let peer = first.until_established().await;
    assert_eq!(peer.warnings, [""; 0]);
}

#[tokio::test]
async fn two_passive_peers_at_one_address_both_come_up() {
    let (one, two) = (node(), node());
    let passive = |port| {
        let (peer, password) = peer(SocketAddrV4::new(*two.ip(), port));
        (BgpPeer { passive: true, ..peer }, password)
    };
    let first = Node::start(one, settings(one, vec![passive(1), passive(2)]), false, &[]).await;
    let mut hands = Vec::new();
    for number in 1..=2 {
        hands.push(Hand::establish(two, one).await);
        let sessions =
            || async { first.speaker.peers().await.unwrap().iter().map(|peer| peer.sessions).sum::<u64>() };
        let wait = async {
            while sessions().await < number {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("one more session");
    }
    let peers = first.speaker.peers().await.unwrap();
    assert!(peers.iter().all(|peer| peer.state == "established"), "{peers:#?}");
}

#[tokio::test]
async fn connections_of_a_peer_are_bounded() {
    let (one, two) = (node(), node());
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let mut session =
        Hand::establish_with(two, one, Open { graceful_restart: None, ..open(*two.ip()) }).await;
    first.until_established().await;
    let mut more = Vec::new();
    for _ in 0..200 {
        more.push(Hand::connect(two, one).await);
    }
    // Those for which there is no place are not told why: that would keep them open.
    let mut told = 0;
    for hand in &mut more {
        while let Some(message) = hand.hear().await {
            told += usize::from(matches!(message, Message::Notification(_)));
        }
    }
    assert!(told < more.len(), "all were told");
    session.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    first.until_peer("the session goes on", |peer| peer.prefixes_received == 1).await;
}

#[tokio::test]
async fn routes_are_listed_part_by_part() {
    let (one, two) = (node(), node());
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &["172.19.35.0/24"]).await;
    let mut hand = Hand::establish(two, one).await;
    let prefixes: Vec<Ipv4Net> =
        (0..5000u32).map(|n| Ipv4Net::from(Ipv4Addr::from(0xac10_0000 + n))).collect();
    hand.announce(&prefixes, hop(two)).await;
    first.until_peer("all are learned", |peer| peer.prefixes_received == 5000).await;
    let (mut listed, mut after, mut parts) = (Vec::new(), None, 0);
    let announced = loop {
        let part = first.speaker.routes(false, after).await.unwrap();
        assert!(part.learned.len() <= 2048, "a part is bounded");
        listed.extend(part.learned.iter().map(|route| route.prefix));
        (after, parts) = (part.next, parts + 1);
        if after.is_none() {
            break part.announced;
        }
        assert!(part.announced.is_empty());
    };
    assert_eq!((listed, parts, announced), (prefixes, 3, vec![prefix("172.19.35.0/24")]));
    assert!(first.speaker.routes(true, None).await.unwrap().learned.is_empty());
}
