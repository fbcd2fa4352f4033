//! What the daemon sets for the flow table, and what the programs count in it.

use bytemuck::{Pod, Zeroable};

use super::state::State;
use crate::atomic::Word32;

/// Counters of flows by source: sources that share one share their part of the table.
pub const SHARES: u32 = 1 << 16;

/// Room for the timeouts of so many states: any number of a byte, which needs no check.
pub const TIMEOUTS: usize = 256;

const _: () = assert!(State::ALL.len() <= TIMEOUTS);

/// Records that a word of the map of taken ones tells of.
pub const RECORDS_PER_WORD: u32 = 64;

/// Words of the map of taken records for so many flows, at least one: there is room for a thirty-second part more, that have
/// ended and were not reclaimed yet.
#[inline(always)]
pub const fn words_of_records(max_flows: u32) -> u32 {
    (max_flows + max_flows / 32) / RECORDS_PER_WORD + 1
}

/// Counters of flows by translated address and remote end, which tell when ports get scarce there.
pub const PORT_USES: u32 = 1 << 16;

/// What the daemon sets. All zero: there is no table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// Secret of the hashes. It does not change while the table lives.
    pub seed: u64,
    /// Buckets of the index; 0 where there is no table. It does not change while the table lives.
    pub buckets: u32,
    /// Most flows.
    pub max_flows: u32,
    /// Most flows of one source.
    pub max_flows_per_source: u32,
    /// Which rules hold: a [`RuleSet`](super::rule::RuleSet). One word, so that a program reads one set and not parts of two.
    pub rules: u32,
    /// Counts the changes of rules and of addresses that they depend on: flows of another epoch are judged anew.
    pub epoch: u32,
    /// Zero, which neither the compiler nor the verifier knows: see [`Self::veil`].
    pub zero: u32,
    /// How long a flow lives without a packet, in ticks, by the number of its state.
    pub timeouts: [u32; TIMEOUTS],
}

impl Settings {
    /// Words of the map of taken records.
    #[inline(always)]
    pub const fn words(&self) -> u32 {
        words_of_records(self.max_flows)
    }

    /// The timeout of a state, in ticks.
    #[inline(always)]
    pub const fn timeout(&self, state: State) -> u32 {
        self.timeouts[state as usize]
    }

    /// The same value, of which the verifier knows nothing any more. Values that differ from one way through a
    /// program to the next make it look at all that follows once for each.
    #[inline(always)]
    pub const fn veil(&self, value: u64) -> u64 {
        value ^ self.zero as u64
    }

    /// The same of 32 bits.
    #[inline(always)]
    pub const fn veil32(&self, value: u32) -> u32 {
        value ^ self.zero
    }
}

/// What changes with each flow.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Gauges {
    /// Flows that live, and those that have expired and were not swept yet.
    pub flows: Word32,
    /// Records that are taken: by those flows, and by such as have ended and were not reclaimed yet.
    pub records: Word32,
    /// The stretch of records that is swept next.
    pub cursor: Word32,
    /// The tick at which a sweep began last.
    pub swept: Word32,
    /// Whether the kernel decides about connections (`netfilter = "respect"`): 1, or 0 where BPF does. The daemon writes it for
    /// those who read the maps; programs have a load-time constant.
    pub respect: Word32,
    reserved: [u32; 11],
}

const _: () = assert!(size_of::<Gauges>() == 64);

/// Rows of the histogram of probes: row `n` counts flows that needed `2^n` to `2^(n+1) - 1` probes for their port, the last
/// one those that needed more.
pub const PROBE_ROWS: usize = 7;

/// What one CPU counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Stats {
    /// Flows that began.
    pub opened: u64,
    /// Flows that expired.
    pub expired: u64,
    /// Closed flows that were evicted by new ones.
    pub displaced_ended: u64,
    /// Half-open flows that were evicted by new ones.
    pub displaced_half_open: u64,
    /// Flows that ended because their rule, uplink, address or port is no longer the one that new flows get.
    pub revoked: u64,
    /// Flows by the probes that their port took.
    pub probes: [u64; PROBE_ROWS],
}

/// The row of the histogram for so many probes, at least one.
#[inline(always)]
pub const fn probe_row(probes: u32) -> usize {
    let mut row = 0;
    while row < PROBE_ROWS - 1 && probes >> (row + 1) != 0 {
        row += 1;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_powers_of_two() {
        let rows: Vec<_> = [1, 2, 3, 4, 31, 32, 63, 64, 9999].into_iter().map(probe_row).collect();
        assert_eq!(rows, [0, 1, 1, 2, 4, 5, 5, 6, 6]);
    }
}
