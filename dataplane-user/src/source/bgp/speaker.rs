//! The speaker's thread: peers as configured, connections handed to them, changes handed to the daemon.

mod incoming;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    rc::Rc,
    time::Duration,
};

use ipnet::Ipv4Net;
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    Settings,
    admission::{Accepted, Places, Strangers},
    decision::Neighbour,
    export::{export, told},
    filter::{Limits, Refusal, Surroundings},
    peer::{Peer, Retry},
    quiet::Quiet,
    report,
    shared::{Shared, Timing},
    socket::{Listener, Password},
    status::{State, Status},
    table::{PeerId, Table},
    wire::Notification,
};
use crate::{config::BgpPeer, control::answers};

/// Connections of a peer that wait for its task.
const ACCEPTED: usize = 2;

/// How long an address that cannot be listened on is left alone.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

/// What the daemon can ask for.
#[derive(Debug)]
pub enum Order {
    /// Follow this configuration.
    Configure(Settings),
    /// Announce these prefixes, and say when the peers were told.
    Announce(BTreeSet<Ipv4Net>, oneshot::Sender<()>),
    /// The node has and reaches this.
    Surroundings(Surroundings),
    /// How are the peers?
    Peers(oneshot::Sender<Vec<answers::BgpPeer>>),
    /// Which routes are there?
    Routes {
        /// Only those that are refused.
        refused: bool,
        /// Those behind this prefix.
        after: Option<Ipv4Net>,
        /// Where the answer goes.
        answer: oneshot::Sender<answers::BgpRoutes>,
    },
    /// End, with this for the peers, and say when they were told.
    Shutdown(Notification, oneshot::Sender<()>),
}

/// The ends of the channels to the daemon.
pub struct Outside {
    pub orders: mpsc::UnboundedReceiver<Order>,
    pub news: mpsc::Sender<super::News>,
    pub complaint: watch::Sender<Option<String>>,
}

/// A peer's task, seen from outside.
pub struct Handle {
    pub config: BgpPeer,
    password: Option<Password>,
    pub id: PeerId,
    accepted: mpsc::Sender<Accepted>,
    places: Places,
    stop: mpsc::Sender<Notification>,
    reloaded: Rc<Notify>,
    pub status: Rc<RefCell<Status>>,
}

struct Speaker {
    shared: Rc<Shared>,
    settings: Settings,
    peers: BTreeMap<(Ipv4Addr, u16), Handle>,
    tasks: JoinSet<()>,
    listener: Option<Listener>,
    listen_at: Instant,
    /// No connection is taken before.
    accept_at: Instant,
    strangers: Strangers,
    quiet: Quiet,
    complaint: watch::Sender<Option<String>>,
}

/// Runs until the daemon drops its ends, or orders the end.
pub async fn run(settings: Settings, restarted: bool, timing: Timing, outside: Outside) {
    let Outside { mut orders, news, complaint } = outside;
    let table = Table::new(settings.rules.clone());
    let shared = Rc::new(Shared::new(settings.local, table, timing, restarted));
    let mut speaker = Speaker {
        shared: shared.clone(),
        settings: Settings { peers: Vec::new(), ..settings.clone() },
        peers: BTreeMap::new(),
        tasks: JoinSet::new(),
        listener: None,
        listen_at: Instant::now(),
        accept_at: Instant::now(),
        strangers: Strangers::default(),
        quiet: Quiet::new(Instant::now()),
        complaint,
    };
    speaker.configure(settings);
    let mut export = tokio::task::spawn_local(export(shared, news));
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Shutdown(notification, done)) => {
                    speaker.shut_down(notification).await;
                    let _ = done.send(());
                    return;
                }
                Some(order) => speaker.obey(order),
            },
            accepted = accept(&speaker.listener, speaker.accept_at) => speaker.accepted(accepted),
            () = sleep_until(speaker.listen_at), if speaker.must_listen() => speaker.listen(),
            Some(ended) = speaker.tasks.join_next() => {
                if let Err(failure) = ended {
                    // What a fault in one task has left of the table cannot be relied on.
                    error!("the task of a BGP peer failed: {failure}");
                    return;
                }
            }
            _ = &mut export => return,
        }
    }
}

