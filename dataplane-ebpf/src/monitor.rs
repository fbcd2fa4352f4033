//! What `dataplane monitor` sees: packets that are dropped or left to the kernel, as they are.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use dataplane_common::{
    monitor::{Budgets, Event, MONITOR_SLOTS, Monitor, Monitors, PERIOD_SHIFT, RING_BYTES},
    stats::Hook,
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr};

use crate::{
    ipv4::{self, Ipv4},
    observe,
    packet::Packet,
    repeat::repeat,
};

/// `BPF_F_MMAPABLE`: monitors write the words with plain stores.
const MMAPABLE: usize = 1 << 10;

#[btf_map]
static MONITORS: Array<Monitors, 1, MMAPABLE> = Array::new();

#[btf_map]
static MONITOR_RINGS: ArrayOfMaps<RingBuf<Event, { RING_BYTES as usize }>, { MONITOR_SLOTS as usize }> =
    ArrayOfMaps::new();

#[btf_map]
static MONITOR_BUDGETS: PerCpuArray<Budgets, { MONITOR_SLOTS as usize }> = PerCpuArray::new();

/// Shows the packet, with the number of its reason, to those who listen. Where nobody does, it costs one load.
#[inline(always)]
pub fn show(hook: Hook, packet: &impl Packet, reason: u32) {
    if observe::is_trace() {
        return;
    }
    let Some(monitors) = MONITORS.get(0) else { return };
    let until = monitors.until.load();
    if until == 0 {
        return;
    }
    // SAFETY: a helper without arguments.
    let time = unsafe { bpf_ktime_get_ns() };
    let period = (time >> PERIOD_SHIFT) as u32;
    if period > until {
        // Who listened ended without a word. One that begins now has changed the word.
        monitors.until.replace(until, 0);
        return;
    }
    repeat(MONITOR_SLOTS, |slot| {
        if let Some(monitor) = monitors.slots.get(slot as usize)
            && monitor.wants(period, reason, packet.ifindex())
            && (monitor.address.load() == 0 || has_address(packet, monitor))
        {
            show_to(slot, monitor, period, (hook, packet, reason, time));
        }
        true
    });
}

/// Whether it is an IPv4 packet from or to the address that the monitor wants.
#[inline(always)]
fn has_address(packet: &impl Packet, monitor: &Monitor) -> bool {
    let is_ipv4 = packet.header::<EthHdr>(0).is_ok_and(|ethernet| ethernet.ether_type == 0x0800u16.to_be());
    let Ok(header) = packet.header::<Ipv4Hdr>(ipv4::OFFSET) else { return false };
    let ipv4 = Ipv4::of(header);
    is_ipv4 && monitor.wants_addresses(ipv4.source, ipv4.destination)
}

#[inline(always)]
fn show_to<P: Packet>(slot: u32, monitor: &Monitor, period: u32, packet: (Hook, &P, u32, u64)) {
    let (hook, packet, reason, time) = packet;
    let Some(budgets) = MONITOR_BUDGETS.get_ptr_mut(slot) else { return };
    // SAFETY: the value is this CPU's own. A program that interrupts this one on the same CPU may miscount by one.
    let Some(budget) = (unsafe { (*budgets).by_reason.get_mut(reason as usize) }) else { return };
    if !budget.take(period, monitor.limit.load()) {
        return;
    }
    let Some(mut entry) = MONITOR_RINGS.get(slot).and_then(|ring| ring.reserve(0)) else {
        budget.suppressed += 1;
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the reserved memory is an event's; what is not written of it is what earlier events left there.
    unsafe {
        (*event).time = time;
        (*event).hook = hook as u32;
        (*event).reason = reason;
        (*event).ifindex = packet.ifindex();
        (*event).length = packet.len();
        (*event).segment = packet.gso_size();
        (*event).captured = packet.copy(&mut (*event).bytes);
    }
    entry.submit(0);
}
