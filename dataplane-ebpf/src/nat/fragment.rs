//! Fragments: the first names the ports, the others are known by what they have in common with it.

use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};
use dataplane_common::{
    nat::{
        flow::{Life, ticks},
        table::{Hit, Table},
    },
    net::Ipv4Be,
};

use super::Maps;
use crate::ipv4::Ipv4;

/// Datagrams whose fragments can be under way at one time.
const DATAGRAMS: usize = 8192;

/// How long the fragments of one datagram may take, as Linux's `ipfrag_time`.
const LONGEST: u32 = ticks(30);

/// What the fragments of a datagram have in common (RFC 791, section 3.2).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Datagram {
    source: Ipv4Be,
    destination: Ipv4Be,
    identification: u16,
    protocol: u16,
    /// Fills the key: all of its bytes are compared.
    reserved: u32,
}

/// The flow of a datagram.
#[repr(C)]
#[derive(Clone, Copy)]
struct Known {
    /// The flow's life when the first fragment came.
    life: u64,
    slot: u32,
    /// The tick at which it came.
    since: u32,
}

#[btf_map]
static NAT_FRAGMENTS: LruHashMap<Datagram, Known, DATAGRAMS> = LruHashMap::new();

impl Datagram {
    #[inline(always)]
    fn of(ipv4: &Ipv4) -> Self {
        Self {
            source: ipv4.source,
            destination: ipv4.destination,
            identification: ipv4.identification,
            protocol: ipv4.protocol.into(),
            reserved: 0,
        }
    }
}

/// Keeps the flow of a first fragment for those that follow.
#[inline(always)]
pub fn remember(table: &Table<'_, Maps>, ipv4: &Ipv4, hit: &Hit<'_>) {
    let known = Known { life: hit.life.to_bits(), slot: hit.slot, since: table.now };
    // Without memory for it, the other fragments are dropped and counted.
    let _ = NAT_FRAGMENTS.insert(Datagram::of(ipv4), known, 0);
}

/// The flow of a later fragment.
#[inline(always)]
pub fn find(table: &Table<'static, Maps>, ipv4: &Ipv4) -> Option<Hit<'static>> {
    let known = NAT_FRAGMENTS.get_ptr(Datagram::of(ipv4))?;
    // SAFETY: a value of the map, which is not freed while a program runs; it may be overwritten by a fragment
    // of the same datagram, with the same flow.
    let known = unsafe { *known };
    if table.now - known.since > LONGEST {
        return None;
    }
    table.hit(known.slot).filter(|hit| Life::from_bits(known.life).is_same_flow(hit.life))
}
