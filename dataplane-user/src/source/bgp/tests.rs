//! Speakers against each other, and against peers made by hand, on loopback addresses.

mod faults;
mod graceful;
mod password;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use ipnet::Ipv4Net;
use tokio::{net::TcpStream, time::timeout};

use super::{
    connection::Connection,
    testing::{prefix, reach},
    wire::{self, GracefulRestart, Message, Notification, Open},
    *,
};

/// The bound of every wait.
const PATIENCE: Duration = Duration::from_secs(20);

const ASN: u32 = 64_512;

/// Loopback addresses that no other test of this run has.
fn node() -> SocketAddrV4 {
    static NODES: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NODES.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let address = Ipv4Addr::new(127, 77, high, low);
    let socket = std::net::TcpListener::bind((address, 0)).unwrap();
    SocketAddrV4::new(address, socket.local_addr().unwrap().port())
}

fn timing() -> Timing {
    Timing { retry: Duration::from_millis(50), retry_limit: Duration::from_millis(200), ..Timing::default() }
}

fn peer(address: SocketAddrV4) -> (BgpPeer, Option<Password>) {
    let peer = BgpPeer {
        address: *address.ip(),
        asn: ASN,
        port: address.port(),
        passive: false,
        password_file: None,
        ttl_security_hops: None,
        hold_seconds: 90,
        max_prefixes: 1_000_000,
        max_next_hops: 4096,
        allowas_in: 0,
    };
    (peer, None)
}

/// The next hop of what a node announces: a loopback address is none.
fn hop(node: SocketAddrV4) -> Ipv4Addr {
    let [_, rest @ ..] = node.ip().octets();
    Ipv4Addr::new(10, rest[0], rest[1], rest[2])
}

fn settings(node: SocketAddrV4, peers: Vec<(BgpPeer, Option<Password>)>) -> Settings {
    let bgp = Bgp {
        asn: ASN,
        router_id: *node.ip(),
        listen: Some(node),
        accept: vec![prefix("172.16.0.0/12")],
        graceful_restart_seconds: 120,
        peers: Vec::new(),
    };
    let settings = Settings::new(&bgp).unwrap();
    Settings { peers, local: Local { next_hop: Some(hop(node)), ..settings.local }, ..settings }
}

fn surroundings(node: SocketAddrV4) -> Surroundings {
    Surroundings { addresses: [*node.ip()].into(), reach: reach(&["10.0.0.0/8"]), ..Surroundings::default() }
}

/// A speaker, and the routes that its news amount to.
struct Node {
    speaker: Speaker,
    routes: BTreeMap<Ipv4Net, Ipv4Addr>,
    converged: bool,
    news: usize,
}

impl Node {
    async fn start(address: SocketAddrV4, settings: Settings, restarted: bool, blocks: &[&str]) -> Self {
        let speaker = Speaker::start_with(settings, restarted, timing()).unwrap();
        speaker.set_surroundings(surroundings(address));
        speaker.announce(set(blocks)).await;
        Self { speaker, routes: BTreeMap::new(), converged: false, news: 0 }
    }

    fn take(&mut self, news: News) {
        self.news += 1;
        match news {
            News::Converged => self.converged = true,
            News::Changes(changes) => {
                for (prefix, next_hop) in changes {
                    match next_hop {
                        Some(next_hop) => drop(self.routes.insert(prefix, next_hop)),
                        None => drop(self.routes.remove(&prefix)),
                    }
                }
            }
        }
    }

