//! Why a packet's walk ended: one table makes the enum, its texts and the rows of the counters.

/// What an ending means for the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// BPF carried or answered the packet.
    Forward,
    /// The kernel's own stack goes on with the packet.
    Pass,
    /// The packet is gone.
    Drop,
}

impl Class {
    /// The class as text: `forward`, `pass` or `drop`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($($number:literal $variant:ident $class:ident $name:literal $text:literal,)+) => {
        /// Why a packet's walk ended.
        ///
        /// The numbers are part of the map layout and of `--json` output: the table grows only at its end.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $text] $variant = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The reason with that number, if there is one.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// What the ending means for the packet.
            #[inline(always)]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)+ }
            }

            /// The name used by `dataplane drops`, in JSON and in the documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for a person.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    0 Delivered Forward "delivered" "handed to the container's own device on this node",
    1 Forwarded Forward "forwarded" "sent to the next hop by an uplink",
    2 ArpAnswered Forward "arp-answered" "an ARP request of a container, answered with the veth's own MAC",
    3 SpoofedSource Drop "spoofed-source" "the source address is not that of an endpoint on this interface",
    4 NoEndpoint Drop "no-endpoint" "the destination lies in a block of this node, and no container has it",
    5 Malformed Drop "malformed" "the header is cut short, or its version or lengths contradict each other",
    6 BadChecksum Drop "bad-checksum" "the IPv4 header checksum is wrong",
    7 ToHost Pass "to-host" "the destination is an address of the node itself",
    8 Multicast Pass "multicast" "the destination is a multicast group (224.0.0.0/4)",
    9 Broadcast Pass "broadcast" "the destination is a broadcast address",
    10 LinkLocal Pass "link-local" "the destination is link-local (169.254.0.0/16), which is never forwarded here",
    11 Reserved Pass "reserved" "the source or the destination is an address that no packet on the wire may have",
    12 IpOptions Pass "ip-options" "the header has IP options, which the kernel processes",
    13 TtlExpired Pass "ttl-expired" "the TTL ends here; the kernel answers with ICMP time exceeded",
    14 TooBig Pass "too-big" "larger than the next link takes; the kernel fragments it or answers frag-needed",
    15 NoRoute Pass "no-route" "no route in the data path's table; the kernel decides",
    16 KernelRoute Pass "kernel-route" "the kernel has a route of its own, for this destination or for the answers, that BPF does not carry",
    17 NotLocal Pass "not-local" "came in by an uplink and is not for a container of this node",
    18 Vlan Pass "vlan" "the frame carries a VLAN tag; it is for the VLAN's own device",
    19 Ipv6 Pass "ipv6" "IPv6, which this data path does not carry yet",
    20 OtherProtocol Pass "other-protocol" "neither IPv4, IPv6 nor ARP",
    21 OtherHost Pass "other-host" "the frame is not addressed to this machine's MAC",
    22 Arp Pass "arp" "ARP that is the kernel's to handle: replies, probes, or by an uplink",
    23 NoNextHop Pass "no-next-hop" "the route's next hop is not reachable by an uplink; the kernel decides",
    24 TableFault Pass "table-fault" "a table entry points nowhere: a fault of the data path, please report it",
    25 NatNoFlow Drop "nat-no-flow" "must be translated, belongs to no flow and cannot begin one (RST, FIN, ICMP error, echo reply)",
    26 NatNoPort Drop "nat-no-port" "must be translated, and every port that was tried is taken towards this destination",
    27 NatTableFull Drop "nat-table-full" "must be translated, and the table has no place that may be taken",
    28 NatShare Drop "nat-share" "must be translated, and the source has its share of the table already",
    29 NatUnsupported Drop "nat-unsupported" "must be translated, and is neither TCP, UDP nor ICMP echo, or has IP options",
    30 NatFragment Drop "nat-fragment" "a fragment that must be translated, and the first one has not been seen",
    31 NatTooBig Drop "nat-too-big" "translated, larger than the next link takes, and the kernel cannot answer for it",
    32 NatNoAddress Drop "nat-no-address" "must be translated, and the interface has no address",
    33 NatKernelRoute Drop "nat-kernel-route" "must be translated, and the kernel's route for it is not one that BPF carries",
    34 NatTtlExpired Drop "nat-ttl-expired" "a reply to a translated packet whose TTL ends here",
    35 NatBadError Drop "nat-bad-error" "an ICMP error that must be translated, and quotes its packet wrongly or too shortly",
    36 NatContended Drop "nat-contended" "must be translated, and other CPUs were at the same entry for too long",
    37 NatNoProgram Drop "nat-no-program" "must be translated, and the program for it is not there: a fault, please report it",
    38 TcDelivers Pass "tc-delivers" "for a container of this node: XDP leaves it to tc, which hands it over",
    39 TcTranslates Pass "tc-translates" "belongs to no translation that XDP can apply (new, a fragment, an ICMP error): tc goes on",
    40 NoNeighbour Pass "no-neighbour" "the neighbour's MAC is not known, or due to be confirmed: tc goes on, and the kernel asks",
    41 NoXdpExit Pass "no-xdp-exit" "leaves by an uplink that takes no frames of XDP: tc goes on",
    42 NeedsSkb Pass "needs-skb" "its checksum is unfinished or its headers lie scattered, which XDP cannot handle: tc goes on",
    43 SourceRoute Drop "source-route" "a container's packet with a source route, which asks the kernel to forward it elsewhere",
    44 MartianSource Drop "martian-source" "came in by an uplink for a container, from an address of this node or one that no packet on the wire may have",
    45 KernelDecides Pass "kernel-decides" "of no connection that BPF carries for the kernel (`netfilter = \"respect\"`): the kernel decides",
}

