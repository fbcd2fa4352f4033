//! Networks in the terms of the field: nodes on a fabric, containers on nodes, hosts outside.

mod container;
mod outside;

use std::{
    fmt::Display,
    net::Ipv4Addr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};

pub use self::{
    container::{Container, ContainerSpec, GATEWAY, HOST_MAC},
    outside::Outside,
};
use super::{daemon::config::uplink_hook, netns::Namespace};

/// The network between the nodes: a bridge in a namespace of its own.
#[derive(Debug)]
pub struct Fabric {
    namespace: Namespace,
    mtu: u32,
    ports: AtomicU32,
}

impl Fabric {
    /// A fabric with an MTU of 1500 bytes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    /// A fabric whose ports all have that MTU, in bytes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn with_mtu(mtu: u32) -> Result<Self> {
        let namespace = Namespace::new("fabric")?;
        // Neither spanning tree nor multicast snooping: no packets that no test sent, and ports that
        // forward at once.
        namespace.ip_batch(&format!(
            "link add br0 mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br0 up\n"
        ))?;
        Ok(Self { namespace, mtu, ports: AtomicU32::new(0) })
    }

    /// The MTU of the ports, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Plugs a namespace in: `interface` appears there, up, with the address (`10.141.0.1/16`) if given.
    ///
    /// # Errors
    /// If the interface exists there, or the kernel refuses.
    pub fn plug(&self, namespace: &Namespace, interface: &str, address: Option<&str>) -> Result<()> {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let (mtu, peer) = (self.mtu, namespace.name());
        self.namespace.ip_batch(&format!(
            "link add {port} mtu {mtu} type veth peer name {interface} mtu {mtu} netns {peer}\n\
             link set {port} master br0 up\n"
        ))?;
        if takes_frames() {
            take_frames(&self.namespace, &port)?;
        }
        let mut lines = String::new();
        if let Some(address) = address {
            lines += &format!("address add {address} dev {interface}\n");
        }
        namespace.ip_batch(&(lines + &format!("link set {interface} up\n")))?;
        self.namespace.await_links()?;
        namespace.await_links()
    }
}

impl Fabric {
    /// Has every port that is there take frames: [`take_frames`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn take_frames(&self) -> Result<()> {
        let ports = self.ports.load(Ordering::Relaxed);
        (0..ports).try_for_each(|port| take_frames(&self.namespace, &format!("port{port}")))
    }
}

impl Deref for Fabric {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// A node: forwards between its containers and the fabric, which is its interface `eth0`.
#[derive(Debug)]
pub struct Node {
    namespace: Arc<Namespace>,
    /// What it is called, in the namespace's name and by people.
    pub name: String,
    /// Its address on the fabric, a /16.
    pub address: Ipv4Addr,
}

impl Node {
    /// A node on the fabric with `address`/16 on `eth0`, forwarding on, and no route but the connected one.
    ///
    /// # Errors
    /// If the address is none, or the kernel refuses.
    pub fn new(fabric: &Fabric, name: &str, address: impl Display) -> Result<Self> {
        let address = parse(address)?;
        let namespace = Namespace::new(name)?;
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        // A new namespace takes these from the machine it is made on; tests want the same everywhere.
        // Without a limit on ICMP errors, two tests of the same path in one second do not disturb each other.
        namespace.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        namespace.sysctl("net.ipv4.conf.default.rp_filter", "0")?;
        namespace.sysctl("net.ipv4.icmp_ratelimit", "0")?;
        fabric.plug(&namespace, "eth0", Some(&format!("{address}/16")))?;
        Ok(Self { namespace: Arc::new(namespace), name: name.to_owned(), address })
    }

    /// The kernel's route to `prefix` by the router `via`.
    ///
    /// # Errors
    /// If the router is not on a link of the node.
    pub fn route_via(&self, prefix: &str, via: impl Display) -> Result<()> {
        self.ip(&format!("route replace {prefix} via {via}")).map(drop)
    }

    /// The kernel's default route, by the router `via`.
    ///
    /// # Errors
    /// If the router is not on a link of the node.
    pub fn default_via(&self, via: impl Display) -> Result<()> {
        self.route_via("default", via)
    }

    /// Makes one container without a route on the node: one that the configuration must name.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn container(&self, interface: &str, address: impl Display) -> Result<Container> {
        self.add_one(ContainerSpec::new(interface, address)?)
    }

    /// Makes one container as Calico leaves it: `ADDR dev caliX scope link` on the node, and proxy ARP.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn routed_container(&self, interface: &str, address: impl Display) -> Result<Container> {
        self.add_one(ContainerSpec::new(interface, address)?.host_route().proxy_arp())
    }

    /// Makes containers, hundreds of them in a second or two.
    ///
    /// # Errors
    /// If an interface of that name is there, or the kernel refuses; then none of them remains.
    pub fn add(&self, specs: &[ContainerSpec]) -> Result<Vec<Container>> {
        container::create(&self.namespace, specs)
    }

    fn add_one(&self, spec: ContainerSpec) -> Result<Container> {
        self.add(&[spec])?.pop().context("no container was made")
    }

    /// Removes a container as its runtime does, and gives back what [`Self::add`] makes it anew from.
    ///
    /// The veth is gone from the node when this returns.
    ///
    /// # Errors
    /// If its interface is not on this node.
    pub fn remove(&self, container: Container) -> Result<ContainerSpec> {
        self.ip(&format!("link delete {}", container.spec.interface))?;
        Ok(container.spec.clone())
    }

    /// Puts a host beyond the node's interface `interface`, which gets `node_address` (`192.168.200.172/24`)
    /// and takes the node's default route to it; the host has `address` in that network, and no route
    /// to anything else.
    ///
    /// # Errors
    /// If the interface exists, or the kernel refuses.
    pub fn outside(&self, interface: &str, node_address: &str, address: impl Display) -> Result<Outside> {
        Outside::new(&self.namespace, interface, node_address, address)
    }

    /// The namespace, for guards that must not outlive it.
    pub fn namespace(&self) -> Arc<Namespace> {
        Arc::clone(&self.namespace)
    }
}

impl Deref for Node {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// Whether all uplinks of this run of the tests are served at XDP.
fn takes_frames() -> bool {
    uplink_hook().as_deref() == Some("xdp")
}

/// Has an interface take frames that are redirected to the other end of its veth: it must poll, as it does with GRO,
/// which merges nothing here, so that captures show what was sent.
///
/// # Errors
/// If the kernel refuses.
pub fn take_frames(namespace: &Namespace, interface: &str) -> Result<()> {
    namespace.ip(&format!("link set {interface} gro_max_size 100"))?;
    namespace.run(["ethtool", "-K", interface, "gro", "on"]).ok().map(drop)
}

/// The address that a text, or an address, says.
pub(super) fn parse(address: impl Display) -> Result<Ipv4Addr> {
    let text = address.to_string();
    text.parse().with_context(|| format!("{text} is not an IPv4 address"))
}