    /// Waits until the condition holds after some news.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                let news = self.speaker.next().await.unwrap();
                self.take(news);
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok(), "{what}");
    }

    async fn until_routes(&mut self, prefixes: &[&str]) {
        let wanted = set(prefixes);
        self.until(&format!("{prefixes:?} are learned"), |node| {
            node.routes.keys().copied().collect::<BTreeSet<_>>() == wanted
        })
        .await;
    }

    /// Waits until the condition holds of the first peer.
    async fn until_peer(
        &self,
        what: &str,
        condition: impl Fn(&answers::BgpPeer) -> bool,
    ) -> answers::BgpPeer {
        let mut last = None;
        let wait = async {
            loop {
                let peer = self.speaker.peers().await.unwrap().remove(0);
                if condition(&peer) {
                    return peer;
                }
                last = Some(peer);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match timeout(PATIENCE, wait).await {
            Ok(peer) => peer,
            Err(_) => panic!("{what}: {last:#?}"),
        }
    }

    async fn until_established(&self) -> answers::BgpPeer {
        self.until_peer("the session is established", |peer| peer.state == "established").await
    }

    async fn until_error(&self, words: &str) {
        let said = |peer: &answers::BgpPeer| {
            [&peer.last_down_reason, &peer.last_error]
                .into_iter()
                .flatten()
                .any(|error| error.contains(words))
        };
        self.until_peer(&format!("the last error says {words:?}"), said).await;
    }
}

fn set(prefixes: &[&str]) -> BTreeSet<Ipv4Net> {
    prefixes.iter().map(|text| prefix(text)).collect()
}

/// A peer made by hand: a connection on which a test says what it likes.
struct Hand {
    connection: Connection,
}

fn open(identifier: Ipv4Addr) -> Open {
    Open {
        asn: ASN,
        hold_seconds: 90,
        identifier,
        four_octets: true,
        ipv4: true,
        ipv6: true,
        route_refresh: true,
        graceful_restart: Some(GracefulRestart { restarting: false, seconds: 120, ipv4: Some(true) }),
    }
}

impl Hand {
    /// Connects from an address, and says nothing. The speaker's own thread may not listen yet.
    async fn connect(from: SocketAddrV4, to: SocketAddrV4) -> Self {
        let dial = async {
            loop {
                match socket::dial(Some(*from.ip()), to, None, None).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        Self::on(timeout(PATIENCE, dial).await.expect("the speaker listens"))
    }

    fn on(stream: TcpStream) -> Self {
        Self { connection: Connection::new(stream, None).unwrap() }
    }

    /// Connects, and comes to an established session.
    async fn establish(from: SocketAddrV4, to: SocketAddrV4) -> Self {
        Self::establish_with(from, to, open(*from.ip())).await
    }

    async fn establish_with(from: SocketAddrV4, to: SocketAddrV4, open: Open) -> Self {
        let mut hand = Self::connect(from, to).await;
        hand.say(&wire::encode_open(&open)).await;
        assert!(matches!(hand.hear().await, Some(Message::Open(_))));
        hand.say(&wire::encode_keepalive()).await;
        assert_eq!(hand.hear().await, Some(Message::Keepalive));
        hand
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.connection.writer.push(bytes);
        let send = async {
            while !self.connection.writer.is_empty() {
                self.connection.writer.flush().await.unwrap();
            }
        };
        timeout(PATIENCE, send).await.expect("the speaker reads");
    }

    /// The next message; `None` when the connection is gone.
    async fn hear(&mut self) -> Option<Message> {
        let message = timeout(PATIENCE, self.connection.reader.message()).await;
        message.expect("the speaker says something").ok()
    }

    /// The next NOTIFICATION.
    async fn hear_notification(&mut self) -> Notification {
        loop {
            match self.hear().await {
                Some(Message::Notification(notification)) => return notification,
                Some(_) => {}
                None => panic!("the speaker closed the connection without a NOTIFICATION"),
            }
        }
    }

    /// The prefixes of the next UPDATE that announces any.
    async fn hear_announced(&mut self) -> Vec<Ipv4Net> {
        let encoding = wire::Encoding { four_octets: true, external: false };
        loop {
            if let Some(Message::Update(raw)) = self.hear().await
                && let Some(announced) = raw.decode(encoding).unwrap().announced.pop()
            {
                return announced.prefixes;
            }
        }
    }

    async fn announce(&mut self, prefixes: &[Ipv4Net], next_hop: Ipv4Addr) {
        let encoding = wire::Encoding { four_octets: true, external: false };
        for message in wire::announcements(prefixes, next_hop, ASN, encoding) {
            self.say(&message).await;
        }
    }
}

/// An UPDATE from its parts, in the wire's order, without any check.
fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    let length = 19 + 2 + withdrawn.len() + 2 + attributes.len() + nlri.len();
    bytes.extend((length as u16).to_be_bytes());
    bytes.push(2);
    bytes.extend((withdrawn.len() as u16).to_be_bytes());
    bytes.extend(withdrawn);
    bytes.extend((attributes.len() as u16).to_be_bytes());
    bytes.extend(attributes);
    bytes.extend(nlri);
    bytes
}
