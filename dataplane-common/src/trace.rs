//! The steps of a packet's walk, as `dataplane trace` records them.
//!
//! Only the traced copies of the programs write them (a load-time constant removes the code from the
//! attached ones), and only while `BPF_PROG_TEST_RUN` runs them.

use bytemuck::{Pod, Zeroable};

/// Steps that one walk can record.
pub const TRACE_STEPS: usize = 32;

macro_rules! steps {
    ($($number:literal $variant:ident $text:literal,)+) => {
        /// What happened in a step; the comment says what its three words hold.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum StepCode {
            $(#[doc = $text] $variant = $number,)+
        }

        impl StepCode {
            /// The code with that number, if there is one.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

steps! {
    1 Frame "A frame came in: interface index, EtherType, length of the frame in bytes.",
    2 Arp "An ARP packet was read: operation, sender address, target address (host byte order).",
    3 Ipv4 "An IPv4 header was read: source, destination (host byte order), TTL and protocol as `ttl << 8 | protocol`.",
    4 SourceLookup "The source was looked up: address (host byte order), bits of the entry.",
    5 RouteLookup "The destination was looked up: address (host byte order), bits of the entry.",
    6 Endpoint "The endpoint table was read: index, interface, address (host byte order).",
    7 NextHop "The next-hop table was read: index, interface, gateway (host byte order, 0 for on-link).",
    8 Size "The size was compared: bytes of the largest IP packet or segment, MTU.",
    9 Verdict "The walk ended: number of the reason.",
    10 Flow "A flow was found: slot, destination of its replies (host byte order), their port, direction and state as `port << 16 | direction << 8 | state`.",
    11 Rule "A rule was found: translated address (host byte order, 0 for none yet), first port, number of ports.",
    12 FlowMiss "No flow was found for: address (host byte order) and port that were looked up, protocol.",
    13 Translated "A packet was rewritten: new address (host byte order), new port, 0 for the source and 1 for the destination.",
    14 IcmpError "An ICMP error was read: type, code, protocol of the packet that it quotes.",
    15 Rejected "An ICMP error is sent about the packet: type, code, MTU of the next link or 0.",
}

/// One recorded step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Step {
    /// Number of the [`StepCode`].
    pub code: u32,
    /// What the code says.
    pub words: [u32; 3],
}

/// The record of one walk.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TraceLog {
    /// Steps recorded; those past [`TRACE_STEPS`] are counted and not kept.
    pub count: u32,
    /// Fills the header to 16 bytes.
    pub reserved: [u32; 3],
    /// The steps in their order.
    pub steps: [Step; TRACE_STEPS],
}
