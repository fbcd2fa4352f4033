//! Containers: a namespace and a veth as Calico's CNI plugin makes them.

use std::{fmt::Display, fs, net::Ipv4Addr, ops::Deref};

use anyhow::{Context, Result};

use super::parse;
use crate::harness::netns::Namespace;

/// The MAC of every host-side veth, and so of every container's gateway, under Calico.
pub const HOST_MAC: [u8; 6] = [0xee; 6];

/// The gateway of every container; nobody has the address, somebody must answer ARP for it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// What a container is to be like.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    name: Option<String>,
    pub(super) interface: String,
    address: Ipv4Addr,
    mtu: u32,
    host_route: bool,
    proxy_arp: bool,
}

impl ContainerSpec {
    /// A container with that address behind that interface of the node, with an MTU of 1500 bytes.
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(interface: &str, address: impl Display) -> Result<Self> {
        let address = parse(address)?;
        let interface = interface.to_owned();
        Ok(Self { name: None, interface, address, mtu: 1500, host_route: false, proxy_arp: false })
    }

    /// Called so, in the namespace's name, rather than by the interface.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// With that MTU, in bytes, on both ends of the veth.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// With the kernel route `ADDR dev caliX scope link` on the node: what makes it discoverable.
    #[must_use]
    pub fn host_route(mut self) -> Self {
        self.host_route = true;
        self
    }

    /// With the node's kernel answering the container's ARP requests, where it has a route to the target.
    #[must_use]
    pub fn proxy_arp(mut self) -> Self {
        self.proxy_arp = true;
        self
    }
}

/// A container: its namespace, in which `eth0` has the address and all goes by 169.254.1.1.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    pub(super) spec: ContainerSpec,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its interface on the node.
    pub interface: String,
}

impl Deref for Container {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// Makes the containers: two processes for all, and one for the inside of each.
pub(super) fn create(node: &Namespace, specs: &[ContainerSpec]) -> Result<Vec<Container>> {
    let purposes: Vec<&str> =
        specs.iter().map(|spec| spec.name.as_ref().unwrap_or(&spec.interface).as_str()).collect();
    let namespaces = Namespace::many(&purposes)?;
    node.ip_batch(
        &specs.iter().zip(&namespaces).map(|(spec, inside)| host_side(spec, inside)).collect::<String>(),
    )?;
    answer_arp(node, specs)?;
    specs
        .iter()
        .zip(namespaces)
        .map(|(spec, namespace)| {
            namespace.ip_batch(&inside(spec))?;
            namespace.await_links()?;
            let (address, interface) = (spec.address, spec.interface.clone());
            Ok(Container { namespace, spec: spec.clone(), address, interface })
        })
        .collect()
}

fn host_side(spec: &ContainerSpec, inside: &Namespace) -> String {
    let ContainerSpec { interface, address, mtu, host_route, .. } = spec;
    let mac = HOST_MAC.map(|octet| format!("{octet:02x}")).join(":");
    let mut lines = format!(
        "link add {interface} address {mac} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\n\
         link set {interface} up\n",
        inside.name()
    );
    if *host_route {
        lines += &format!("route add {address}/32 dev {interface} scope link\n");
    }
    lines
}

fn inside(spec: &ContainerSpec) -> String {
    format!(
        "link set lo up\n\
         address add {}/32 dev eth0\n\
         link set eth0 up\n\
         route add {GATEWAY} dev eth0 scope link\n\
         route add default via {GATEWAY} dev eth0\n",
        spec.address
    )
}

fn answer_arp(node: &Namespace, specs: &[ContainerSpec]) -> Result<()> {
    node.enter(|| {
        for interface in specs.iter().filter(|spec| spec.proxy_arp).map(|spec| &spec.interface) {
            // Without the second, the answer waits a random time of up to 0.8 s (arp(7), proxy_delay).
            for (path, value) in [
                (format!("/proc/sys/net/ipv4/conf/{interface}/proxy_arp"), "1"),
                (format!("/proc/sys/net/ipv4/neigh/{interface}/proxy_delay"), "0"),
            ] {
                fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))?;
            }
        }
        Ok(())
    })
}
