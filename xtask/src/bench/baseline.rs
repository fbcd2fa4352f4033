//! What the data path is compared with: the kernel's own forwarding, by itself and with the rules that a
//! Calico node has.

use anyhow::{Context as _, Result};
use tests::harness::Node;

/// A way for packets through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// This data path.
    Dataplane,
    /// Another build of it.
    Build,
    /// The kernel's routes, and no hook at all.
    Route,
    /// The kernel's routes, connection tracking, MASQUERADE and filter rules by `iptables`.
    Iptables,
    /// The same by `nft`.
    Nftables,
}

impl Path {
    /// The kernel's ways, the one that counts first.
    pub(super) const KERNEL: [Self; 3] = [Self::Iptables, Self::Nftables, Self::Route];

    /// The name in outputs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Build => "build",
            Self::Route => "route",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }

    /// Puts the rules on a node with one container, behind `interface`.
    pub(super) fn install(self, node: &Node, interface: &str) -> Result<()> {
        let command = match self {
            Self::Dataplane | Self::Build | Self::Route => return Ok(()),
            Self::Iptables => vec!["iptables-restore"],
            Self::Nftables => vec!["nft", "-f", "-"],
        };
        let rules = self.rules(interface);
        let output = node.run_with_input(command, &rules);
        output.ok().map(drop).with_context(|| format!("the kernel has no baseline {}", self.name()))
    }

    /// The rules, as their command reads them.
    pub(super) fn rules(self, interface: &str) -> String {
        match self {
            Self::Dataplane | Self::Build | Self::Route => String::new(),
            Self::Iptables => IPTABLES.replace("CALI", interface),
            Self::Nftables => NFTABLES.replace("CALI", interface),
        }
    }
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
  chain pri-default { meta mark set meta mark | 0x10000 return; }
  chain fw-CALI {
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
  chain from-wl-dispatch { iifname vmap { CALI : goto fw-CALI }; drop; }
  chain to-wl-dispatch { oifname vmap { CALI : goto tw-CALI }; drop; }
  chain forward {
    type filter hook forward priority filter; policy accept;
    meta mark set meta mark & 0xfff1ffff
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
