//! Peers that do what they must not.

use super::*;

/// ORIGIN IGP, an empty AS_PATH, and LOCAL_PREF 100.
const INTERNAL: [u8; 14] = [0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];

async fn start() -> (SocketAddrV4, SocketAddrV4, Node) {
    let (one, two) = (node(), node());
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &["172.19.35.0/24"]).await;
    (one, two, first)
}

fn attributes_with_next_hop(next_hop: Ipv4Addr) -> Vec<u8> {
    [&INTERNAL[..], &[0x40, 3, 4], &next_hop.octets()].concat()
}

#[tokio::test]
async fn a_malformed_update_costs_its_routes_and_not_the_session() {
    let (one, two, mut first) = start().await;
    let mut hand = Hand::establish(two, one).await;
    let both = [prefix("172.19.36.0/24"), prefix("172.19.37.0/24")];
    hand.announce(&both, hop(two)).await;
    first.until_routes(&["172.19.36.0/24", "172.19.37.0/24"]).await;

    // The library does not miss a NEXT_HOP from an internal peer.
    hand.say(&update(&[], &INTERNAL, &[24, 172, 19, 36])).await;
    first.until_routes(&["172.19.37.0/24"]).await;
    // An ORIGIN of two bytes.
    let wrong = [&attributes_with_next_hop(hop(two))[4..], &[0x40, 1, 2, 0, 0]].concat();
    hand.say(&update(&[], &wrong, &[24, 172, 19, 37])).await;
    first.until_routes(&[]).await;
    let peer = first.until_established().await;
    assert_eq!((peer.faulty_updates, peer.sessions), (2, 1));
    assert!(peer.last_fault.unwrap().contains("its routes count as withdrawn (RFC 7606)"));
    hand.announce(&both, hop(two)).await;
    first.until_routes(&["172.19.36.0/24", "172.19.37.0/24"]).await;
}

