//! What the sources want: for each prefix a destination, for each interface a hook, for the kernel's own
//! table a route. Pure functions of the configuration and of the mirror of the kernel.

mod ipsec;
pub mod masquerade;
pub mod ports;
mod uplink_hook;
mod uplinks;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use dataplane_common::{
    endpoint::Endpoint,
    flow::rule::Rule,
    net::{Ipv4Be, MacAddr, MacPair},
    next_hop::NextHop,
    reason::Reason,
    stats::Hook,
};
use ipnet::Ipv4Net;

use crate::{
    config::{Config, Egress, RouteProtocol},
    kernel::{
        attach::Place,
        netlink::{Link, OwnTarget},
        object::Program,
    },
    source::kernel::{Import, Mirror, Policy, Reach, Wanted},
};

pub use ipsec::Ipsec;
pub use uplink_hook::{Choice, Devices, table as uplink_table};
pub use uplinks::FoundUplinks;

/// Where packets for a prefix go, in full: indexes into tables come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Into a container of this node.
    Endpoint(Endpoint),
    /// To a router, or onto a link.
    NextHop(NextHop),
    /// A block of this node.
    Block,
    /// The kernel goes on.
    Kernel(Reason),
}

/// What a source offers for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A destination in full.
    To(Destination),
    /// A router's address, of which the mirror says by which uplink it is reached.
    By(Ipv4Addr),
}

/// MAC addresses of the containers' sides of the veths, by the host side's index.
pub type PeerMacs = HashMap<u32, MacAddr>;

/// Everything that is wanted at one moment.
#[derive(Debug, Default)]
pub struct Picture {
    /// The host's own: addresses, broadcast, multicast.
    pub host: BTreeMap<Ipv4Net, Offer>,
    /// From the configuration file.
    pub config: BTreeMap<Ipv4Net, Offer>,
    /// From the kernel: discovered endpoints.
    pub discovered: BTreeMap<Ipv4Net, Offer>,
    /// Which of the kernel's routes are carried: [`Mirror::wanted`] tells.
    pub policy: Policy,
    /// Which packets are to be translated.
    pub rules: Vec<Rule>,
    /// Where the uplinks' programs run, and why.
    pub choices: Vec<Choice>,
    /// Where programs are wanted.
    pub places: BTreeMap<Place, Program>,
    /// Routes for the kernel's own table.
    pub slow_path: BTreeMap<Ipv4Net, OwnTarget>,
    /// What is wrong at the moment, each with the mend.
    pub complaints: Vec<String>,
}

/// The picture for this configuration and this state of the kernel.
pub fn picture(
    config: &Config,
    mirror: &Mirror,
    macs: &PeerMacs,
    devices: &Devices,
    found: &FoundUplinks,
    ipsec: &Ipsec,
) -> Picture {
    let mut picture = Picture::default();
    let uplinks = uplinks(config, mirror, devices, found, &mut picture);

    let policy = Policy {
        uplinks: uplinks.iter().filter_map(|index| mirror.link(*index)).cloned().collect(),
        endpoints: discovered(config, mirror),
        egress: config.datapath.egress == Egress::Bpf,
        translates: !config.masquerade.is_empty(),
        import: import(config),
        shadows: mirror.shadows(),
    };
    picture.host = mirror
        .host()
        .into_iter()
        .map(|(prefix, reason)| (prefix, Offer::To(Destination::Kernel(reason))))
        .collect();
    for remote in &ipsec.remote {
        picture.host.entry(*remote).or_insert(Offer::To(Destination::Kernel(Reason::KernelRoute)));
    }
    picture.complaints.extend(ipsec.complaint());
    for &(address, ifindex) in &policy.endpoints {
        if let Some(endpoint) = endpoint(config, mirror, macs, ipsec, address, ifindex) {
            picture.add_endpoint(Origin::Kernel, endpoint, mirror);
        }
    }

    picture.complaints.extend(nobody_found(config, mirror, &policy));

    // Veths that may become endpoints any moment: the endpoints' own entries replace these.
    for link in mirror.links().filter(|link| may_become_endpoint(config, link)) {
        let place = Place::new(&link.name, link.index, Hook::FromContainer);
        picture.places.entry(place).or_insert(Program::Waiting);
    }

    for block in &config.blocks {
        // A block of one address is its container's once there is one.
        if !picture.discovered.contains_key(block) {
            picture.config.insert(*block, Offer::To(Destination::Block));
        }
        picture.slow_path.insert(*block, OwnTarget::Blackhole);
    }
    config_endpoints(config, mirror, macs, ipsec, &mut picture);
    config_routes(config, mirror, &policy, &mut picture);
    let (rules, mut complaints) = masquerade::rules(config, mirror, &policy, ipsec);
    picture.rules = rules;
    picture.complaints.append(&mut complaints);
    picture.policy = policy;
    if !config.datapath.kernel_routes {
        picture.slow_path.clear();
    }
    picture
}

