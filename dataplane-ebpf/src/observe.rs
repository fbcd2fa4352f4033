//! Counters, and the record of steps for `dataplane trace`.

use aya_ebpf::{
    Global,
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use dataplane_common::{
    opaque::forget,
    reason::Reason,
    stats::{HOOK_SLOTS, Hook, HookCounters, REASON_SLOTS},
    trace::{Step, StepCode, TRACE_STEPS, TraceLog},
};

#[btf_map]
static COUNTERS: PerCpuArray<HookCounters, { HOOK_SLOTS as usize }> = PerCpuArray::new();

#[btf_map]
static TRACE_LOG: Array<TraceLog, 1> = Array::new();

/// 1 in the copies that `dataplane trace` runs, which record steps and count nothing.
///
/// The verifier knows the value and removes the code of the other case.
#[unsafe(no_mangle)]
static TRACE: Global<u8> = Global::new(0);

/// Counts the end of a walk.
#[inline(always)]
pub fn count(hook: Hook, reason: Reason, bytes: u32) {
    count_number(hook as u32, reason as u32, bytes);
}

/// The same by the numbers of hook and reason.
#[inline(always)]
pub fn count_number(hook: u32, reason: u32, bytes: u32) {
    if TRACE.load() != 0 {
        return step(StepCode::Verdict, [reason, 0, 0]);
    }
    let Some(counters) = COUNTERS.get_ptr_mut(hook) else { return };
    // Linux 6.1 forgets what was compared where the compiler loads the number again: a mask that the compiler leaves.
    let index = forget(reason) as usize % REASON_SLOTS;
    // SAFETY: the value is this CPU's own. A program that interrupts this one on the same CPU (at another hook) has
    // another row.
    let counter = unsafe { &mut (*counters).by_reason[index] };
    counter.packets += 1;
    counter.bytes += u64::from(bytes);
}

/// Whether this copy of the program only tells what it would do: it must then leave every table as it is.
#[inline(always)]
pub fn is_trace() -> bool {
    TRACE.load() != 0
}

/// Records a step of a traced walk.
#[inline(always)]
pub fn step(code: StepCode, words: [u32; 3]) {
    if TRACE.load() == 0 {
        return;
    }
    let Some(log) = TRACE_LOG.get_ptr_mut(0) else { return };
    // SAFETY: traces run one at a time, by the daemon that owns this copy of the map.
    let log = unsafe { &mut *log };
    let index = log.count as usize;
    if index < TRACE_STEPS {
        log.steps[index] = Step { code: code as u32, words };
    }
    log.count += 1;
}
