//! Translation of addresses and ports. The table's algorithm is `dataplane_common::nat`.

mod error;
mod fragment;
mod inward;
mod open;
mod outward;
mod rewrite;
mod sweep;
mod transport;

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::bpf_ktime_get_coarse_ns,
    macros::btf_map,
};
use dataplane_common::{
    atomic::{Word32, Word64},
    names::PROGRAM_SLOTS,
    nat::{
        bucket::Refs,
        flow::{Flow, TICK_SHIFT},
        rule::{self, MAX_RULES, Rule, Rules},
        settings::{Gauges, NatCounters, SHARES, Settings},
        state::Direction,
        table::{Hit, Memory, Table},
    },
    net::Ipv4Be,
    repeat::Repeat,
    trace::StepCode,
};

use crate::{observe, repeat::repeat};

pub use inward::{Reply, find as find_reply};
pub use open::{open, translate_first};
pub use outward::{find_known, translate, wanted};
pub use sweep::sweep;

/// `BPF_F_MMAPABLE`: values lie at a page's start, so that those of 64 bytes are cache lines.
const MMAPABLE: usize = 1 << 10;

#[btf_map]
static NAT_SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map]
static NAT_RULES: Array<Rule, { 2 * MAX_RULES }> = Array::new();

// The daemon sets the sizes of these four when it loads the object: `max-flows`.
#[btf_map]
static NAT_OUT: Array<Refs, 1, MMAPABLE> = Array::new();

#[btf_map]
static NAT_IN: Array<Refs, 1, MMAPABLE> = Array::new();

#[btf_map]
static NAT_FLOWS: Array<Flow, 1, MMAPABLE> = Array::new();

#[btf_map]
static NAT_TAKEN: Array<Word64, 1, MMAPABLE> = Array::new();

#[btf_map]
static NAT_SHARES: Array<Word32, { SHARES as usize }> = Array::new();

#[btf_map]
static NAT_GAUGES: Array<Gauges, 1, MMAPABLE> = Array::new();

#[btf_map]
static NAT_COUNTERS: PerCpuArray<NatCounters, 1> = PerCpuArray::new();

/// The programs that packets go on in: those of no known flow where one can begin, and then where they came from.
/// Most packets belong to a known flow, and need not carry the others' code and stack along.
#[btf_map]
pub static NAT_PROGRAMS: ProgramArray<{ PROGRAM_SLOTS as usize }> = ProgramArray::new();

/// The table's memory: the maps.
pub struct Maps;

impl Memory for Maps {
    #[inline(always)]
    fn refs(&self, direction: Direction, bucket: u32) -> Option<&Refs> {
        match direction {
            Direction::Out => NAT_OUT.get(bucket),
            Direction::In => NAT_IN.get(bucket),
        }
    }

    #[inline(always)]
    fn flow(&self, slot: u32) -> Option<&Flow> {
        NAT_FLOWS.get(slot)
    }

    #[inline(always)]
    fn taken(&self, word: u32) -> Option<&Word64> {
        NAT_TAKEN.get(word)
    }

    #[inline(always)]
    fn share(&self, index: u32) -> Option<&Word32> {
        NAT_SHARES.get(index)
    }

    #[inline(always)]
    fn gauges(&self) -> Option<&Gauges> {
        NAT_GAUGES.get(0)
    }
}

impl Repeat for Maps {
    #[inline(always)]
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        repeat(count, body);
    }
}

/// The rules that hold.
struct Active<'a>(&'a Settings);

impl Repeat for Active<'_> {
    #[inline(always)]
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        repeat(count, body);
    }
}

impl Rules for Active<'_> {
    #[inline(always)]
    fn count(&self) -> u32 {
        self.0.rules
    }

    #[inline(always)]
    fn rule(&self, index: u32) -> Option<&Rule> {
        NAT_RULES.get(self.0.first_rule + index)
    }
}

/// The table as of now; `None` where nothing is translated.
#[inline(always)]
fn table() -> Option<Table<'static, Maps>> {
    let settings = NAT_SETTINGS.get(0)?;
    if settings.buckets == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    Some(Table { memory: &Maps, settings, now: (now >> TICK_SHIFT) as u32 })
}

/// The rule for packets from `source` to `destination` that leave by `ifindex`, or by any uplink if that is 0.
#[inline(always)]
fn rule(
    settings: &'static Settings,
    source: Ipv4Be,
    destination: Ipv4Be,
    ifindex: u32,
) -> Option<&'static Rule> {
    let index = rule::find(&Active(settings), source, destination, ifindex)?;
    let rule = NAT_RULES.get(settings.first_rule + index)?;
    observe::step(
        StepCode::NatRule,
        [rule.address.to_host(), u32::from(rule.first_port), u32::from(rule.ports)],
    );
    Some(rule)
}

/// Whether a rule lets the flow go on.
#[inline(always)]
fn is_allowed(settings: &Settings, flow: &Flow) -> bool {
    rule::still_allow(&Active(settings), flow.original().source, flow.translated_address())
}

/// Whether a rule says that such a packet must be translated if it leaves the node, by whichever uplink.
#[inline(always)]
pub fn must_translate(source: Ipv4Be, destination: Ipv4Be) -> bool {
    table().is_some_and(|table| rule(table.settings, source, destination, 0).is_some())
}

/// The address that such a packet would be translated to, by the first rule for it.
#[inline(always)]
pub fn address(source: Ipv4Be, destination: Ipv4Be) -> Option<Ipv4Be> {
    let address = rule(table()?.settings, source, destination, 0)?.address;
    if address == Ipv4Be::UNSPECIFIED { None } else { Some(address) }
}

/// Whether no flow may begin here for now (`nat-share`): the daemon fills another table from this one.
#[inline(always)]
pub fn is_stopped() -> bool {
    table().is_some_and(|table| table.settings.max_flows_per_source == 0)
}

/// Whether anything is translated.
#[inline(always)]
pub fn translates() -> bool {
    table().is_some()
}

#[inline(always)]
fn tell(hit: &Hit<'_>) {
    observe::step(
        StepCode::NatFlow,
        [
            hit.slot,
            hit.flow.translated_address().to_host(),
            u32::from(hit.flow.translated_port()) << 16 | hit.life.state() as u32,
        ],
    );
}

#[inline(always)]
fn count(add: impl FnOnce(&mut NatCounters)) {
    if let Some(counters) = NAT_COUNTERS.get_ptr_mut(0) {
        // SAFETY: the value is this CPU's own. A program that interrupts this one at another hook may lose a
        // count, no more.
        add(unsafe { &mut *counters });
    }
}
