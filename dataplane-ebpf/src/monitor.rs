//! What `dataplane monitor` sees: packets that are dropped or left to the kernel, as they are.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use dataplane_common::{
    monitor::{Budgets, Event, MONITOR_SLOTS, Monitor, Monitors, PERIOD_SHIFT, RING_BYTES},
    names::PROGRAM_TO_SHOW,
    opaque::opaque,
    stats::{Hook, REASON_SLOTS},
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr};

use crate::{
    ipv4::{self, Ipv4},
    observe,
    packet::Packet,
    repeat::repeat,
    verdict,
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

/// A packet to be shown. The program in which its walk ended leaves it here for the one that shows it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ended {
    /// Number of the hook.
    hook: u32,
    /// Number of the reason.
    reason: u32,
}

/// This CPU's own: the programs at the hooks do not interrupt each other.
///
/// Old and new programs share it during an upgrade: its name changes with its layout.
#[btf_map]
static MONITOR_ENDED: PerCpuArray<Ended, 1> = PerCpuArray::new();

/// Has the packet, with the number of its reason, shown to those who listen: the packet's end is then that program's,
/// [`show`]. Where nobody listens, it costs one load, and the walk has no part in how packets are shown.
#[inline(always)]
pub fn offer(hook: Hook, packet: &impl Packet, reason: u32) {
    if observe::is_trace() {
        return;
    }
    let Some(monitors) = MONITORS.get(0) else { return };
    if monitors.until.load() == 0 {
        return;
    }
    let Some(ended) = MONITOR_ENDED.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value.
    unsafe { *ended = Ended { hook: hook as u32, reason } };
    packet.tail_call(PROGRAM_TO_SHOW);
}

/// Shows a packet that ends in this very program, with the numbers of its hook and reason.
#[inline(always)]
pub fn show_ended(packet: &impl Packet, hook: u32, reason: u32) {
    let is_listened_to = MONITORS.get(0).is_some_and(|monitors| monitors.until.load() != 0);
    if is_listened_to && !observe::is_trace() {
        show_to_all(packet, Ended { hook, reason });
    }
}

/// Shows the packet that was offered last to those who want it, and ends it.
#[inline(always)]
pub fn show<P: Packet>(packet: &P) -> i32 {
    // SAFETY: this CPU's own value, and numbers.
    let Some(ended) = MONITOR_ENDED.get_ptr(0).map(|ended| unsafe { *ended }) else { return P::drop() };
    show_to_all(packet, ended);
    verdict::end::<P>(ended.reason)
}

#[inline(always)]
fn show_to_all(packet: &impl Packet, ended: Ended) {
    let Some(monitors) = MONITORS.get(0) else { return };
    let until = monitors.until.load();
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
            && monitor.wants(period, ended.reason, packet.ifindex())
            && (monitor.address.load() == 0 || has_address(packet, monitor))
        {
            show_to(slot, monitor, period, packet, ended, time);
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
fn show_to(slot: u32, monitor: &Monitor, period: u32, packet: &impl Packet, ended: Ended, time: u64) {
    let Some(budgets) = MONITOR_BUDGETS.get_ptr_mut(slot) else { return };
    // A mask where a check would do: Linux 6.1 forgets what was compared where the compiler loads the number again.
    let reason = opaque(ended.reason) as usize % REASON_SLOTS;
    // SAFETY: the value is this CPU's own. A program that interrupts this one on the same CPU may miscount by one.
    let budget = unsafe { &mut (*budgets).by_reason[reason] };
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
        (*event).hook = ended.hook;
        (*event).reason = ended.reason;
        (*event).ifindex = packet.ifindex();
        (*event).length = packet.len();
        (*event).segment = packet.gso_size();
        (*event).captured = packet.copy(&mut (*event).bytes);
    }
    entry.submit(0);
}
