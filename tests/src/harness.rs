//! Networks made of namespaces, the daemon in them, and traffic between them.
//!
//! Everything is a guard: what it made is gone when it is dropped, also when a test panics. Nothing is
//! ever created in the namespace that the tests run in, so tests run side by side.
//!
//! ```no_run
//! use tests::harness::{Config, ContainerSpec, Daemon, Fabric, Node, traffic};
//!
//! # fn main() -> anyhow::Result<()> {
//! let fabric = Fabric::new()?;
//! let node = Node::new(&fabric, "node1", "10.141.0.1")?;
//! let c1 = node.container("cali1", "172.19.35.2")?;
//! let c2 = node.container("cali2", "172.19.35.3")?;
//! let config = Config::new()
//!     .node("uplinks", r#"["eth0"]"#)
//!     .block("172.19.35.0/24")
//!     .endpoint("172.19.35.2", "cali1")
//!     .endpoint("172.19.35.3", "cali2");
//! let _daemon = Daemon::start(&node, &config)?;
//! traffic::ping(&c1, c2.address, 3)?.all_answered()?;
//! # Ok(())
//! # }
//! ```

pub mod bird;
pub mod bpf;
pub mod capture;
pub mod daemon;
pub mod frr;
pub mod gobgp;
pub mod inject;
pub mod keep;
pub mod kernel;
pub mod names;
pub mod netns;
pub mod packet;
pub mod process;
pub mod report;
pub mod routing;
pub mod skip;
pub mod topology;
pub mod traffic;
pub mod wait;

#[cfg(test)]
mod tests;

pub use bird::Bird;
pub use capture::Capture;
pub use daemon::{Config, Daemon};
pub use frr::Frr;
pub use gobgp::GoBgp;
pub use netns::Namespace;
pub use process::{Output, Process, Stream};
pub use routing::{Neighbour, RoutingDaemon, Speaker};
pub use skip::skip;
pub use topology::{Container, ContainerSpec, Fabric, Node, Outside};
pub use wait::eventually;
