//! The BGP speaker (RFC 4271): other nodes' blocks are learned, this node's are announced.
//!
//! It runs on a thread of its own, so that a daemon that is busy does not miss a KEEPALIVE, and a peer that floods
//! does not keep the daemon busy. Between the two goes little: batches of changes over a channel that holds a few
//! of them, and orders. While the channel is full nothing is read from the peers, and TCP holds them back.
//!
//! | RFC | what |
//! | --- | --- |
//! | 4271 | the protocol; 6286 identifiers, 6608 subcodes, 6793 AS numbers of four octets |
//! | 5492, 4760 | capabilities; IPv6 unicast is decoded and counted |
//! | 2918 | route refresh, answered |
//! | 4456 | routes through reflectors |
//! | 4724 | graceful restart, of either side |
//! | 7606 | malformed UPDATEs |
//! | 9687 | a peer that does not read |
//! | 2385 | TCP MD5 signatures |
//! | 4486, 9003 | reasons in words |

mod admission;
mod attempt;
mod attributes;
mod connection;
mod decision;
mod export;
mod filter;
mod negotiation;
mod peer;
mod quiet;
mod report;
mod shared;
mod socket;
mod speaker;
mod status;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

use std::{collections::BTreeSet, net::SocketAddrV4, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};

use self::{filter::Rules, shared::Local, socket::Password, speaker::Order, wire::Notification};
pub use self::{filter::Surroundings, shared::Timing, table::Change};
use crate::{
    config::{Bgp, BgpPeer},
    control::answers,
};

/// Batches that may wait for the daemon.
const BATCHES: usize = 4;

/// How long the peers are given to take a withdrawal, or a farewell.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the configuration says, with the passwords read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    local: Local,
    listen: Option<SocketAddrV4>,
    rules: Rules,
    peers: Vec<(BgpPeer, Option<Password>)>,
}

impl Settings {
    /// Reads the passwords.
    ///
    /// # Errors
    ///
    /// Where a password file cannot be used, with its name.
    pub fn new(bgp: &Bgp) -> Result<Self> {
        let peer = |peer: &BgpPeer| {
            let password = peer.password_file.as_deref().map(Password::read).transpose();
            Ok((peer.clone(), password.with_context(|| format!("[[bgp.peer]] {}", peer.address))?))
        };
        Ok(Self {
            local: Local {
                asn: bgp.asn,
                router_id: bgp.router_id,
                address: bgp.listen.map(|listen| *listen.ip()).filter(|address| !address.is_unspecified()),
                next_hop: None,
                restart_seconds: bgp.graceful_restart_seconds,
            },
            listen: bgp.listen,
            rules: Rules { asn: bgp.asn, router_id: bgp.router_id, accept: bgp.accept.clone() },
            peers: bgp.peers.iter().map(peer).collect::<Result<_>>()?,
        })
    }
}

/// Whether a file holds the key of a TCP MD5 signature.
///
/// # Errors
///
/// Where it does not, with its name.
pub fn check_password(file: &Path) -> Result<()> {
    Password::read(file).map(drop)
}

/// What the daemon hears from the speaker.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// The best routes to these prefixes are others now; of two entries for one prefix the later holds.
    Changes(Vec<Change>),
    /// Every peer has told all since the daemon started, or was waited for long enough: what an earlier run had
    /// learned, and no peer has said again, may go.
    Converged,
}

/// A running speaker. Dropping it ends its sessions without a NOTIFICATION, as a daemon does that will be back: peers
/// with graceful restart go on forwarding to this node.
#[derive(Debug)]
pub struct Speaker {
    orders: mpsc::UnboundedSender<Order>,
    news: mpsc::Receiver<News>,
    complaint: watch::Receiver<Option<String>>,
}

impl Speaker {
    /// Starts the speaker. `restarted`: the data path still forwards what an earlier run learned, and
    /// [`News::Converged`] will come.
    ///
    /// # Errors
    ///
    /// Where no thread can be had.
    pub fn start(settings: Settings, restarted: bool) -> Result<Self> {
        Self::start_with(settings, restarted, Timing::default())
    }

    fn start_with(settings: Settings, restarted: bool, timing: Timing) -> Result<Self> {
        let (orders, received) = mpsc::unbounded_channel();
        let (sender, news) = mpsc::channel(BATCHES);
        let (complain, complaint) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outside = speaker::Outside { orders: received, news: sender, complaint: complain };
        thread::Builder::new()
            .name("bgp".to_owned())
            .spawn(move || {
                let tasks = tokio::task::LocalSet::new();
                tasks.block_on(&runtime, speaker::run(settings, restarted, timing, outside));
            })
            .context("cannot start the BGP speaker's thread")?;
        Ok(Self { orders, news, complaint })
    }

    /// The next thing to hear.
    ///
    /// # Errors
    ///
    /// Where the speaker has died, which it must not.
    pub async fn next(&mut self) -> Result<News> {
        self.news.recv().await.context("the BGP speaker has ended: this is a fault of the program")
    }

    /// What of the news is there already.
    #[cfg(test)]
    fn try_next(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Makes it follow another configuration; peers that it says the same about keep their sessions.
    pub fn configure(&self, settings: Settings) {
        self.order(Order::Configure(settings));
    }

    /// Makes these the announced prefixes. Waits a moment until the peers were told.
    pub async fn announce(&self, prefixes: BTreeSet<Ipv4Net>) {
        let (done, told) = oneshot::channel();
        self.order(Order::Announce(prefixes, done));
        // Whoever takes longer hears it later.
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }

    /// As [`Self::announce`], without waiting.
    pub fn set_announced(&self, prefixes: BTreeSet<Ipv4Net>) {
        self.order(Order::Announce(prefixes, oneshot::channel().0));
    }

    /// Tells what the node has and reaches.
    pub fn set_surroundings(&self, surroundings: Surroundings) {
        self.order(Order::Surroundings(surroundings));
    }

    /// Why it cannot listen, if it cannot.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.borrow().clone()
    }

    /// How the peers are.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub async fn peers(&self) -> Result<Vec<answers::BgpPeer>> {
        let (answer, peers) = oneshot::channel();
        self.order(Order::Peers(answer));
        peers.await.context("the BGP speaker does not answer")
    }

    /// A part of what was learned, or only of what is refused of it: what is behind the prefix `after`.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub async fn routes(&self, refused: bool, after: Option<Ipv4Net>) -> Result<answers::BgpRoutes> {
        let (answer, routes) = oneshot::channel();
        self.order(Order::Routes { refused, after, answer });
        routes.await.context("the BGP speaker does not answer")
    }

    /// Ends for good: the peers are told, and forget what this node announced.
    pub async fn shut_down(self) {
        let (done, told) = oneshot::channel();
        self.order(Order::Shutdown(Notification::SHUTDOWN, done));
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }

    fn order(&self, order: Order) {
        // One that has died says so in `next`.
        let _ = self.orders.send(order);
    }
}
