//! Fragments: the first names the ports, the others are known by what they have in common with it.

use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};
use dataplane_common::{
    family::V4,
    flow::{
        record::{Life, ticks},
        state::Direction,
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

/// The flow of a datagram, as its first fragment has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct First {
    /// The flow's life when the first fragment came.
    life: u64,
    slot: u32,
    /// The tick at which it came.
    since: u32,
    /// Number of its direction.
    direction: u32,
    /// Fills the value to whole words.
    reserved: u32,
}

#[btf_map]
static FLOW_FRAGMENTS: LruHashMap<Datagram, First, DATAGRAMS> = LruHashMap::new();

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
pub fn remember(table: &Table<'_, Maps>, ipv4: &Ipv4, hit: &Hit<'_, V4>) {
    let first = First {
        life: hit.life.to_bits(),
        slot: hit.slot,
        since: table.now,
        direction: hit.direction as u32,
        reserved: 0,
    };
    // Without memory for it, the other fragments are dropped and counted.
    let _ = FLOW_FRAGMENTS.insert(Datagram::of(ipv4), first, 0);
}

/// The flow of a later fragment.
#[inline(always)]
pub fn find(table: &Table<'static, Maps>, ipv4: &Ipv4) -> Option<Hit<'static, V4>> {
    let first = FLOW_FRAGMENTS.get_ptr(Datagram::of(ipv4))?;
    // SAFETY: a value of the map, which is not freed while a program runs; it may be overwritten by a fragment
    // of the same datagram, with the same flow.
    let first = unsafe { *first };
    // Signed: the clock of the CPU that had the first one may be a tick ahead.
    if (table.now.wrapping_sub(first.since) as i32) > LONGEST as i32 {
        return None;
    }
    let direction = if first.direction == 0 { Direction::Original } else { Direction::Reply };
    table.same_flow(first.slot, Life::from_bits(first.life), direction)
}
