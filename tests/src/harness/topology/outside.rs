//! Hosts that know nothing of containers.

use std::{fmt::Display, net::Ipv4Addr, ops::Deref};

use anyhow::{Context, Result};

use super::{parse, take_frames, takes_frames};
use crate::harness::netns::Namespace;

/// A host beyond a node's second uplink: it can answer the node's address, and nothing behind it.
#[derive(Debug)]
pub struct Outside {
    namespace: Namespace,
    /// Its address on the link to the node.
    pub address: Ipv4Addr,
    /// The node's address on that link.
    pub node_address: Ipv4Addr,
}

impl Outside {
    pub(super) fn new(
        node: &Namespace,
        interface: &str,
        node_address: &str,
        address: impl Display,
    ) -> Result<Self> {
        let address = parse(address)?;
        let (node_ip, length) = node_address
            .split_once('/')
            .with_context(|| format!("{node_address} has no prefix length (192.168.200.172/24)"))?;
        let namespace = Namespace::new("outside")?;
        node.ip_batch(&format!(
            "link add {interface} type veth peer name eth0 netns {}\n\
             address add {node_address} dev {interface}\n\
             link set {interface} up\n",
            namespace.name()
        ))?;
        namespace.ip_batch(&format!("address add {address}/{length} dev eth0\nlink set eth0 up\n"))?;
        if takes_frames() {
            take_frames(&namespace, "eth0")?;
        }
        node.ip(&format!("route replace default via {address}"))?;
        node.await_links()?;
        namespace.await_links()?;
        Ok(Self { namespace, address, node_address: parse(node_ip)? })
    }

    /// Gives it a further address (of 192.0.2.0/24, ...) that the node reaches by its default route.
    ///
    /// # Errors
    /// If it has the address.
    pub fn add_address(&self, address: impl Display) -> Result<Ipv4Addr> {
        let address = parse(address)?;
        self.ip(&format!("address add {address}/32 dev lo"))?;
        Ok(address)
    }
}

impl Deref for Outside {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}
