//! What IPsec policies mean for the data path: the packets that they select are the kernel's, which alone can obey them.
//!
//! Packets to the far end of a policy are left to the kernel by their destination, those from there by their source
//! ([`Endpoint::KERNEL_EGRESS`](dataplane_common::endpoint::Endpoint::KERNEL_EGRESS)). Protocols and ports of a policy are
//! not looked at: the kernel does that.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{config::Config, kernel::netlink::IpsecPolicy, source::kernel::Mirror};

/// What is left to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipsec {
    /// The far ends of the policies.
    pub remote: BTreeSet<Ipv4Net>,
    /// The containers to which packets come from there.
    local: BTreeSet<Ipv4Net>,
    /// Policies for packets between containers of this node, which BPF delivers by itself.
    pub disobeyed: Vec<IpsecPolicy>,
}

impl Ipsec {
    /// What these policies ask for on this node.
    pub fn new(policies: &[IpsecPolicy], config: &Config, mirror: &Mirror) -> Self {
        let here: Vec<Ipv4Net> = on_node(config, mirror).collect();
        let is_here = |network: Ipv4Net| here.iter().any(|here| overlap(*here, network));
        let is_only_here = |network: Ipv4Net| here.iter().any(|here| here.contains(&network));
        // Containers of other nodes send by this one where it is their gateway.
        let is_container =
            |network: Ipv4Net| is_here(network) || config.pools.iter().any(|pool| overlap(*pool, network));
        // A translated packet has the node's address by the time that the kernel would look for a policy.
        let is_node = |network: Ipv4Net| {
            !config.masquerade.is_empty()
                && mirror.local_addresses().any(|address| network.contains(&address))
        };
        let mut ipsec = Self::default();
        for policy in policies {
            let IpsecPolicy { source, destination } = *policy;
            if (is_container(source) || is_node(source)) && !is_only_here(destination) {
                ipsec.remote.insert(destination);
            }
            if is_here(destination) {
                ipsec.local.insert(destination);
                if !is_only_here(source) {
                    ipsec.remote.insert(source);
                }
            }
            if is_here(source) && is_here(destination) {
                ipsec.disobeyed.push(*policy);
            }
        }
        ipsec
    }

    /// Whether all of that prefix is the far end of a policy.
    pub fn leaves(&self, prefix: Ipv4Net) -> bool {
        self.remote.iter().any(|remote| remote.contains(&prefix))
    }

    /// Whether packets to that container may come from the far end of a policy.
    pub fn concerns(&self, container: Ipv4Addr) -> bool {
        self.local.iter().any(|local| local.contains(&container))
    }

    /// What is left to the kernel, in words; `None` where nothing is.
    pub fn note(&self) -> Option<String> {
        let networks: Vec<String> = self.remote.iter().map(ToString::to_string).collect();
        (!networks.is_empty()).then(|| {
            format!(
                "IPsec policies (`ip xfrm policy`) select containers' packets: those to and from {} are left to the kernel",
                networks.join(", ")
            )
        })
    }

    /// What is wrong, and what to do about it.
    pub fn complaint(&self) -> Option<String> {
        let policy = self.disobeyed.first()?;
        Some(format!(
            "{} IPsec policies (`ip xfrm policy`) select packets between containers of this node, which BPF delivers \
             without asking the kernel; the first: src {} dst {}. Narrow them to what leaves the node",
            self.disobeyed.len(),
            policy.source,
            policy.destination
        ))
    }
}

/// Where the containers of this node are.
fn on_node(config: &Config, mirror: &Mirror) -> impl Iterator<Item = Ipv4Net> {
    let configured = config.endpoints.iter().map(|endpoint| endpoint.address);
    let discovered = super::discovered(config, mirror).into_iter().map(|(address, _)| address);
    configured.chain(discovered).map(Ipv4Net::from).chain(config.blocks.iter().copied())
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn ipsec(policies: &[(&str, &str)]) -> Ipsec {
        let mut config = Config::from_kernel(crate::config::Netfilter::Bypass);
        config.pools = vec![net("172.19.0.0/16")];
        config.blocks = vec![net("172.19.35.0/24")];
        let policy = |(source, destination): &(&str, &str)| IpsecPolicy {
            source: net(source),
            destination: net(destination),
        };
        let policies: Vec<IpsecPolicy> = policies.iter().map(policy).collect();
        Ipsec::new(&policies, &config, &Mirror::default())
    }

    #[test]
    fn the_far_end_is_the_kernels_in_both_directions() {
        let ipsec = ipsec(&[("172.19.35.0/24", "192.0.2.0/24"), ("198.51.100.0/24", "172.19.0.0/16")]);
        assert!(ipsec.leaves(net("192.0.2.0/24")) && ipsec.leaves(net("192.0.2.128/25")));
        assert!(ipsec.leaves(net("198.51.100.7/32")));
        assert!(!ipsec.leaves(net("192.0.0.0/16")) && !ipsec.leaves(net("172.19.36.0/24")));
        assert!(ipsec.concerns(Ipv4Addr::new(172, 19, 35, 2)));
        assert_eq!(ipsec.complaint(), None);
    }

    #[test]
    fn the_nodes_own_block_stays() {
        let ipsec = ipsec(&[("172.19.35.0/24", "172.19.36.0/26"), ("172.19.36.0/26", "172.19.35.0/24")]);
        assert_eq!(ipsec.remote, BTreeSet::from([net("172.19.36.0/26")]));
    }

    #[test]
    fn policies_of_the_node_alone_do_not_concern_containers() {
        let ipsec = ipsec(&[("10.141.0.1/32", "10.141.0.2/32"), ("10.141.0.2/32", "10.141.0.1/32")]);
        assert_eq!(ipsec, Ipsec::default());
    }

    #[test]
    fn policies_between_containers_of_the_node_are_named() {
        assert!(ipsec(&[("172.19.35.2/32", "172.19.35.0/24")]).complaint().is_some());
        assert!(ipsec(&[("0.0.0.0/0", "0.0.0.0/0")]).complaint().is_some());
        assert_eq!(ipsec(&[("172.19.35.0/24", "172.19.36.0/24")]).complaint(), None);
    }
}
