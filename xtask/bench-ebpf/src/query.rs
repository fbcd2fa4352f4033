//! What the lookup programs and `cargo xtask bench` share; both include this file.

/// A question about the addresses of many prefixes of one length, which follow one another, and its answer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The first address, host byte order.
    pub first: u32,
    /// Length of every prefix, 32 at most.
    pub length: u32,
    /// How many prefixes there are.
    pub prefixes: u32,
    /// How many addresses are asked for: random ones, or one of each prefix in turn.
    pub rounds: u32,
    /// Where the random addresses begin.
    pub seed: u32,
    /// Interface that the kernel is asked for; 0 for none.
    pub ifindex: u32,
    /// The answer: how many of the addresses have a route.
    pub hits: u64,
}