impl Reason {
    /// Whether the kernel's own stack may forward an IPv4 packet whose walk ends so. What a rule says must be translated is
    /// not left to it then: it would leave as it is.
    ///
    /// The kernel's routes need not be those of the data path's table: they change at another moment, a policy rule may
    /// lead elsewhere, and without a daemon the table stays behind. So this names what the kernel never forwards.
    pub const fn may_be_forwarded(self) -> bool {
        match self {
            // Carried, answered or gone.
            Self::Delivered | Self::Forwarded | Self::ArpAnswered => false,
            Self::SpoofedSource
            | Self::NoEndpoint
            | Self::Malformed
            | Self::BadChecksum
            | Self::SourceRoute
            | Self::MartianSource
            | Self::NatNoFlow
            | Self::NatNoPort
            | Self::NatTableFull
            | Self::NatShare
            | Self::NatUnsupported
            | Self::NatFragment
            | Self::NatTooBig
            | Self::NatNoAddress
            | Self::NatKernelRoute
            | Self::NatTtlExpired
            | Self::NatBadError
            | Self::NatContended
            | Self::NatNoProgram => false,
            // Not IPv4.
            Self::Arp | Self::Ipv6 | Self::OtherProtocol => false,
            // For the node's own sockets.
            Self::ToHost => false,
            // `ip_forward()` in net/ipv4/ip_forward.c ends both.
            Self::TtlExpired | Self::OtherHost => false,
            // From one uplink to the same, or by a route that no rule is for: `hook::from_uplink` has asked.
            Self::NotLocal => false,
            // With `netfilter = "respect"` there are no rules of translation.
            Self::KernelDecides => false,
            // XDP leaves it to tc, which asks.
            Self::TcDelivers | Self::TcTranslates | Self::NoNeighbour | Self::NoXdpExit | Self::NeedsSkb => {
                false
            }
            // The kernel may have a route, or a multicast router (`ip_mr_input()` in net/ipv4/ipmr.c), and forwards
            // directed broadcasts where it is told to (`bc_forwarding`), and 0.0.0.0/8 since Linux 5.3.
            Self::NoRoute
            | Self::KernelRoute
            | Self::NoNextHop
            | Self::LinkLocal
            | Self::Reserved
            | Self::Multicast
            | Self::Broadcast => true,
            // It may do what the data path does not, and then forward the packet.
            Self::IpOptions | Self::TooBig | Self::TableFault => true,
            // By the VLAN's own device.
            Self::Vlan => true,
        }
    }

    /// Whether the sender of a packet that ends so is told, since nothing that it can do would help: that there is no
    /// way (RFC 5508, REQ-8). What a moment may change is not told, nor is what an error would be wrong about.
    pub const fn is_told(self) -> bool {
        matches!(
            self,
            Self::NatNoPort
                | Self::NatTableFull
                | Self::NatShare
                | Self::NatUnsupported
                | Self::NatNoAddress
                | Self::NatKernelRoute
        )
    }

    /// The bits (`1 << number`) of the reasons that are told to the sender.
    pub const TOLD: u64 = {
        let (mut bits, mut index) = (0, 0);
        while index < Self::ALL.len() {
            if Self::ALL[index].is_told() {
                bits |= 1 << index;
            }
            index += 1;
        }
        bits
    };

    /// The bits (`1 << number`) of the reasons for which the kernel may forward the packet.
    pub const MAY_BE_FORWARDED: u64 = {
        let (mut bits, mut index) = (0, 0);
        while index < Self::ALL.len() {
            if Self::ALL[index].may_be_forwarded() {
                bits |= 1 << index;
            }
            index += 1;
        }
        bits
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_names_are_unique() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_number(number as u32), Some(*reason));
            assert_eq!(Reason::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
        }
        assert_eq!(Reason::from_number(Reason::ALL.len() as u32), None);
    }
}
