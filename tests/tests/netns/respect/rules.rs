//! Sets of rules of a node, as the programs are seen to write them.

/// A service on this node and one on the other, as kube-proxy's iptables mode has them; what Calico writes for a policy by which
/// c2 takes nothing from c1, with its check that connection tracking knows a packet; `natOutgoing`; and a port that Docker
/// publishes.
pub const IPTABLES: &str = "
*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
-A KUBE-SERVICES ! -s 172.19.0.0/16 -d 10.96.0.0/16 -j KUBE-MARK-MASQ
-A KUBE-SERVICES -d 10.96.0.10/32 -j DNAT --to-destination 172.19.35.3
-A KUBE-SERVICES -d 10.96.0.11/32 -j DNAT --to-destination 172.19.36.2
-A KUBE-SERVICES -s 192.168.200.0/24 -d 192.168.200.172/32 -j DNAT --to-destination 172.19.35.3
-A POSTROUTING -s 172.19.0.0/16 ! -d 172.19.0.0/16 -j MASQUERADE
COMMIT
*filter
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -s 172.19.35.2/32 -d 172.19.36.3/32 -p tcp -j REJECT --reject-with tcp-reset
-A FORWARD -s 172.19.35.2/32 -d 172.19.36.3/32 -j REJECT
COMMIT
";

/// The same in one table of nftables, as kube-proxy's nftables mode and ufw's successor write it.
pub const NFTABLES: &str = "
table ip everything {
  chain services {
    ip saddr != 172.19.0.0/16 ip daddr 10.96.0.0/16 meta mark set mark or 0x4000
    ip daddr 10.96.0.10 dnat to 172.19.35.3
    ip daddr 10.96.0.11 dnat to 172.19.36.2
    ip saddr 192.168.200.0/24 ip daddr 192.168.200.172 dnat to 172.19.35.3
  }
  chain prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain output { type nat hook output priority -100; jump services; }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    mark and 0x4000 == 0x4000 masquerade
    ip saddr 172.19.0.0/16 ip daddr != 172.19.0.0/16 masquerade
  }
  chain forward {
    type filter hook forward priority filter;
    ct state invalid drop
    ct state established,related accept
    ip saddr 172.19.35.2 ip daddr 172.19.36.3 meta l4proto tcp reject with tcp reset
    ip saddr 172.19.35.2 ip daddr 172.19.36.3 reject
  }
}
";

/// What Docker and ufw leave: FORWARD drops what no chain accepts, ports are published by DNAT, ufw drops INVALID and logs.
/// Services as above, since a node of that kind has containers of both sorts.
pub const DOCKER_AND_UFW: &str = "
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -d 10.96.0.10/32 -j DNAT --to-destination 172.19.35.3
-A PREROUTING -d 10.96.0.11/32 -j DNAT --to-destination 172.19.36.2
-A DOCKER -s 192.168.200.0/24 -j DNAT --to-destination 172.19.35.3
-A POSTROUTING -s 172.19.0.0/16 ! -d 172.19.0.0/16 -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:DOCKER-FORWARD - [0:0]
:ufw-before-forward - [0:0]
:ufw-logging-deny - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A FORWARD -j ufw-before-forward
-A DOCKER-USER -s 172.19.35.2/32 -d 172.19.36.3/32 -p tcp -j REJECT --reject-with tcp-reset
-A DOCKER-USER -s 172.19.35.2/32 -d 172.19.36.3/32 -j REJECT
-A DOCKER-USER -j RETURN
-A DOCKER-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -m conntrack --ctstate DNAT -j ACCEPT
-A DOCKER-FORWARD -i cali1 -j ACCEPT
-A DOCKER-FORWARD -i cali2 -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate INVALID -j ufw-logging-deny
-A ufw-before-forward -m conntrack --ctstate INVALID -j DROP
-A ufw-before-forward -d 172.19.35.0/24 -j ACCEPT
-A ufw-logging-deny -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN
COMMIT
";
