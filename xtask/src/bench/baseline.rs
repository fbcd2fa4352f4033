//! What the data path is compared with: the kernel's own forwarding, by itself and with the rules that a
//! Calico node has.

use anyhow::Result;
use tests::harness::Node;

use super::skip::skip;

/// A way for packets through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// This data path.
    Dataplane,
    /// Another build of it.
    Build,
    /// This data path where the kernel decides, by the rules of [`Self::Services`].
    Respect,
    /// The kernel's routes, and no hook at all.
    Route,
    /// The kernel's routes, connection tracking, MASQUERADE and filter rules by `iptables`.
    Iptables,
    /// The same with a thousand rules of services and a hundred chains of policy.
    Services,
    /// The same as [`Self::Iptables`] by `nft`.
    Nftables,
    /// As [`Self::Nftables`], with a flow table that carries known connections past them.
    Flowtable,
}

impl Path {
    /// The kernel's ways, the one that counts first.
    pub(super) const KERNEL: [Self; 4] = [Self::Iptables, Self::Nftables, Self::Flowtable, Self::Route];

    /// The name in outputs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Build => "build",
            Self::Respect => "respect",
            Self::Services => "services",
            Self::Route => "route",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Flowtable => "flowtable",
        }
    }

    /// Puts the rules on a node with containers behind these interfaces.
    pub(super) fn install(self, node: &Node, interfaces: &[&str]) -> Result<()> {
        let command = match self {
            Self::Dataplane | Self::Build | Self::Route => return Ok(()),
            Self::Iptables | Self::Services | Self::Respect => vec!["iptables-restore"],
            Self::Nftables | Self::Flowtable => vec!["nft", "-f", "-"],
        };
        let rules = self.rules(interfaces);
        let output = node.run_with_input(&command, &rules);
        if !output.success() {
            let said = output.stderr.lines().next().unwrap_or("it did not run").to_owned();
            return Err(skip(format!("this kernel does not take its rules: {}: {said}", command[0])));
        }
        Ok(())
    }

    /// The rules of a node as the kernel tells them; none where the path has none.
    pub(super) fn installed(self, node: &Node) -> Result<Option<String>> {
        let command: &[&str] = match self {
            Self::Dataplane | Self::Build | Self::Route => return Ok(None),
            Self::Iptables | Self::Services | Self::Respect => &["iptables-save"],
            Self::Nftables | Self::Flowtable => &["nft", "list", "ruleset"],
        };
        node.run(command).ok().map(Some)
    }

    /// The rules, as their command reads them.
    pub(super) fn rules(self, interfaces: &[&str]) -> String {
        match self {
            Self::Dataplane | Self::Build | Self::Route => String::new(),
            Self::Iptables => {
                // Each line is of one chain, so those of each container may stand line by line.
                let lines = IPTABLES.lines().flat_map(|line| {
                    let each = if line.contains("CALI") { interfaces } else { &interfaces[..1] };
                    each.iter().map(move |interface| line.replace("CALI", interface) + "\n")
                });
                lines.collect()
            }
            Self::Services | Self::Respect => services(&Self::Iptables.rules(interfaces)),
            Self::Nftables | Self::Flowtable => {
                let each = |text: &str| -> Vec<String> {
                    interfaces.iter().map(|interface| text.replace("CALI", interface)).collect()
                };
                let (offload, table) = if self == Self::Flowtable {
                    (OFFLOAD, FLOWTABLE.replace("CALI", &interfaces.join(", ")))
                } else {
                    ("", String::new())
                };
                NFTABLES
                    .replace("FLOWTABLE", &table)
                    .replace("OFFLOAD", offload)
                    .replace("CHAINS", &each(CHAINS).concat())
                    .replace("FROM", &each("CALI : goto fw-CALI").join(", "))
                    .replace("TO", &each("CALI : goto tw-CALI").join(", "))
            }
        }
    }
}

/// Services of a cluster, and policies that select a container.
const SERVICES: u8 = 250;
const POLICIES: u8 = 100;

/// The rules with those of services, as kube-proxy writes them (four of a thousand for each), and of policies.
fn services(rules: &str) -> String {
    let services = (0..SERVICES).map(|number| {
        format!(
            "-A KUBE-SERVICES -d 10.96.0.{number}/32 -p tcp --dport 80 -j KUBE-SVC-{number}\n\
             -A KUBE-SVC-{number} ! -s 172.19.0.0/16 -d 10.96.0.{number}/32 -j KUBE-MARK-MASQ\n\
             -A KUBE-SVC-{number} -j KUBE-SEP-{number}\n\
             -A KUBE-SEP-{number} -p tcp -j DNAT --to-destination 172.19.250.{number}:8080\n"
        )
    });
    let chains =
        (0..SERVICES).map(|number| format!(":KUBE-SVC-{number} - [0:0]\n:KUBE-SEP-{number} - [0:0]\n"));
    let chains: String = chains.collect();
    let nat = format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{chains}-A PREROUTING -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-SERVICES\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n{}",
        services.collect::<String>()
    );
    let policies = (0..POLICIES).map(|number| {
        format!(
            "-A cali-pri-default -j cali-pi-{number}\n\
             -A cali-pi-{number} -s 198.51.100.{number}/32 -p tcp --dport 80 -j MARK --set-xmark 0x10000/0x10000\n\
             -A cali-pi-{number} -m mark --mark 0x10000/0x10000 -j RETURN\n"
        )
    });
    let chains: String = (0..POLICIES).map(|number| format!(":cali-pi-{number} - [0:0]\n")).collect();
    let filter = format!(":cali-pro-default - [0:0]\n{chains}{}", policies.collect::<String>());
    // Policies stand before the profile.
    rules.replace(":cali-pro-default - [0:0]\n", &filter).replace("*nat\n", &nat)
}

