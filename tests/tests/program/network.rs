//! The node of these tests: its interfaces, and its tables as the daemon would fill them.

use std::net::Ipv4Addr;

use anyhow::Result;
use bytemuck::Zeroable as _;
use dataplane::{kernel::object::Sizes, wanted::Destination};
use dataplane_common::{
    endpoint::Endpoint,
    flow::{
        rule::{Network as RuleNetwork, Rule},
        table::Ports,
    },
    net::{Ipv4Be, MacAddr, MacPair},
    next_hop::NextHop,
    reason::Reason,
    route::{Entry, MAX_INDEX, Target},
};
use ipnet::Ipv4Net;

use crate::{
    model::{Model, Route},
    programs::{Interface, Programs, Runner, SIZES},
};

/// MAC of a router on the fabric.
pub(crate) const ROUTER_MAC: [u8; 6] = [0x02, 0xfa, 0xb0, 0, 0, 2];

/// An address in no prefix of the tables.
pub(crate) const NOWHERE: [u8; 4] = [203, 0, 113, 5];

/// The node's address, by which the outside knows its containers.
pub(crate) const NODE: [u8; 4] = [10, 141, 0, 1];

/// The port, or echo identifier, of every translation.
pub(crate) const PORT: u16 = 30_000;

/// An address that no packet is translated to.
pub(crate) const EXCLUDED: [u8; 4] = [203, 0, 113, 130];

/// Room for flows.
pub(crate) const MAX_FLOWS: u32 = 1000;

/// An address outside, as a source.
pub(crate) const OUTSIDE: [u8; 4] = [203, 0, 113, 9];

/// An address of a container, behind its veth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container {
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) veth: Interface,
    /// The kernel carries what leads to no route of BPF's.
    pub(crate) kernel_egress: bool,
}

/// A router by an uplink; on the link itself without an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) mtu: u32,
    pub(crate) uplink: Interface,
    /// Some packet that is sent there is to be translated.
    pub(crate) translates: bool,
}

impl Container {
    pub(crate) fn destination(&self) -> Destination {
        Destination::Endpoint(Endpoint {
            address: self.address.into(),
            ifindex: self.veth.ifindex,
            mtu: self.mtu,
            macs: MacPair::new(MacAddr::new(self.mac), self.veth.mac),
            flags: if self.kernel_egress { Endpoint::KERNEL_EGRESS } else { 0 },
            reserved: [0; 9],
        })
    }
}

impl Hop {
    pub(crate) fn destination(&self) -> Destination {
        let gateway = self.gateway.map_or(Ipv4Be::UNSPECIFIED, Ipv4Be::from);
        let (ifindex, mtu, translates) = (self.uplink.ifindex, self.mtu, self.translates.into());
        Destination::NextHop(NextHop {
            gateway,
            ifindex,
            mtu,
            translates,
            source: Ipv4Be::UNSPECIFIED,
            reserved: [0; 3],
        })
    }
}

/// The node.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) programs: Programs,
    pub(crate) model: Model,
    /// In a block of a /24, behind cali1.
    pub(crate) c1: Container,
    /// A second address of that container.
    pub(crate) c1_second: Container,
    /// In the same block, behind cali2.
    pub(crate) c2: Container,
    /// In a block of a /26, behind cali3, which has an MTU of 1400 bytes.
    pub(crate) c3: Container,
    /// In a block within another node's route, behind cali4.
    pub(crate) c4: Container,
    /// A second address of that container, whose way to the outside is the kernel's.
    pub(crate) c4_second: Container,
    /// A veth that no address is behind.
    pub(crate) vacant: Interface,
    /// The uplink to the fabric.
    pub(crate) eth0: Interface,
    /// Another uplink.
    pub(crate) eth1: Interface,
    /// The router of 172.19.36.0/24.
    pub(crate) node2: Hop,
    /// The router of 172.19.37.0/26.
    pub(crate) node3: Hop,
    /// The router of 172.19.48.0/20.
    pub(crate) node4: Hop,
    /// The router of 172.19.38.0/24, by eth1, which has an MTU of 1400 bytes.
    pub(crate) node5: Hop,
    /// 10.141.0.0/16, the fabric itself.
    pub(crate) fabric: Hop,
    /// The router to the outside, where the node translates.
    pub(crate) outside: Hop,
    /// Rules of translation are set.
    pub(crate) translates: bool,
}

impl Network {
    pub(crate) fn new() -> Result<Self> {
        Self::with(SIZES)
    }

    /// The same where the kernel decides, and BPF carries what is handed over.
    pub(crate) fn respecting() -> Result<Self> {
        let mut network = Self::with(Sizes { respect: true, ..SIZES })?;
        network.programs.enter(|runner| runner.translate(&[], MAX_FLOWS, MAX_FLOWS))?;
        Ok(network)
    }