#[tokio::test]
async fn prefixes_that_cannot_be_read_end_the_session() {
    let (one, two, first) = start().await;
    let mut hand = Hand::establish(two, one).await;
    hand.say(&update(&[], &attributes_with_next_hop(hop(two)), &[33, 172, 19, 36, 0, 0])).await;
    assert_eq!(hand.hear_notification().await.code, 3);
    first.until_error("we ended the session").await;
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let (one, two, first) = start().await;
    let mut hand = Hand::connect(two, one).await;
    hand.say(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    assert_eq!(hand.hear_notification().await, Notification::new(1, 1));
    first.until_error("Connection Not Synchronized").await;
    // A stranger is not listened to.
    let mut stranger = Hand::connect(node(), one).await;
    assert_eq!(stranger.hear().await, None);
    Hand::establish(two, one).await;
}

#[tokio::test]
async fn too_many_prefixes_end_the_session() {
    let (one, two) = (node(), node());
    let mut settings = settings(one, vec![peer(two)]);
    settings.peers[0].0.max_prefixes = 2;
    let mut first = Node::start(one, settings.clone(), false, &[]).await;
    let mut hand = Hand::establish(two, one).await;
    let prefixes: Vec<_> = (0..3).map(|n| prefix(&format!("172.19.36.{n}/32"))).collect();
    hand.announce(&prefixes[..2], hop(two)).await;
    first.until("two are allowed", |node| node.routes.len() == 2).await;
    hand.announce(&prefixes, hop(two)).await;
    assert_eq!(hand.hear_notification().await, Notification::MAX_PREFIXES);
    first.until_routes(&[]).await;
    first.until_error("more than `max-prefixes` (2)").await;
    // The default: minutes, and longer the next time.
    let peer = first.until_peer("it is excluded", |peer| peer.excluded_seconds.is_some()).await;
    assert_eq!((peer.state.as_str(), peer.excluded_seconds > Some(120)), ("idle", true));
    let mut again = Hand::connect(two, one).await;
    assert_eq!(again.hear_notification().await, Notification::REJECTED);
    // A reload ends it.
    first.speaker.configure(settings);
    first.until_peer("it is not excluded", |peer| peer.excluded_seconds.is_none()).await;
    let mut hand = Hand::establish(two, one).await;
    hand.announce(&prefixes, hop(two)).await;
    assert_eq!(hand.hear_notification().await, Notification::MAX_PREFIXES);
    let longer = first.until_peer("it is excluded", |peer| peer.excluded_seconds.is_some()).await;
    assert!(longer.excluded_seconds > Some(310), "{longer:#?}");
}

#[tokio::test]
async fn a_silent_peer_is_given_up_when_the_hold_time_is_over() {
    let (one, two, mut first) = start().await;
    let mut hand = Hand::establish_with(two, one, Open { hold_seconds: 3, ..open(*two.ip()) }).await;
    hand.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    assert_eq!(hand.hear_notification().await, Notification::HOLD_TIMER_EXPIRED);
    first.until_error("Hold Timer Expired").await;
    first.until_routes(&[]).await;
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_given_up_and_holds_up_nobody() {
    let (one, two, three) = (node(), node(), node());
    let speaker = Speaker::start_with(
        Settings { peers: vec![peer(two), peer(three)], ..settings(one, Vec::new()) },
        false,
        // Not less than twice the hold time.
        Timing { send_hold: Duration::from_secs(1), ..timing() },
    )
    .unwrap();
    speaker.set_surroundings(surroundings(one));
    let mut first = Node { speaker, routes: BTreeMap::new(), converged: false, news: 0 };
    let blocks: BTreeSet<Ipv4Net> =
        (0..400_000u32).map(|n| Ipv4Net::from(Ipv4Addr::from(0xac10_0000 + n))).collect();
    let quick = |node: SocketAddrV4| Open { hold_seconds: 3, ..open(*node.ip()) };
    let mut deaf = Hand::establish_with(two, one, quick(two)).await;
    first.speaker.announce(blocks).await;
    let mut third = Hand::establish(three, one).await;
    third.announce(&[prefix("172.31.0.0/24")], hop(three)).await;
    first.until_routes(&["172.31.0.0/24"]).await;
    // It says that it is there, but takes nothing.
    let wait = async {
        loop {
            deaf.connection.writer.push(&wire::encode_keepalive());
            if deaf.connection.writer.flush().await.is_err() {
                break;
            }
            let peers = first.speaker.peers().await.unwrap();
            if peers[0]
                .last_down_reason
                .as_ref()
                .is_some_and(|error| error.contains("Send Hold Timer Expired"))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the peer is given up");
    first.until_error("Send Hold Timer Expired").await;
}

#[tokio::test]
async fn a_flood_waits_for_the_daemon_and_loses_nothing() {
    let (one, two, mut first) = start().await;
    let mut hand = Hand::establish(two, one).await;
    let prefixes: Vec<Ipv4Net> =
        (0..300_000u32).map(|n| Ipv4Net::from(Ipv4Addr::from(0xac10_0000 + n))).collect();
    let next_hop = hop(two);
    let flood = tokio::spawn(async move {
        hand.announce(&prefixes, next_hop).await;
        hand
    });
    // Nobody takes the news: what the speaker holds for the daemon stays bounded, and so does what it reads.
    let full = |peer: &answers::BgpPeer| peer.prefixes_received > 64 * 1024;
    let peer = first.until_peer("the speaker is full", full).await;
    assert!(peer.prefixes_received < 150_000, "{}", peer.prefixes_received);
    first.until("everything has come", |node| node.routes.len() == 300_000).await;
    let hand = flood.await.unwrap();
    assert_eq!(first.until_established().await.prefixes_accepted, 300_000);
    drop(hand);
}

#[tokio::test]
async fn a_refresh_is_answered_with_everything() {
    let (one, two, _first) = start().await;
    let mut hand = Hand::establish(two, one).await;
    assert_eq!(hand.hear_announced().await, [prefix("172.19.35.0/24")]);
    let refresh = [&[0xff; 16][..], &[0, 23, 5, 0, 1, 0, 1]].concat();
    hand.say(&refresh).await;
    assert_eq!(hand.hear_announced().await, [prefix("172.19.35.0/24")]);
}

#[tokio::test]
async fn of_two_connections_the_one_of_the_higher_identifier_stays() {
    let (one, two) = (node(), node());
    // The hand has the higher address, and dials; the speaker's own connection is the one to go.
    assert!(two.ip() > one.ip());
    let listener = tokio::net::TcpListener::bind(two).await.unwrap();
    let first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut theirs = Hand::on(stream);
    let mut ours = Hand::connect(two, one).await;
    for hand in [&mut theirs, &mut ours] {
        hand.say(&wire::encode_open(&open(*two.ip()))).await;
    }
    assert_eq!(theirs.hear_notification().await, Notification::COLLISION);
    assert!(matches!(ours.hear().await, Some(Message::Open(_))));
    assert_eq!(ours.hear().await, Some(Message::Keepalive));
    ours.say(&wire::encode_keepalive()).await;
    first.until_established().await;
}
