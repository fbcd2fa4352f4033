//! Loops that a program leaves to the kernel.

/// Who runs a loop.
///
/// The verifier looks through every round of a plain loop, on every way that leads to it: that is for short
/// loops on every packet's way. The others are `bpf_loop` in a program (Linux 5.17), of which it looks through
/// one round.
pub trait Repeat {
    /// Calls `body` with 0, 1 and so on, below `count`, as long as it returns true.
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool);
}

/// A plain loop.
pub struct Plainly;

impl Repeat for Plainly {
    fn repeat(&self, count: u32, mut body: impl FnMut(u32) -> bool) {
        for index in 0..count {
            if !body(index) {
                break;
            }
        }
    }
}