/// The shape of what Felix writes for a node whose containers may all talk: dispatch by interface, a chain
/// per container and direction that accepts known connections first, a profile that marks what it accepts.
/// What Felix has besides (raw and mangle chains, host endpoints, IP sets) is left out.
const IPTABLES: &str = "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-fw-CALI - [0:0]
:cali-tw-CALI - [0:0]
:cali-pri-default - [0:0]
:cali-pro-default - [0:0]
-A FORWARD -j cali-FORWARD
-A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
-A cali-from-wl-dispatch -i CALI -g cali-fw-CALI
-A cali-from-wl-dispatch -j DROP
-A cali-to-wl-dispatch -o CALI -g cali-tw-CALI
-A cali-to-wl-dispatch -j DROP
-A cali-fw-CALI -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-CALI -m conntrack --ctstate INVALID -j DROP
-A cali-fw-CALI -j MARK --set-xmark 0x0/0x10000
-A cali-fw-CALI -j cali-pro-default
-A cali-fw-CALI -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-fw-CALI -j DROP
-A cali-tw-CALI -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-tw-CALI -m conntrack --ctstate INVALID -j DROP
-A cali-tw-CALI -j MARK --set-xmark 0x0/0x10000
-A cali-tw-CALI -j cali-pri-default
-A cali-tw-CALI -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-CALI -j DROP
-A cali-pri-default -j MARK --set-xmark 0x10000/0x10000
-A cali-pri-default -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-pro-default -j MARK --set-xmark 0x10000/0x10000
-A cali-pro-default -m mark --mark 0x10000/0x10000 -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:cali-POSTROUTING - [0:0]
:cali-nat-outgoing - [0:0]
-A POSTROUTING -j cali-POSTROUTING
-A cali-POSTROUTING -j cali-nat-outgoing
-A cali-nat-outgoing -s 172.19.0.0/16 ! -d 172.19.0.0/16 -j MASQUERADE
COMMIT
";

/// The same with the means of nftables: dispatch by a map of interfaces.
const NFTABLES: &str = "\
table ip calico {
FLOWTABLE  chain pri-default { meta mark set meta mark | 0x10000 return; }
CHAINS  chain from-wl-dispatch { iifname vmap { FROM }; drop; }
  chain to-wl-dispatch { oifname vmap { TO }; drop; }
  chain forward {
    type filter hook forward priority filter; policy accept;
OFFLOAD    meta mark set meta mark & 0xfff1ffff
    iifname cali* jump from-wl-dispatch
    oifname cali* jump to-wl-dispatch
    meta mark & 0x10000 == 0x10000 accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 172.19.0.0/16 ip daddr != 172.19.0.0/16 masquerade
  }
}
";

/// A container's chains.
const CHAINS: &str = "  chain fw-CALI {
    ct state established,related accept
    ct state invalid drop
    meta mark set meta mark & 0xfffeffff
    jump pri-default
    meta mark & 0x10000 == 0x10000 return
    drop
  }
  chain tw-CALI {
    ct state established,related accept
    ct state invalid drop
    meta mark set meta mark & 0xfffeffff
    jump pri-default
    meta mark & 0x10000 == 0x10000 return
    drop
  }
";

/// Hands a connection to the flow table: from its second packet on.
const OFFLOAD: &str = "    ip protocol { tcp, udp } flow add @fast\n";

/// Software only: a virtual Ethernet link offloads nothing.
const FLOWTABLE: &str = "  flowtable fast { hook ingress priority filter; devices = { eth0, CALI }; }\n";

#[cfg(test)]
mod units {
    use super::*;

    #[test]
    fn the_flow_table_stands_before_the_filter_rules() {
        let rules = Path::Flowtable.rules(&["cali1"]);
        let place = |text: &str| rules.find(text).unwrap_or_else(|| panic!("no {text} in {rules}"));
        assert!(place("devices = { eth0, cali1 }") < place("flow add @fast"));
        assert!(place("flow add @fast") < place("jump from-wl-dispatch"));
        assert!(!Path::Nftables.rules(&["cali1"]).contains("flow"));
    }

    #[test]
    fn every_container_has_its_chains() {
        for path in [Path::Iptables, Path::Nftables] {
            let rules = path.rules(&["cali1", "cali2"]);
            for chain in ["fw-cali1", "fw-cali2", "tw-cali1", "tw-cali2"] {
                assert!(rules.contains(chain), "no {chain} in {rules}");
            }
            assert!(!rules.contains("CALI"), "{rules}");
        }
        let rules = Path::Iptables.rules(&["cali1", "cali2"]);
        let place = |text: &str| rules.find(text).unwrap_or_else(|| panic!("no {text} in {rules}"));
        assert!(place("-i cali2 -g cali-fw-cali2") < place("-A cali-from-wl-dispatch -j DROP"));
        assert!(Path::Nftables.rules(&["a", "b"]).contains("vmap { a : goto fw-a, b : goto fw-b }"));
    }
}
