//! The table of uplinks, which the program at XDP reads: by whose MAC frames are for this node, and where they can be
//! redirected to.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData, xdp::DevMap},
};
use bytemuck::Zeroable as _;
use dataplane_common::{
    names::{MAP_UPLINK_DEVICES, MAP_UPLINKS},
    uplink::{UPLINK_SLOTS, Uplink, slot},
};

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Uplink);

// SAFETY: transparent over a type that is plain old data already.
unsafe impl aya::Pod for Value {}

/// The maps, and what they hold.
pub struct Uplinks {
    table: Array<MapData, Value>,
    devices: DevMap<MapData>,
    held: BTreeMap<u32, Uplink>,
}

impl Uplinks {
    /// Takes over the object's maps, with whatever an earlier run left in them.
    ///
    /// # Errors
    ///
    /// Where a map has another layout.
    pub fn open(object: &mut Ebpf) -> Result<Self> {
        let mut take =
            |name| object.take_map(name).with_context(|| format!("no map {name} in the BPF object"));
        let table: Array<_, Value> = take(MAP_UPLINKS)?.try_into().context("the table of uplinks")?;
        let devices = take(MAP_UPLINK_DEVICES)?.try_into().context("the devices of uplinks")?;
        let mut held = BTreeMap::new();
        for index in 0..UPLINK_SLOTS {
            let Value(uplink) = table.get(&index, 0)?;
            if uplink.ifindex != 0 {
                held.insert(index, uplink);
            }
        }
        Ok(Self { table, devices, held })
    }

    /// Makes the table hold these; of two that have one slot, the first.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, e.g. because an interface went a moment ago.
    pub fn set(&mut self, wanted: &[Uplink]) -> Result<()> {
        let mut by_slot = BTreeMap::new();
        for uplink in wanted {
            by_slot.entry(slot(uplink.ifindex)).or_insert(*uplink);
        }
        let gone: Vec<u32> = self.held.keys().filter(|slot| !by_slot.contains_key(slot)).copied().collect();
        for slot in gone {
            self.write(slot, Uplink::zeroed())?;
        }
        for (slot, uplink) in by_slot {
            if self.held.get(&slot) != Some(&uplink) {
                self.write(slot, uplink)?;
            }
        }
        Ok(())
    }

    /// Empties the slot first: no frame may be sent to one interface with what is known of another.
    fn write(&mut self, slot: u32, uplink: Uplink) -> Result<()> {
        let context = || format!("cannot write slot {slot} of the table of uplinks");
        self.table.set(slot, Value(Uplink::zeroed()), 0).with_context(context)?;
        self.held.remove(&slot);
        if uplink.ifindex == 0 {
            return Ok(());
        }
        if uplink.flags != 0 {
            self.devices.set(slot, uplink.ifindex, None, 0).with_context(context)?;
        }
        self.table.set(slot, Value(uplink), 0).with_context(context)?;
        self.held.insert(slot, uplink);
        Ok(())
    }
}