    fn with(sizes: Sizes) -> Result<Self> {
        let interfaces = ["cali1", "cali2", "cali3", "cali4", "cali5", "eth0", "eth1"];
        let programs = Programs::new(&interfaces, sizes)?;
        let container = |address: [u8; 4], mtu: u32, veth: &str| Container {
            address: address.into(),
            mac: [0x02, 0xc0, 0, 0, 0, veth.as_bytes()[4]],
            mtu,
            veth: programs.interface(veth),
            kernel_egress: false,
        };
        let hop = |gateway: Option<[u8; 4]>, mtu: u32, uplink: &str| Hop {
            gateway: gateway.map(Ipv4Addr::from),
            mtu,
            uplink: programs.interface(uplink),
            translates: false,
        };
        let mut network = Self {
            c1: container([172, 19, 35, 2], 1500, "cali1"),
            c1_second: container([172, 19, 35, 20], 1500, "cali1"),
            c2: container([172, 19, 35, 3], 1500, "cali2"),
            c3: container([172, 19, 40, 70], 1400, "cali3"),
            c4: container([172, 19, 50, 7], 1500, "cali4"),
            c4_second: Container { kernel_egress: true, ..container([172, 19, 50, 40], 1500, "cali4") },
            vacant: programs.interface("cali5"),
            eth0: programs.interface("eth0"),
            eth1: programs.interface("eth1"),
            node2: hop(Some([10, 141, 0, 2]), 1500, "eth0"),
            node3: hop(Some([10, 141, 0, 3]), 1500, "eth0"),
            node4: hop(Some([10, 141, 0, 4]), 1500, "eth0"),
            node5: hop(Some([10, 142, 0, 5]), 1400, "eth1"),
            fabric: hop(None, 1500, "eth0"),
            outside: Hop { translates: true, ..hop(Some([10, 141, 0, 9]), 1500, "eth0") },
            translates: false,
            model: Model::default(),
            programs,
        };
        network.fill()?;
        Ok(network)
    }

    /// Serves both uplinks at XDP, and gives every router there is the MAC that tells it: [`Self::mac_of`].
    pub(crate) fn serve_at_xdp(&mut self) -> Result<()> {
        let hops = [self.node2, self.node3, self.node4, self.node5, self.outside];
        let neighbours: Vec<(Ipv4Addr, &str, [u8; 6])> = hops
            .iter()
            .filter_map(|hop| {
                let name = if hop.uplink == self.eth0 { "eth0" } else { "eth1" };
                hop.gateway.map(|gateway| (gateway, name, Self::mac_of(gateway)))
            })
            .collect();
        let uplinks = [("eth0", "10.141.0.1/16"), ("eth1", "10.142.0.1/16")];
        self.programs.serve_at_xdp(&uplinks, &neighbours)
    }

    /// The MAC of a router.
    pub(crate) fn mac_of(router: Ipv4Addr) -> [u8; 6] {
        let [a, b, c, d] = router.octets();
        [0x02, 0xee, a, b, c, d]
    }

    /// The same with a way to the outside, on which [`Self::rule`] holds.
    pub(crate) fn translating() -> Result<Self> {
        let mut network = Self::new()?;
        let (rule, outside) = (network.rule(), network.outside.destination());
        network.translates = true;
        network.set("203.0.113.0/24".parse()?, Some(outside))?;
        network.programs.enter(|runner| runner.translate(&[rule], MAX_FLOWS, MAX_FLOWS))?;
        Ok(network)
    }

    /// A node all of whose next hops may translate, by [`Self::rules`], which are not set yet.
    pub(crate) fn for_fuzzed_translation() -> Result<Self> {
        let mut network = Self::new()?;
        network.translates = true;
        let routes = [
            ("203.0.113.0/24", network.outside),
            ("172.19.36.0/24", network.node2),
            ("172.19.37.0/26", network.node3),
            ("172.19.48.0/20", network.node4),
            ("172.19.38.0/24", network.node5),
            ("10.141.0.0/16", network.fabric),
            ("10.142.0.0/16", Hop { gateway: None, ..network.node5 }),
        ];
        for (prefix, hop) in routes {
            network.set(prefix.parse()?, Some(Hop { translates: true, ..hop }.destination()))?;
        }
        network.set("10.142.0.1/32".parse()?, Some(Destination::Kernel(Reason::ToHost)))?;
        Ok(network)
    }

