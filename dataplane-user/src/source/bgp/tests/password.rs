//! TCP MD5 signatures.

use super::*;

fn with(address: SocketAddrV4, password: Option<&str>) -> Vec<(BgpPeer, Option<Password>)> {
    vec![(peer(address).0, password.map(Password::new))]
}

fn quick() -> Timing {
    Timing { dial: Duration::from_millis(1500), ..timing() }
}

async fn start(address: SocketAddrV4, settings: Settings) -> Node {
    let speaker = Speaker::start_with(settings, false, quick()).unwrap();
    speaker.set_surroundings(surroundings(address));
    Node { speaker, routes: BTreeMap::new(), converged: false, news: 0 }
}

#[tokio::test]
async fn the_right_password_lets_the_session_come_and_wrong_ones_are_named() {
    let (one, two) = (node(), node());
    let first = start(one, settings(one, with(two, Some("right")))).await;
    let second = start(two, settings(two, with(one, Some("right")))).await;
    first.until_established().await;
    second.until_established().await;

    second.speaker.configure(settings(two, with(one, Some("wrong"))));
    first.until_error("the passwords differ").await;
    second.speaker.configure(settings(two, with(one, None)));
    first.until_error("the peer has no password for us").await;
    second.until_error("`password-file` is not set").await;
    second.speaker.configure(settings(two, with(one, Some("right"))));
    first.until_established().await;
    second.until_established().await;
}
