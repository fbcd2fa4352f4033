//! Restarts, of the peer and of ourselves.

use super::*;

fn known_for(node: &Node, prefix: Ipv4Net) -> bool {
    node.routes.contains_key(&prefix)
}

#[tokio::test]
async fn a_peers_routes_stay_while_it_restarts_and_those_not_said_again_go() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let blocks = ["172.19.36.0/24", "172.19.37.0/24"];
    let second = Node::start(two, settings(two, vec![peer(one)]), false, &blocks).await;
    first.until_routes(&blocks).await;
    second.until_established().await;

    drop(second);
    let down = first.until_peer("the session fell", |peer| peer.prefixes_stale == 2).await;
    assert!(down.stale_seconds.is_some());
    assert!(down.last_error.unwrap().contains("connection"), "closed without a NOTIFICATION");
    let news = first.news;
    let _again = Node::start(two, settings(two, vec![peer(one)]), true, &blocks[..1]).await;
    first.until_routes(&blocks[..1]).await;
    assert_eq!(first.news, news + 1, "only the route that went was news");
    let up = first.until_established().await;
    assert_eq!((up.prefixes_stale, up.stale_seconds), (0, None));
}

#[tokio::test]
async fn who_does_not_know_yet_what_to_announce_does_not_say_that_this_is_all() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let block = ["172.19.36.0/24"];
    let second = Node::start(two, settings(two, vec![peer(one)]), false, &block).await;
    first.until_routes(&block).await;
    second.until_established().await;
    drop(second);
    first.until_peer("its route is kept", |peer| peer.prefixes_stale == 1).await;
    let news = first.news;
    // The session is there before its daemon is.
    let again = Speaker::start_with(settings(two, vec![peer(one)]), true, timing()).unwrap();
    again.set_surroundings(surroundings(two));
    let again = Node { speaker: again, routes: BTreeMap::new(), converged: false, news: 0 };
    again.until_established().await;
    first.until_established().await;
    again.speaker.announce(set(&block)).await;
    let told = |peer: &answers::BgpPeer| peer.prefixes_stale == 0 && peer.prefixes_accepted == 1;
    let peer = first.until_peer("told anew", told).await;
    while let Some(more) = first.speaker.try_next() {
        first.take(more);
    }
    assert_eq!(first.news, news, "the route never went: {peer:#?}");
}

#[tokio::test]
async fn a_peer_that_lost_its_forwarding_loses_its_routes() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let second = Node::start(two, settings(two, vec![peer(one)]), false, &["172.19.36.0/24"]).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    drop(second);
    first.until_peer("its routes are kept", |peer| peer.prefixes_stale == 1).await;
    // Not restarted: its data path begins anew, and announces nothing.
    let _again = Node::start(two, settings(two, vec![peer(one)]), false, &[]).await;
    first.until_routes(&[]).await;
}

#[tokio::test]
async fn stale_routes_go_when_the_restart_takes_too_long() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let restart = Some(GracefulRestart { restarting: false, seconds: 1, ipv4: Some(true) });
    let mut hand =
        Hand::establish_with(two, one, Open { graceful_restart: restart, ..open(*two.ip()) }).await;
    hand.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    drop(hand);
    first.until_peer("its routes are kept", |peer| peer.prefixes_stale == 1).await;
    first.until_routes(&[]).await;
}

#[tokio::test]
async fn a_peer_that_sends_a_cease_takes_its_routes_along() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let second = Node::start(two, settings(two, vec![peer(one)]), false, &["172.19.36.0/24"]).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    second.speaker.shut_down().await;
    first.until_error("the peer ended the session: Cease: Administrative Shutdown").await;
    first.until_routes(&[]).await;
}

#[tokio::test]
async fn a_second_connection_of_a_restarted_peer_takes_over_without_a_gap() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let mut hand = Hand::establish(two, one).await;
    hand.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    first.until_routes(&["172.19.36.0/24"]).await;

    // The first connection is silent, as that of a node whose power went.
    let restart = Some(GracefulRestart { restarting: true, seconds: 120, ipv4: Some(true) });
    let mut again =
        Hand::establish_with(two, one, Open { graceful_restart: restart, ..open(*two.ip()) }).await;
    let news = first.news;
    first.until_error("the peer connected anew").await;
    again.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    again.say(&wire::end_of_rib()).await;
    first.until_peer("it is up again", |peer| peer.sessions == 2 && peer.prefixes_stale == 0).await;
    again.announce(&[prefix("172.19.37.0/24")], hop(two)).await;
    first.until_routes(&["172.19.36.0/24", "172.19.37.0/24"]).await;
    assert_eq!(first.news, news + 1, "the route that stayed was never gone");
}

