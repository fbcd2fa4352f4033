//! The collection of flows that ended: by the daemon's request, and by new flows where nobody asks.

use dataplane_common::{
    names::STRETCHES_PER_SWEEP,
    nat::{
        flow::{Flow, ticks},
        table::{Memory as _, Table},
    },
    repeat::Repeat as _,
};

use super::{Maps, count, is_allowed, table};

/// After so long without a sweep by the daemon, new flows sweep.
const NEGLECTED: u32 = ticks(60);

/// Sweeps the next stretches of records.
#[inline(always)]
pub fn sweep() {
    let Some(table) = table() else { return };
    let Some(gauges) = Maps.gauges() else { return };
    gauges.swept.store(table.now);
    next_stretches(&table, STRETCHES_PER_SWEEP, |flow| is_allowed(table.settings, flow));
}

/// Sweeps a stretch if there is no daemon that does it.
#[inline(always)]
pub fn if_neglected(table: &Table<'static, Maps>) {
    let Some(gauges) = Maps.gauges() else { return };
    if table.now - gauges.swept.load() > NEGLECTED {
        next_stretches(table, 1, |_| true);
    }
}

#[inline(always)]
fn next_stretches(table: &Table<'static, Maps>, stretches: u32, wanted: impl Fn(&Flow) -> bool) {
    let Some(gauges) = Maps.gauges() else { return };
    let first = gauges.cursor.add(stretches);
    let (mut expired, mut revoked) = (0, 0);
    Maps.repeat(stretches, |index| {
        let swept = table.sweep((first + index) % table.stretches().max(1), &wanted);
        expired += swept.expired;
        revoked += swept.revoked;
        true
    });
    count(|counters| {
        counters.expired += expired;
        counters.revoked += revoked;
    });
}
