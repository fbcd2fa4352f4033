//! Connection tracking and the translation of addresses and ports. The table's algorithm is `dataplane_common::flow`.

mod by_kernel;
mod decide;
mod fragment;
mod icmp_error;
mod insert;
mod known;
mod offer;
mod reply;
mod rewrite;
mod rules;
mod sweep;
mod transport;

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::bpf_ktime_get_coarse_ns,
    macros::btf_map,
};
use dataplane_common::{
    atomic::{Word32, Word64},
    family::V4,
    flow::{
        counts::Counts,
        index::Bucket,
        record::{Flow, TICK_SHIFT},
        settings::{Gauges, PORT_USES, SHARES, Settings, Stats},
        state::Direction,
        table::{Hit, Memory, Table},
        tuple::Tuple,
    },
    names::PROGRAM_SLOTS,
    ports::{self, PORT_WORDS},
    repeat::Repeat,
    trace::StepCode,
};

use crate::{observe, repeat::repeat};

pub use by_kernel::carried;
pub use decide::{inbound, outbound};
pub use insert::{Exit, finish_first, insert, search};
pub use known::{Known, lookup};
pub use offer::offer;
pub use reply::{Reply, find as find_reply};
pub use rules::{is_stopped, is_tracked, must_translate, translated_address, translates};
pub use sweep::sweep;

/// `BPF_F_MMAPABLE`: values lie at a page's start, so that those of 64 bytes are cache lines.
const MMAPABLE: usize = 1 << 10;

#[btf_map]
static FLOW_SETTINGS: Array<Settings, 1> = Array::new();

// The daemon sets the sizes of these four when it loads the object: `max-flows`.
#[btf_map]
static FLOW_INDEX: Array<Bucket, 1, MMAPABLE> = Array::new();

#[btf_map]
static FLOW_RECORDS: Array<Flow<V4>, 1, MMAPABLE> = Array::new();

#[btf_map]
static FLOW_COUNTS: Array<Counts, 1, MMAPABLE> = Array::new();

#[btf_map]
static FLOW_TAKEN: Array<Word64, 1, MMAPABLE> = Array::new();

#[btf_map]
static FLOW_SHARES: Array<Word32, { SHARES as usize }> = Array::new();

#[btf_map]
static FLOW_PORT_USES: Array<Word32, { PORT_USES as usize }> = Array::new();

#[btf_map]
static FLOW_PORTS: Array<Word64, { PORT_WORDS as usize }, MMAPABLE> = Array::new();

#[btf_map]
static FLOW_GAUGES: Array<Gauges, 1, MMAPABLE> = Array::new();

#[btf_map]
static FLOW_STATS: PerCpuArray<Stats, 1> = PerCpuArray::new();

/// The programs that packets go on in: those of no known flow where one can begin, and then where they came from.
/// Most packets belong to a known flow, and need not carry the others' code and stack along.
#[btf_map]
pub static FLOW_PROGRAMS: ProgramArray<{ PROGRAM_SLOTS as usize }> = ProgramArray::new();

/// The table's memory: the maps.
pub struct Maps;

impl Memory for Maps {
    type Family = V4;

    #[inline(always)]
    fn bucket(&self, number: u32) -> Option<&Bucket> {
        FLOW_INDEX.get(number)
    }

    #[inline(always)]
    fn flow(&self, slot: u32) -> Option<&Flow<V4>> {
        FLOW_RECORDS.get(slot)
    }

    #[inline(always)]
    fn counts(&self, slot: u32) -> Option<&Counts> {
        FLOW_COUNTS.get(slot)
    }

    #[inline(always)]
    fn taken(&self, word: u32) -> Option<&Word64> {
        FLOW_TAKEN.get(word)
    }

    #[inline(always)]
    fn share(&self, index: u32) -> Option<&Word32> {
        FLOW_SHARES.get(index)
    }

    #[inline(always)]
    fn port_use(&self, index: u32) -> Option<&Word32> {
        FLOW_PORT_USES.get(index)
    }

    #[inline(always)]
    fn is_usable(&self, protocol: u8, port: u16) -> bool {
        match ports::row(protocol) {
            Some(row) => {
                FLOW_PORTS.get(ports::word(row, port)).is_some_and(|word| word.load() & ports::bit(port) != 0)
            }
            None => true,
        }
    }

    #[inline(always)]
    fn gauges(&self) -> Option<&Gauges> {
        FLOW_GAUGES.get(0)
    }
}

impl Repeat for Maps {
    #[inline(always)]
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        repeat(count, body);
    }
}

/// The table as of now; `None` where there is none, since nothing needs it.
#[inline(always)]
fn table() -> Option<Table<'static, Maps>> {
    any_table().filter(|table| table.settings.buckets != 0)
}

/// The same, or a table that holds nothing.
#[inline(always)]
fn any_table() -> Option<Table<'static, Maps>> {
    let settings = FLOW_SETTINGS.get(0)?;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    Some(Table { memory: &Maps, settings, now: (now >> TICK_SHIFT) as u32 })
}

#[inline(always)]
fn trace_hit(hit: &Hit<'_, V4>) {
    if !observe::is_trace() {
        return;
    }
    let reply = hit.flow.reply();
    let state = (hit.direction as u32) << 8 | hit.life.state() as u32;
    observe::step(
        StepCode::Flow,
        [hit.slot, reply.destination.to_host(), u32::from(reply.destination_port) << 16 | state],
    );
}

#[inline(always)]
fn trace_miss(tuple: &Tuple<V4>) {
    observe::step(
        StepCode::FlowMiss,
        [tuple.source.to_host(), tuple.source_port.into(), tuple.protocol.into()],
    );
}

#[inline(always)]
fn count(add: impl FnOnce(&mut Stats)) {
    if let Some(counters) = FLOW_STATS.get_ptr_mut(0) {
        // SAFETY: the value is this CPU's own. A program that interrupts this one at another hook may lose a
        // count, no more.
        add(unsafe { &mut *counters });
    }
}

/// Counts a packet of a flow.
#[inline(always)]
fn count_packet(slot: u32, direction: Direction, bytes: u32) {
    if let Some(counts) = FLOW_COUNTS.get(slot) {
        counts.add(direction, bytes);
    }
}
