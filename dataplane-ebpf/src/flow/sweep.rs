//! The collection of flows that ended: by the daemon's request, and by new flows where nobody asks.

use dataplane_common::{
    family::V4,
    flow::{
        record::{Flow, ticks},
        table::{Memory as _, Table},
    },
    names::STRETCHES_PER_SWEEP,
    repeat::Repeat as _,
};

use super::{Maps, count, rules, table};

/// After so long without a sweep by the daemon, new flows sweep.
const NEGLECTED: u32 = ticks(60);

/// Sweeps the next stretches of records.
#[inline(always)]
pub fn sweep() {
    let Some(table) = table() else { return };
    let Some(gauges) = Maps.gauges() else { return };
    gauges.swept.store(table.now);
    next_stretches(&table, STRETCHES_PER_SWEEP, |flow| rules::still_holds(&table, flow));
}

/// Sweeps a stretch if there is no daemon that does it.
#[inline(always)]
pub fn if_neglected(table: &Table<'static, Maps>) {
    let Some(gauges) = Maps.gauges() else { return };
    if (table.now.wrapping_sub(gauges.swept.load()) as i32) > NEGLECTED as i32 {
        next_stretches(table, 1, |_| true);
    }
}

#[inline(always)]
fn next_stretches(table: &Table<'static, Maps>, stretches: u32, go_on: impl Fn(&Flow<V4>) -> bool) {
    let Some(gauges) = Maps.gauges() else { return };
    let first = gauges.cursor.add(stretches);
    let (mut expired, mut revoked) = (0, 0);
    Maps.repeat(stretches, |index| {
        let swept = table.sweep((first + index) % table.stretches().max(1), &go_on);
        expired += swept.expired;
        revoked += swept.revoked;
        true
    });
    count(|counters| {
        counters.expired += expired;
        counters.revoked += revoked;
    });
}
