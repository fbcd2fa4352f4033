//! How the commands ask a running daemon: one line of JSON each way over a Unix socket.

pub mod answers;
pub mod client;
pub mod server;

use std::{
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The socket in a daemon's state directory.
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// The node, its hooks, tables and health: [`answers::Status`].
    Status,
    /// The endpoints: a list of [`answers::Endpoint`].
    EndpointList,
    /// The routes: a list of [`answers::Route`].
    RouteList,
    /// The route that an address would take: [`answers::RouteGet`].
    RouteGet {
        /// The address.
        address: Ipv4Addr,
    },
    /// The translations: a list of [`answers::Translation`].
    NatList,
    /// The flow table: [`answers::NatStats`].
    NatStats,
    /// The counters: a list of [`answers::Count`].
    Drops,
    /// How the BGP peers are: a list of [`answers::BgpPeer`].
    BgpPeers,
    /// A part of what was learned by BGP, and with the last part what is announced: [`answers::BgpRoutes`].
    BgpRoutePage {
        /// Only what is refused.
        refused: bool,
        /// What follows this prefix.
        after: Option<Ipv4Net>,
    },
    /// A walk through the loaded programs: [`answers::Trace`].
    Trace(crate::trace::Probe),
    /// What Prometheus is told: a text.
    Metrics,
    /// Read the configuration file again: a list of warnings.
    Reload,
    /// Stop, and take away everything.
    Detach,
}

/// An answer, or what went wrong in words.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What the request's documentation names.
    Ok(serde_json::Value),
    /// Why there is none, and what to do.
    Error(String),
    /// What is wrong with the configuration file, as [`BadFile`].
    BadFile(String),
}

/// A configuration file that cannot be used: every fault with its place and mend, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile(pub String);

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadFile {}