/// The uplinks that are there, hooked.
fn uplinks(
    config: &Config,
    mirror: &Mirror,
    devices: &Devices,
    found: &FoundUplinks,
    picture: &mut Picture,
) -> Vec<u32> {
    if let Some(names) = &config.node.uplinks {
        for name in names.iter().filter(|name| mirror.link_by_name(name).is_none()) {
            picture.complaints.push(format!("uplink {name} does not exist: it is attached when it does"));
        }
    } else if mirror.default_uplinks().is_empty() {
        let held: Vec<&str> =
            found.held().filter_map(|index| mirror.link(index)).map(|link| &*link.name).collect();
        picture.complaints.push(match &*held {
            [] => "no default route, and so no uplink: set `node.uplinks`".to_owned(),
            held => format!(
                "the default route is gone: {} stays the uplink for some seconds; set `node.uplinks`",
                held.join(", ")
            ),
        });
    }
    for link in uplink_links(config, mirror, found) {
        if !link.up {
            let name = &link.name;
            picture.complaints.push(format!("uplink {name} is down: ip link set {name} up"));
        } else if !link.carrier {
            picture.complaints.push(format!("uplink {} is down: it has no carrier", link.name));
        }
    }
    let (links, others): (Vec<&Link>, Vec<&Link>) =
        uplink_links(config, mirror, found).into_iter().partition(|link| link.ethernet);
    for link in others {
        picture
            .complaints
            .push(format!("uplink {} has no Ethernet header: its packets stay with the kernel", link.name));
    }
    let all: Vec<&Link> = mirror.links().collect();
    let translates = !config.masquerade.is_empty();
    picture.choices = uplink_hook::choose(config.datapath.uplink_hook, translates, &all, devices, &links);
    if config.respects() {
        for choice in &mut picture.choices {
            (choice.xdp, choice.why) =
                (false, "the kernel decides about connections, which tc carries".to_owned());
        }
    }
    for (link, choice) in links.iter().zip(&picture.choices) {
        let mut want = |hook| {
            picture.places.insert(Place::new(&link.name, link.index, hook), Program::Walk(hook));
        };
        want(Hook::FromUplink);
        if choice.xdp {
            want(Hook::XdpFromUplink);
        }
        if choice.is_disappointing {
            picture
                .complaints
                .push(format!("uplink {} is served at tc, not at XDP: {}", link.name, choice.why));
        }
    }
    links.iter().map(|link| link.index).collect()
}

/// The links that are uplinks: by configuration, or the interfaces of the default routes.
pub fn uplink_links<'a>(config: &Config, mirror: &'a Mirror, found: &FoundUplinks) -> Vec<&'a Link> {
    match &config.node.uplinks {
        Some(names) => names.iter().filter_map(|name| mirror.link_by_name(name)).collect(),
        None => found.all().filter_map(|index| mirror.link(index)).collect(),
    }
}

