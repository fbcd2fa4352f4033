//! How the commands ask a running daemon: one line of JSON each way over a Unix socket.

pub mod answers;
pub mod client;
pub mod server;

use std::{
    fmt,
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
    /// Who offers the routes from that prefix on: [`answers::SourcePage`].
    Sources {
        /// The first prefix.
        from: Ipv4Net,
    },
    /// Who offers a route to a prefix, and what else was offered: [`answers::Offers`].
    Offers {
        /// The prefix.
        prefix: Ipv4Net,
    },
    /// How connections fare that the kernel decides: [`answers::Respect`], or nothing where BPF does.
    Respect,
    /// How the BGP peers are: a list of [`answers::BgpPeer`].
    BgpPeers,
    /// A part of what was learned by BGP, and with the last part what is announced: [`answers::BgpRoutes`].
    BgpRoutePage {
        /// Only what is refused.
        refused: bool,
        /// What follows this prefix.
        after: Option<Ipv4Net>,
    },
    /// What Prometheus is told: a text.
    Metrics,
    /// Read the configuration file again: a list of warnings.
    Reload,
    /// Stop, and take away everything.
    Detach,
}

impl Request {
    /// Whether it changes something, and so may take long and is not to be carried out for nobody.
    pub fn changes(&self) -> bool {
        matches!(self, Self::Reload | Self::Detach)
    }
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
