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

#[tokio::test]
async fn a_complaint_about_keys_goes_when_the_kernel_takes_them() {
    let one = node();
    // More keys than a socket has memory for (`net.core.optmem_max`).
    let many = (0..5_000u32).map(|n| {
        let (peer, _) = peer(SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + n), 179));
        (BgpPeer { passive: true, ..peer }, Some(Password::new("secret")))
    });
    let few = settings(one, vec![peer(node())]);
    let first = Node::start(one, few.clone(), false, &[]).await;
    first.speaker.configure(Settings { peers: many.collect(), ..few.clone() });
    let complaint = |wanted: bool| {
        let mut complaint = first.speaker.complaint.clone();
        async move {
            let found = timeout(PATIENCE, complaint.wait_for(|it| it.is_some() == wanted)).await;
            found.expect("it is as wanted").unwrap().clone().unwrap_or_default()
        }
    };
    let said = complaint(true).await;
    assert!(said.contains("TCP MD5"), "{said}");
    first.speaker.configure(few);
    complaint(false).await;
}
