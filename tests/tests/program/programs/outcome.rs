//! What a program did with a packet.

use dataplane_common::{
    reason::Reason,
    stats::{Counter, Hook},
    trace::StepCode,
};

use crate::programs::Context;

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it returned, of [`action`](super::action).
    pub action: i32,
    /// The frame after it.
    pub bytes: Vec<u8>,
    /// The packet's other fields after it.
    pub context: Context,
}

/// The same, and what it counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// What it did.
    pub ran: Ran,
    /// The counters that moved, by how much.
    pub moved: Counts,
}

/// What the recording copy did with a packet.
#[derive(Clone, Debug)]
pub struct Traced {
    /// What it did.
    pub ran: Ran,
    /// The steps, but for the verdict.
    pub steps: Vec<(StepCode, [u32; 3])>,
    /// The verdict.
    pub reason: Reason,
}

/// Counters by hook and reason, without those that are zero.
pub type Counts = Vec<(Hook, Reason, Counter)>;

/// What grew between two readings.
pub(super) fn difference(before: &Counts, after: &Counts) -> Counts {
    let grown = before.iter().zip(after).map(|((.., before), (hook, reason, after))| {
        let counter = Counter { packets: after.packets - before.packets, bytes: after.bytes - before.bytes };
        (*hook, *reason, counter)
    });
    grown.filter(|(.., counter)| *counter != Counter::default()).collect()
}
