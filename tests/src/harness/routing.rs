//! What a test asks of a routing daemon, whichever it is: one file beside this one makes it of BIRD, and another
//! daemon is one file more.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Namespace, Node, eventually};

/// How long a session may take, on a machine that has much else to do.
const SESSION_LIMIT: Duration = Duration::from_secs(30);

/// What a routing daemon is to say, and to whom, in the field's terms.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Its address, and its BGP identifier.
    pub address: Ipv4Addr,
    /// Its autonomous system.
    pub asn: u32,
    /// Prefixes that it announces with itself as the next hop; in the kernel they are blackholes, as under Calico.
    pub blocks: Vec<String>,
    /// Its peers.
    pub neighbours: Vec<Neighbour>,
    /// The kernel table that it writes its routes into; none where it writes none. Only BIRD writes into others than
    /// the main one here.
    pub kernel_table: Option<u32>,
}

impl Speaker {
    /// The speaker of a node in AS 64512, which writes what it learns and its blocks into the main table.
    pub fn of(node: &Node) -> Self {
        Self {
            address: node.address,
            asn: 64512,
            blocks: Vec::new(),
            neighbours: Vec::new(),
            kernel_table: Some(u32::from(libc::RT_TABLE_MAIN)),
        }
    }

    /// Announces a block.
    #[must_use]
    pub fn block(mut self, prefix: &str) -> Self {
        self.blocks.push(prefix.to_owned());
        self
    }

    /// Has a peer.
    #[must_use]
    pub fn neighbour(mut self, neighbour: Neighbour) -> Self {
        self.neighbours.push(neighbour);
        self
    }

    /// The blocks that another speaker has and this one has not.
    pub(super) fn lacks(&self, other: &Self) -> Vec<String> {
        other.blocks.iter().filter(|block| !self.blocks.contains(block)).cloned().collect()
    }

    /// Writes into that kernel table, or nowhere.
    #[must_use]
    pub fn kernel_table(mut self, table: Option<u32>) -> Self {
        self.kernel_table = table;
        self
    }
}

/// A peer of a [`Speaker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its autonomous system.
    pub asn: u32,
    /// Its TCP port.
    pub port: u16,
    /// The key of the TCP MD5 signature (RFC 2385).
    pub password: Option<String>,
    /// It is on the same link, and everything between both is sent with a TTL of 255 (RFC 5082).
    pub ttl_security: bool,
    /// Wait for it to connect.
    pub passive: bool,
    /// It is a client of this route reflector (RFC 4456).
    pub reflector_client: bool,
    /// Keep its routes while it restarts, and ask the same of it (RFC 4724).
    pub graceful_restart: bool,
}

impl Neighbour {
    /// A peer at port 179 in AS 64512, with graceful restart.
    pub fn new(address: Ipv4Addr) -> Self {
        Self {
            address,
            asn: 64512,
            port: 179,
            password: None,
            ttl_security: false,
            passive: false,
            reflector_client: false,
            graceful_restart: true,
        }
    }
}

/// The router in the node's kernel to exactly that prefix.
pub(super) fn kernel_next_hop(namespace: &Namespace, prefix: &str) -> Result<Option<Ipv4Addr>> {
    let text = namespace.ip(&format!("-json route show exact {prefix}"))?;
    let routes: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
    Ok(routes[0]["gateway"].as_str().map(str::parse).transpose()?)
}

/// A routing daemon on a node: a guard that ends it by its process id and removes its files.
pub trait RoutingDaemon: Sized {
    /// As whose its routes stand in the kernel, in the words of `[kernel] protocols`; empty where it writes none,
    /// whatever [`Speaker::kernel_table`] says.
    const PROTOCOLS: &[&str];

    /// Starts it in the node's namespace and waits until it answers.
    ///
    /// # Errors
    /// If it does not, with all that it wrote.
    fn start(node: &Node, speaker: &Speaker) -> Result<Self>;

    /// Starts it again after [`Self::stop`] or [`Self::kill`].
    ///
    /// # Errors
    /// If it runs, or as [`Self::start`].
    fn launch(&mut self) -> Result<()>;

    /// Ends it as its service manager does; it takes its routes out of the kernel, and its peers notice.
    ///
    /// # Errors
    /// If it does not end within ten seconds.
    fn stop(&mut self) -> Result<()>;

    /// SIGKILL: its routes stay in the kernel.
    ///
    /// # Errors
    /// If it does not run.
    fn kill(&mut self) -> Result<()>;

    /// Makes it say that instead, without a restart.
    ///
    /// # Errors
    /// If it refuses.
    fn change(&mut self, speaker: &Speaker) -> Result<()>;

    /// Ends the session with a peer by an administrative shutdown (RFC 9003), until [`Self::enable`].
    ///
    /// # Errors
    /// If it refuses.
    fn disable(&mut self, neighbour: Ipv4Addr) -> Result<()>;

    /// Takes [`Self::disable`] back.
    ///
    /// # Errors
    /// If it refuses.
    fn enable(&mut self, neighbour: Ipv4Addr) -> Result<()>;

    /// Whether the session with that peer is established.
    ///
    /// # Errors
    /// If it does not tell.
    fn is_established(&self, neighbour: Ipv4Addr) -> Result<bool>;

    /// The router of its best route to exactly that prefix, where it learned one: as it stands in its kernel, where it
    /// writes it there.
    ///
    /// # Errors
    /// If it does not tell.
    fn next_hop(&self, prefix: &str) -> Result<Option<Ipv4Addr>>;

    /// Waits until that is its route.
    ///
    /// # Errors
    /// If it is not in thirty seconds.
    fn await_next_hop(&self, prefix: &str, router: Option<Ipv4Addr>) -> Result<()> {
        eventually(SESSION_LIMIT, || {
            let found = self.next_hop(prefix)?;
            ensure!(found == router, "{prefix} is by {found:?}, not {router:?}");
            Ok(())
        })
    }

    /// Waits until the session with that peer is established.
    ///
    /// # Errors
    /// If it is not in thirty seconds.
    fn await_established(&self, neighbour: Ipv4Addr) -> Result<()> {
        eventually(SESSION_LIMIT, || {
            let up = self.is_established(neighbour)?;
            ensure!(up, "no session with {neighbour}");
            Ok(())
        })
        .with_context(|| format!("waiting for the session with {neighbour}"))
    }
}
