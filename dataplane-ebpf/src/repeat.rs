//! Loops that the verifier looks at once.

use core::hint;

use aya_ebpf::{cty::c_void, helpers::bpf_loop};

/// Calls `body` with 0, 1 and so on, below `count`, as long as it says so: `bpf_loop` (Linux 5.17).
#[inline(always)]
pub fn repeat<F: FnMut(u32) -> bool>(count: u32, mut body: F) {
    unsafe extern "C" fn call<F: FnMut(u32) -> bool>(index: u32, body: *mut c_void) -> i64 {
        // SAFETY: what `repeat` handed over, which nobody else uses meanwhile.
        let body = unsafe { &mut *body.cast::<F>() };
        // The verifier wants to see that it is 0 or 1, which the compiler takes for known.
        hint::black_box(i64::from(!body(index))) & 1
    }
    // SAFETY: the callback takes what it is given here, and `body` lives during the call.
    unsafe { bpf_loop(count, call::<F> as *mut c_void, (&raw mut body).cast(), 0) };
}