#[tokio::test]
async fn after_our_restart_every_peer_is_awaited() {
    let (one, two, three) = (node(), node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two), peer(three)]), true, &[]).await;
    let mut second = Hand::connect(two, one).await;
    second.say(&wire::encode_open(&open(*two.ip()))).await;
    let Some(Message::Open(ours)) = second.hear().await else { panic!("an OPEN comes first") };
    let restart = ours.graceful_restart.unwrap();
    assert!(restart.restarting && restart.ipv4 == Some(true), "{restart:?}");
    second.say(&wire::encode_keepalive()).await;
    second.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    second.say(&wire::end_of_rib()).await;
    first.until("the first peer's route is learned", |node| known_for(node, prefix("172.19.36.0/24"))).await;
    assert!(!first.converged, "the other peer has told nothing yet");

    // This one does not restart gracefully: a KEEPALIVE after its routes says that these were all.
    let plain = Open { graceful_restart: None, ..open(*three.ip()) };
    let mut third = Hand::establish_with(three, one, plain).await;
    third.announce(&[prefix("172.19.37.0/24")], hop(three)).await;
    third.say(&wire::encode_keepalive()).await;
    first.until("all have told all", |node| node.converged).await;
    assert!(known_for(&first, prefix("172.19.37.0/24")), "its routes came before");
    drop(third);
    let mut third = Hand::connect(three, one).await;
    third.say(&wire::encode_open(&open(*three.ip()))).await;
    let Some(Message::Open(ours)) = third.hear().await else { panic!("an OPEN comes first") };
    assert!(!ours.graceful_restart.unwrap().restarting, "the restart is over");
}

#[tokio::test]
async fn our_restart_ends_without_a_peer_that_never_comes() {
    let one = node();
    let mut settings = settings(one, vec![peer(node())]);
    settings.local.restart_seconds = 1;
    let mut first = Node::start(one, settings, true, &[]).await;
    first.until("the time is over", |node| node.converged).await;
}

#[tokio::test]
async fn our_restart_does_not_end_before_the_routes_can_be_used() {
    let (one, two) = (node(), node());
    let speaker = Speaker::start_with(settings(one, vec![peer(two)]), true, timing()).unwrap();
    let mut first = Node { speaker, routes: BTreeMap::new(), converged: false, news: 0 };
    // It listens by the time it answers.
    first.speaker.peers().await.unwrap();
    let mut second = Hand::establish(two, one).await;
    second.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    second.say(&wire::end_of_rib()).await;
    // The daemon has not said yet which next hops are reached.
    first.until_peer("the route is refused", |peer| peer.prefixes_refused == 1).await;
    assert_eq!(first.speaker.try_next(), None);
    first.speaker.set_surroundings(surroundings(one));
    first.until("the restart is over", |node| node.converged).await;
    assert!(known_for(&first, prefix("172.19.36.0/24")), "the route came before");
}

#[tokio::test]
async fn what_was_not_said_again_before_a_second_restart_is_gone() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let mut hand = Hand::establish(two, one).await;
    hand.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    drop(hand);
    first.until_peer("its route is kept", |peer| peer.prefixes_stale == 1).await;
    let hand = Hand::establish(two, one).await;
    first.until_established().await;
    drop(hand);
    first.until_routes(&[]).await;
}

#[tokio::test]
async fn a_peer_that_decides_a_collision_late_keeps_its_routes() {
    let (one, two) = (node(), node());
    let mut first = Node::start(one, settings(one, vec![peer(two)]), false, &[]).await;
    let mut hand = Hand::establish(two, one).await;
    hand.announce(&[prefix("172.19.36.0/24")], hop(two)).await;
    first.until_routes(&["172.19.36.0/24"]).await;
    let collision = wire::encode_notification(&Notification::COLLISION);
    // Both have dialled at once: it sent an OPEN over the connection that it gives up.
    let mut other = Hand::connect(two, one).await;
    other.say(&[wire::encode_open(&open(*two.ip())), collision.clone()].concat()).await;
    while other.hear().await.is_some() {}
    hand.announce(&[prefix("172.19.37.0/24")], hop(two)).await;
    first.until_routes(&["172.19.36.0/24", "172.19.37.0/24"]).await;
    assert_eq!(first.until_established().await.sessions, 1);
    // Or it gives up the one that was established already.
    hand.say(&collision).await;
    first.until_peer("its routes are kept", |peer| peer.prefixes_stale == 2).await;
    let mut hand = Hand::establish(two, one).await;
    hand.say(&collision).await;
    first.until_peer("as they were", |peer| peer.sessions == 2 && peer.state != "established").await;
    assert_eq!(first.until_peer("still", |_| true).await.prefixes_stale, 2);
}
