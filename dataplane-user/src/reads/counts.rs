//! `dataplane drops`.

use anyhow::Result;
use aya::maps::Map;
use dataplane_common::{names::MAP_COUNTERS, reason::Class};

use crate::{
    commands,
    control::{answers, client::Client},
    kernel::counters::Counters,
    show,
};

/// Prints what was dropped or passed to the kernel.
///
/// # Errors
///
/// Where no data path of this version is pinned, or its counters cannot be read.
pub fn drops(client: &Client, json: bool) -> Result<()> {
    let pinned = super::pinned(client)?;
    let counters = Counters::new(Map::from_map_data(pinned.data(MAP_COUNTERS)?)?)?.read()?.into_iter();
    let counts: Vec<answers::Count> = counters
        .filter(|(_, reason, counter)| reason.class() != Class::Forward && counter.packets != 0)
        .map(|(hook, reason, counter)| answers::Count {
            hook: hook.name().to_owned(),
            reason: reason.name().to_owned(),
            class: reason.class().name().to_owned(),
            text: reason.text().to_owned(),
            packets: counter.packets,
            bytes: counter.bytes,
        })
        .collect();
    commands::print(json, &counts, |counts| show::counts(counts))
}