/// Which routes of other daemons are taken over.
fn import(config: &Config) -> Option<Import> {
    let kernel = &config.kernel;
    let number = |list: &Vec<RouteProtocol>| list.iter().map(|protocol| protocol.number).collect();
    kernel.import.then(|| Import {
        table: kernel.table,
        protocols: kernel.protocols.as_ref().map(number),
        pools: config.pools.clone(),
    })
}

/// What the kernel offers for a prefix.
pub fn offer(wanted: Wanted) -> Offer {
    Offer::To(match wanted {
        Wanted::NextHop { gateway, ifindex, mtu } => Destination::NextHop(next_hop(gateway, ifindex, mtu)),
        Wanted::Block => Destination::Block,
        Wanted::Kernel(reason) => Destination::Kernel(reason),
    })
}

/// Where packets go that are for that router: to it by the uplink that it is on the link of, or else to the
/// kernel, for want of a next hop.
pub fn by_router(reach: &Reach, policy: &Policy, router: Ipv4Addr) -> Destination {
    match reach.uplink(router).ok().and_then(|index| policy.usable_uplink(index)) {
        Some(link) => Destination::NextHop(next_hop(Some(router), link.index, link.mtu)),
        None => Destination::Kernel(Reason::NoNextHop),
    }
}

fn next_hop(gateway: Option<Ipv4Addr>, ifindex: u32, mtu: u32) -> NextHop {
    let gateway = gateway.map_or(Ipv4Be::UNSPECIFIED, Ipv4Be::from);
    NextHop { gateway, ifindex, mtu, translates: 0, source: Ipv4Be::UNSPECIFIED, reserved: [0; 3] }
}

/// The containers that the kernel's routes tell of: address, and the veth's index.
pub fn discovered(config: &Config, mirror: &Mirror) -> BTreeSet<(Ipv4Addr, u32)> {
    if !config.datapath.discover {
        return BTreeSet::new();
    }
    let found = mirror.discovered(&config.node.workload_prefix).into_iter();
    found.filter(|(address, _)| is_workload_address(config, *address) && !mirror.is_local(*address)).collect()
}

/// Whether no container is known though there are interfaces that may be containers': what was looked for.
fn nobody_found(config: &Config, mirror: &Mirror, policy: &Policy) -> Option<String> {
    if !(config.datapath.discover && config.endpoints.is_empty() && policy.endpoints.is_empty()) {
        return None;
    }
    let is_candidate = |link: &&Link| {
        let elsewhere = link.peer.is_some_and(|peer| peer.netnsid.is_some());
        link.kind.as_deref() == Some("veth") && elsewhere && policy.uplink(link.index).is_none()
    };
    let names: Vec<&str> = mirror.links().filter(is_candidate).map(|link| &*link.name).collect();
    let first = names.first()?;
    let within =
        if config.pools.is_empty() && config.blocks.is_empty() { "" } else { " to addresses of the pools" };
    Some(format!(
        "no container was found behind {} veth interfaces, the first of them {first}: what was looked for in table main are \
         routes `ADDRESS dev NAME scope link`{within}, by interfaces whose names begin with {:?} (`node.workload-prefix`); \
         containers behind a bridge are not supported",
        names.len(),
        config.node.workload_prefix
    ))
}

fn may_become_endpoint(config: &Config, link: &Link) -> bool {
    config.datapath.discover
        && link.kind.as_deref() == Some("veth")
        && link.name.starts_with(&config.node.workload_prefix)
}

/// Whether an address that the kernel routes to a workload veth is a container's: inside a pool or block,
/// where any is configured. With an import, the blocks that are configured are not all that there are.
fn is_workload_address(config: &Config, address: Ipv4Addr) -> bool {
    let blocks: &[Ipv4Net] = if config.kernel.import { &[] } else { &config.blocks };
    let mut networks = config.pools.iter().chain(blocks).peekable();
    networks.peek().is_none() || networks.any(|network| network.contains(&address))
}

