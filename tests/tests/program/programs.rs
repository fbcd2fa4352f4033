//! The BPF programs, loaded from the object that the daemon loads, with tables of their own: run on one
//! packet at a time by `BPF_PROG_TEST_RUN`.
//!
//! Two copies of the programs share the tables, as with the daemon: one counts, the other records the steps
//! of its walk for `dataplane trace`.

#[path = "programs/context.rs"]
mod context;
#[path = "programs/flows.rs"]
mod flows;
#[path = "programs/runner.rs"]
mod runner;

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result};
use dataplane::kernel::{object::Sizes, pins::Pins};
use dataplane_common::{flow::settings::words_of_records, net::MacAddr, stats::Hook, uplink::Uplink};
use tempfile::TempDir;
use tests::harness::{daemon::place, inject::Injector, netns::Namespace};

use crate::network::MAX_FLOWS;

pub use self::{
    context::Context,
    flows::Contents,
    runner::{Counts, LONGEST_FRAME, Ran, Runner, Traced},
};

/// Slots of the endpoint table.
pub const MAX_ENDPOINTS: u32 = 64;

/// Sizes of the tables.
pub const SIZES: Sizes =
    Sizes { endpoints: MAX_ENDPOINTS, buckets: 128, words: words_of_records(MAX_FLOWS), respect: false };

/// What a program returns (`include/uapi/linux/pkt_cls.h`).
pub mod action {
    /// `TC_ACT_UNSPEC`: whatever else is at the hook goes on with the packet, and the kernel's stack at last.
    pub const PASS: i32 = -1;
    /// `TC_ACT_SHOT`: dropped.
    pub const DROP: i32 = 2;
    /// `TC_ACT_REDIRECT`: handed to another interface, as a helper was told.
    pub const REDIRECT: i32 = 7;
}

/// An interface that packets can come in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, in the namespace of [`Programs`].
    pub ifindex: u32,
    /// Its own MAC.
    pub mac: MacAddr,
}

/// A packet at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The hook.
    pub hook: Hook,
    /// Index of the interface that it came in by.
    pub ifindex: u32,
    /// The frame, at least an Ethernet header.
    pub frame: Vec<u8>,
    /// Bytes of payload in each segment of an aggregate; 0 for a single packet.
    pub gso_size: u16,
}

/// Loaded programs, in a namespace with interfaces that are down: no packet moves but those of the test.
#[derive(Debug)]
pub struct Programs {
    runner: Runner,
    interfaces: BTreeMap<String, Interface>,
    namespace: Namespace,
    _pins: TempDir,
}

impl Programs {
    /// Loads the programs over empty tables, and makes veths with those names.
    ///
    /// # Errors
    /// If the kernel refuses a program, a map or an interface: not root, in general.
    pub fn new(interfaces: &[&str], sizes: Sizes) -> Result<Self> {
        let namespace = Namespace::new("programs")?;
        let links =
            |name: &&str| format!("link add {name} address {} type veth peer name {name}p\n", mac_of(name));
        namespace.ip_batch(&interfaces.iter().map(links).collect::<String>())?;
        let interface = |name: &&str| -> Result<(String, Interface)> {
            let (ifindex, mac) = (namespace.ifindex(name)?, MacAddr::new(namespace.mac(name)?));
            Ok(((*name).to_owned(), Interface { ifindex, mac }))
        };
        let interfaces = interfaces.iter().map(interface).collect::<Result<_>>()?;

        place::mount_bpf_file_system()?;
        // Removed by its guard, with the pins in it.
        let directory = tempfile::Builder::new()
            .prefix("dataplane-test-")
            .tempdir_in(place::BPF_ROOT)
            .with_context(|| format!("cannot make a directory in {}", place::BPF_ROOT))?;
        let pins = Pins::new(directory.path());
        pins.create()?;
        Ok(Self { runner: Runner::load(&pins.maps(), sizes)?, interfaces, namespace, _pins: directory })
    }

    /// An interface that was asked for.
    ///
    /// # Panics
    /// If there is none with that name.
    pub fn interface(&self, name: &str) -> Interface {
        *self.interfaces.get(name).unwrap_or_else(|| panic!("no interface {name}"))
    }

    /// Attaches the counting copy of a hook's program to an interface, for what `BPF_PROG_TEST_RUN` cannot make:
    /// gives what sends frames to the interface, from the veth's other end. Both take packets of 9000 bytes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(&mut self, hook: Hook, interface: &str) -> Result<Injector> {
        let Self { runner, namespace, .. } = self;
        let peer = format!("{interface}p");
        let up = |name: &str| format!("link set {name} mtu 9000 up\n");
        namespace.ip_batch(&(up(interface) + &up(&peer)))?;
        namespace.enter(|| runner.attach(hook, interface))?;
        Injector::new(namespace, &peer)
    }

    /// Brings uplinks up, each with an address (`10.141.0.1/16`), and serves them at XDP: frames may be redirected to
    /// them, and those neighbours have that MAC.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn serve_at_xdp(
        &mut self,
        uplinks: &[(&str, &str)],
        neighbours: &[(Ipv4Addr, &str, [u8; 6])],
    ) -> Result<()> {
        let Self { runner, namespace, interfaces, .. } = self;
        // Nothing but what a test sends.
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        let mut lines = String::new();
        for (name, address) in uplinks {
            lines += &format!(
                "address add {address} dev {name}\nlink set {name} arp off up\nlink set {name}p up\n"
            );
        }
        for (address, name, mac) in neighbours {
            let mac = MacAddr::new(*mac);
            lines += &format!("neigh add {address} dev {name} lladdr {mac} nud permanent\n");
        }
        namespace.ip_batch(&lines)?;
        let rows: Vec<Uplink> = uplinks
            .iter()
            .map(|(name, _)| {
                let Interface { ifindex, mac } = interfaces[*name];
                Uplink { ifindex, mac, flags: Uplink::TAKES_FRAMES | Uplink::TAKES_SCATTERED }
            })
            .collect();
        namespace.enter(|| runner.serve_at_xdp(&rows))
    }

    /// Adds a route of the kernel's by an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn route(&self, interface: &str, route: &str) -> Result<()> {
        self.namespace.ip(&format!("route add {route} dev {interface}")).map(drop)
    }

    /// Forgets the neighbours by an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget_neighbours(&self, interface: &str) -> Result<()> {
        self.namespace.ip(&format!("neigh flush dev {interface} nud permanent")).map(drop)
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        self.runner.counts()
    }

    /// Runs a closure in a thread of its own that is in the namespace, where interface indexes mean something.
    ///
    /// # Errors
    /// The closure's, or setns()'s.
    pub fn enter<T: Send>(&mut self, work: impl FnOnce(&mut Runner) -> Result<T> + Send) -> Result<T> {
        let Self { runner, namespace, .. } = self;
        namespace.enter(|| work(runner))
    }
}

/// A MAC of the locally administered range that tells the interface: the same in every run of a test.
fn mac_of(name: &str) -> MacAddr {
    let sum = name.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [high, low] = sum.to_be_bytes();
    MacAddr::new([0x02, 0xda, 0x7a, 0, high, low])
}

/// The address of the /16 that a word of the route table's root stands for.
fn root_index(network: Ipv4Addr) -> usize {
    network.to_bits() as usize >> 16
}
