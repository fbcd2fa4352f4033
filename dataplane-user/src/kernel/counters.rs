//! The counters of the data path, summed over the CPUs.

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use dataplane_common::{
    reason::Reason,
    stats::{Counter, Hook, HookCounters},
};

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Row(HookCounters);

// SAFETY: transparent over a type that is plain old data already.
unsafe impl aya::Pod for Row {}

/// The counter map.
pub struct Counters(PerCpuArray<MapData, Row>);

impl Counters {
    /// Takes over the map.
    ///
    /// # Errors
    ///
    /// Where the map is not a per-CPU array of counter rows.
    pub fn new(map: Map) -> Result<Self> {
        Ok(Self(PerCpuArray::try_from(map).context("the counter map has another layout")?))
    }

    /// Every hook and reason with its sum over the CPUs, in the order of their numbers, zeros included.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn read(&self) -> Result<Vec<(Hook, Reason, Counter)>> {
        let mut sums = Vec::new();
        for &hook in Hook::ALL {
            let cpus = self.0.get(&(hook as u32), 0).context("cannot read the counters")?;
            for &reason in Reason::ALL {
                let mut sum = Counter::default();
                for Row(row) in cpus.iter() {
                    sum.packets += row.by_reason[reason as usize].packets;
                    sum.bytes += row.by_reason[reason as usize].bytes;
                }
                sums.push((hook, reason, sum));
            }
        }
        Ok(sums)
    }
}