    /// [`Self::rule`] with more ports and fewer exceptions, and one like it for eth1.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        let mut rule = Rule { ports: Ports::new(PORT, PORT + 11), ..self.rule() };
        rule.exclude[0] = RuleNetwork::new(Ipv4Addr::new(172, 19, 48, 0).into(), 20);
        let address = Ipv4Addr::new(10, 142, 0, 1).into();
        vec![rule, Rule { ifindex: self.eth1.ifindex, address, ..rule }]
    }

    /// What comes from the pool of containers and leaves the pool and the fabric by eth0 gets [`NODE`] and
    /// [`PORT`], of which there is one only: then every packet is known beforehand.
    pub(crate) fn rule(&self) -> Rule {
        let network = |address: [u8; 4], length| RuleNetwork::new(Ipv4Addr::from(address).into(), length);
        let mut rule = Rule::zeroed();
        rule.source = network([172, 19, 0, 0], 16);
        (rule.ifindex, rule.address) = (self.eth0.ifindex, Ipv4Addr::from(NODE).into());
        rule.ports = Ports::new(PORT, PORT);
        let excludes = [network([172, 19, 0, 0], 16), network([10, 141, 0, 0], 16), network(EXCLUDED, 25)];
        rule.exclude[..3].copy_from_slice(&excludes);
        rule.excludes = 3;
        rule
    }

    fn fill(&mut self) -> Result<()> {
        for interface in self.interfaces() {
            self.model.add_interface(interface);
        }
        let kernel = Destination::Kernel;
        let mut routes = vec![
            // What the daemon always wants.
            ("0.0.0.0/8", kernel(Reason::Reserved)),
            ("127.0.0.0/8", kernel(Reason::Reserved)),
            ("169.254.0.0/16", kernel(Reason::LinkLocal)),
            ("224.0.0.0/4", kernel(Reason::Multicast)),
            ("255.255.255.255/32", kernel(Reason::Broadcast)),
            // The node's own addresses, one of them in a block.
            ("10.141.0.1/32", kernel(Reason::ToHost)),
            ("172.19.35.1/32", kernel(Reason::ToHost)),
            ("10.141.255.255/32", kernel(Reason::Broadcast)),
            ("10.141.0.0/16", self.fabric.destination()),
            // Blocks of this node.
            ("172.19.35.0/24", Destination::Block),
            ("172.19.40.64/26", Destination::Block),
            ("172.19.50.0/26", Destination::Block),
            // Blocks of others.
            ("172.19.36.0/24", self.node2.destination()),
            ("172.19.37.0/26", self.node3.destination()),
            ("172.19.48.0/20", self.node4.destination()),
            ("172.19.38.0/24", self.node5.destination()),
            ("192.0.2.0/24", kernel(Reason::KernelRoute)),
            ("198.51.100.0/24", kernel(Reason::NoNextHop)),
        ]
        .into_iter()
        .map(|(prefix, destination)| Ok((prefix.parse()?, destination)))
        .collect::<Result<Vec<(Ipv4Net, Destination)>>>()?;
        let containers = self.containers().chain([self.c4_second]);
        routes.extend(containers.map(|container| (container.address.into(), container.destination())));
        for (prefix, destination) in routes {
            self.set(prefix, Some(destination))?;
        }
        self.poke([198, 18, 0, 0], Entry::route(16, Target::Endpoint(MAX_INDEX)), Route::MissingEndpoint)?;
        self.poke([198, 19, 0, 0], Entry::route(16, Target::NextHop(MAX_INDEX)), Route::MissingNextHop)?;
        self.poke([100, 64, 0, 0], Entry::from_bits(15 << 28 | 16 << 22), Route::Unknown)?;
        self.poke([100, 65, 0, 0], Entry::from_bits(5 << 28 | 16 << 22 | 63), Route::Unknown)
    }

    /// The containers' addresses.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Container> + use<> {
        [self.c1, self.c1_second, self.c2, self.c3, self.c4].into_iter()
    }

    /// Every interface.
    pub(crate) fn interfaces(&self) -> [Interface; 7] {
        let veths = [self.c1, self.c2, self.c3, self.c4].map(|container| container.veth);
        [veths[0], veths[1], veths[2], veths[3], self.vacant, self.eth0, self.eth1]
    }

    /// Routes a prefix, in the tables and in the model.
    pub(crate) fn set(&mut self, prefix: Ipv4Net, destination: Option<Destination>) -> Result<()> {
        let model = &mut self.model;
        self.programs.enter(|runner| set(runner, model, prefix, destination))
    }

    /// Writes a faulty word for a /16, which the model takes as it is told.
    pub(crate) fn poke(&mut self, network: [u8; 4], word: Entry, route: Route) -> Result<()> {
        self.programs.enter(|runner| runner.poke(network.into(), word))?;
        self.model.set(Ipv4Net::new(network.into(), 16)?, Some(route));
        Ok(())
    }
}

/// Routes a prefix, in the tables and in the model.
pub(crate) fn set(
    runner: &mut Runner,
    model: &mut Model,
    prefix: Ipv4Net,
    destination: Option<Destination>,
) -> Result<()> {
    runner.set(prefix, destination)?;
    model.set(prefix, destination.map(Route::To));
    Ok(())
}