async fn accept(listener: &Option<Listener>, not_before: Instant) -> std::io::Result<(TcpStream, Ipv4Addr)> {
    match listener {
        Some(listener) => {
            sleep_until(not_before).await;
            listener.accept().await
        }
        None => std::future::pending().await,
    }
}

impl Speaker {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Configure(settings) => self.configure(settings),
            Order::Announce(prefixes, done) => {
                let changed = self.shared.announced.send_if_modified(|announced| {
                    let prefixes = Some(prefixes);
                    let changed = *announced != prefixes;
                    *announced = prefixes;
                    changed
                });
                if changed {
                    self.shared.version.set(self.shared.version.get() + 1);
                }
                tokio::task::spawn_local(told(self.shared.clone(), self.statuses(), done));
            }
            Order::Surroundings(surroundings) => {
                self.shared.table.borrow_mut().set_surroundings(surroundings);
                self.shared.informed.set(true);
                self.shared.news.notify_one();
            }
            Order::Peers(answer) => {
                let table = self.shared.table.borrow();
                let peers = self.peers.values();
                let peers = peers.map(|peer| answers::BgpPeer {
                    warnings: self.warnings(peer),
                    ..report::peer(peer, &table)
                });
                let _ = answer.send(peers.collect());
            }
            Order::Routes { refused, after, answer } => {
                let peers = self.peers.values().map(|peer| (peer.id, peer.config.address)).collect();
                let (learned, next) = report::routes(&self.shared.table.borrow(), &peers, refused, after);
                let announced = match next {
                    Some(_) => Vec::new(),
                    None => self.shared.announced.borrow().iter().flatten().copied().collect(),
                };
                let _ = answer.send(answers::BgpRoutes { learned, announced, next });
            }
            Order::Shutdown(..) => unreachable!("the loop ends with it"),
        }
    }

    /// What keeps a peer's routes from being used, or it from a session.
    fn warnings(&self, peer: &Handle) -> Vec<String> {
        let refused = self.shared.table.borrow().counts(peer.id).refused[Refusal::NextHopLimit as usize];
        if refused != 0 {
            let limit = peer.config.max_next_hops;
            return vec![format!(
                "its routes have more than `max-next-hops` ({limit}) next hops, or all peers too many: \
                 {refused} routes are not used"
            )];
        }
        if peer.status.borrow().state == State::Established {
            return Vec::new();
        }
        let strangers = self.strangers.lately(Instant::now()).map(|stranger| {
            format!("connections come from {stranger}, which is no peer's address: if it is this peer, correct `address`")
        });
        let same = |other: &&Handle| other.config.address == peer.config.address && other.id != peer.id;
        let twins = self.peers.values().filter(same).map(|other| {
            format!(
                "the peer at port {} has the same address: connections from it are taken for either",
                other.config.port
            )
        });
        strangers.chain(twins.filter(|_| peer.config.passive)).collect()
    }

    fn statuses(&self) -> Vec<Rc<RefCell<Status>>> {
        self.peers.values().map(|peer| peer.status.clone()).collect()
    }

    /// Takes over a configuration: what is the same in it goes on as it was.
    fn configure(&mut self, settings: Settings) {
        let (old, new) = (self.settings.local, settings.local);
        let same_speaker = (old.asn, old.router_id, old.address) == (new.asn, new.router_id, new.address);
        self.shared.local.set(new);
        self.shared.table.borrow_mut().set_rules(settings.rules.clone());
        self.shared.news.notify_one();

        let key = |peer: &BgpPeer| (peer.address, peer.port);
        let wanted: BTreeMap<_, _> = settings.peers.iter().map(|peer| (key(&peer.0), peer)).collect();
        self.peers.retain(|key, handle| {
            let told = match wanted.get(key) {
                None => Notification::DECONFIGURED,
                Some((config, password)) => {
                    if same_speaker && *config == handle.config && *password == handle.password {
                        handle.reloaded.notify_waiters();
                        return true;
                    }
                    Notification::CONFIGURATION_CHANGE
                }
            };
            info!("BGP peer {}: {}", key.0, told.text());
            // There is room for this one message, and the task takes it at its next step.
            let _ = handle.stop.try_send(told);
            false
        });
        for (key, (config, password)) in wanted {
            if !self.peers.contains_key(&key) {
                let handle = self.start(config.clone(), password.clone());
                self.peers.insert(key, handle);
            }
        }
        if settings.listen != self.settings.listen {
            self.listener = None;
            self.complaint.send_replace(None);
            self.listen_at = Instant::now();
        }
        self.settings = settings;
        if self.must_listen() {
            self.listen();
        } else {
            self.secure();
        }
    }

    fn start(&mut self, config: BgpPeer, password: Option<Password>) -> Handle {
        let neighbour = Neighbour {
            address: config.address,
            identifier: config.address,
            external: config.asn != self.shared.local.get().asn,
        };
        let limits = Limits { own_as: config.allowas_in.into(), next_hops: config.max_next_hops as usize };
        let id = self.shared.table.borrow_mut().add_peer(neighbour, limits);
        self.shared.await_peer(id);
        let (accept, accepted) = mpsc::channel(ACCEPTED);
        let (stop, stopped) = mpsc::channel(1);
        let (reloaded, status) = (Rc::new(Notify::new()), Rc::new(RefCell::new(Status::default())));
        let peer = Peer {
            config: config.clone(),
            password: password.clone(),
            shared: self.shared.clone(),
            id,
            accepted,
            stop: stopped,
            reloaded: reloaded.clone(),
            status: status.clone(),
            retry: Retry::new(&self.shared.timing),
            graceful_restart: None,
            quiet: RefCell::new(Quiet::new(Instant::now())),
        };
        self.tasks.spawn_local(peer.run());
        Handle { config, password, id, accepted: accept, places: Places::new(), stop, reloaded, status }
    }

    fn must_listen(&self) -> bool {
        self.listener.is_none() && self.settings.listen.is_some()
    }

    /// Listens, or says why not and tries again later: the address may come.
    fn listen(&mut self) {
        let Some(address) = self.settings.listen else { return };
        match Listener::bind(address) {
            Ok(listener) => {
                info!("BGP: listening on {address}");
                self.listener = Some(listener);
                self.complaint.send_replace(None);
                self.secure();
            }
            Err(error) => {
                self.listen_at = Instant::now() + LISTEN_AGAIN;
                self.complain(format!("BGP: {error:#}"));
            }
        }
    }

    /// What the listener is to ask of each peer.
    fn secure(&mut self) {
        let keys =
            |(config, password): &(BgpPeer, Option<Password>)| Some((config.address, password.clone()?));
        let keys = self.settings.peers.iter().filter_map(keys).collect();
        let hops = self.settings.peers.iter().map(|(config, _)| config.ttl_security_hops);
        let Some(listener) = &mut self.listener else { return };
        match listener.set_keys(keys).and_then(|()| listener.set_ttl_security(hops)) {
            Ok(()) => drop(self.complaint.send_replace(None)),
            Err(error) => self.complain(format!("BGP: {error:#}")),
        }
    }

    fn complain(&self, complaint: String) {
        self.complaint.send_if_modified(|held| {
            let new = held.as_ref() != Some(&complaint);
            if new {
                warn!("{complaint}");
                *held = Some(complaint);
            }
            new
        });
    }

    async fn shut_down(&mut self, notification: Notification) {
        self.listener = None;
        for peer in self.peers.values() {
            let _ = peer.stop.try_send(notification.clone());
        }
        while self.tasks.join_next().await.is_some() {}
        // The farewells are written by tasks of their own.
        sleep(Duration::from_millis(100)).await;
    }
}