/// The endpoint behind a veth; `None` while the veth or the container's side of it is not there.
fn endpoint(
    config: &Config,
    mirror: &Mirror,
    macs: &PeerMacs,
    ipsec: &Ipsec,
    address: Ipv4Addr,
    ifindex: u32,
) -> Option<Endpoint> {
    let link = mirror.link(ifindex)?;
    let (mac, gateway_mac) = (*macs.get(&ifindex)?, link.mac?);
    let is_kernels = config.datapath.egress == Egress::Kernel || ipsec.concerns(address);
    link.up.then_some(Endpoint {
        address: address.into(),
        ifindex,
        mtu: link.mtu,
        macs: MacPair::new(mac, gateway_mac),
        flags: if is_kernels { Endpoint::KERNEL_EGRESS } else { 0 },
        reserved: [0; 9],
    })
}

enum Origin {
    Config,
    Kernel,
}

impl Picture {
    fn add_endpoint(&mut self, origin: Origin, endpoint: Endpoint, mirror: &Mirror) {
        let prefix = Ipv4Net::from(Ipv4Addr::from(endpoint.address));
        let Some(link) = mirror.link(endpoint.ifindex) else { return };
        let place = Place::new(&link.name, link.index, Hook::FromContainer);
        self.places.insert(place, Program::Walk(Hook::FromContainer));
        let destinations = match origin {
            Origin::Config => &mut self.config,
            Origin::Kernel => &mut self.discovered,
        };
        destinations.insert(prefix, Offer::To(Destination::Endpoint(endpoint)));
    }
}

fn config_endpoints(config: &Config, mirror: &Mirror, macs: &PeerMacs, ipsec: &Ipsec, picture: &mut Picture) {
    for wanted in &config.endpoints {
        let name = &wanted.interface;
        let Some(link) = mirror.link_by_name(name) else { continue }; // comes when the container does
        if link.kind.as_deref() != Some("veth") {
            picture.complaints.push(format!("endpoint {}: {name} is not a veth", wanted.address));
            continue;
        }
        if mirror.is_local(wanted.address) {
            picture.complaints.push(format!(
                "endpoint {}: it is also an address of this node, which keeps it; remove one of them",
                wanted.address
            ));
            continue;
        }
        let target = OwnTarget::Device { oif: link.index };
        picture.slow_path.insert(wanted.address.into(), target);
        if let Some(endpoint) = endpoint(config, mirror, macs, ipsec, wanted.address, link.index) {
            picture.add_endpoint(Origin::Config, endpoint, mirror);
        }
    }
}

fn config_routes(config: &Config, mirror: &Mirror, policy: &Policy, picture: &mut Picture) {
    let mut absent: BTreeMap<Ipv4Addr, Vec<Ipv4Net>> = BTreeMap::new();
    let reach = mirror.reach(policy);
    for route in &config.routes {
        if route.to.prefix_len() == 32 && mirror.is_local(route.to.addr()) {
            picture
                .complaints
                .push(format!("route to {}: it is an address of this node, which keeps it", route.to));
            continue;
        }
        let destination = by_router(&reach, policy, route.via);
        picture.config.insert(route.to, Offer::To(destination));
        let Destination::NextHop(next_hop) = destination else {
            absent.entry(route.via).or_default().push(route.to);
            continue;
        };
        let target = OwnTarget::Via { gateway: route.via, oif: next_hop.ifindex };
        picture.slow_path.insert(route.to, target);
    }
    for (router, routes) in absent {
        let routes = match routes[..] {
            [only] => format!("route to {only}"),
            [first, ..] => format!("{} routes, that to {first} among them", routes.len()),
            [] => continue,
        };
        picture.complaints.push(format!(
            "{routes}: {router} is not on the link of any uplink; its packets stay with the kernel"
        ));
    }
}
