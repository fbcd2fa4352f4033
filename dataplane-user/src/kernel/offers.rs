//! Hands connections that the kernel decided over to the program that makes flows of them.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, MapData},
    programs::SchedClassifier,
};
use bytemuck::Zeroable as _;
use dataplane_common::{
    flow::offer::{Batch, OFFERS, Offer},
    names::{MAP_FLOW_OFFERS, PROGRAM_FLOW_OFFER},
};

use super::{
    object::{self, Program},
    pinned::Value,
};

/// The program, and the batch that it reads: for whichever thread has them.
pub struct Offers {
    program: SchedClassifier,
    batch: Array<MapData, Value<Batch>>,
}

impl Offers {
    /// Takes over the object's map, and opens its program once more by a pin, which is there for a moment alone.
    ///
    /// # Errors
    ///
    /// Where the object was not built from this source tree, or the directory takes no pin.
    pub fn open(object: &mut Ebpf, directory: &Path) -> Result<Self> {
        let map = object.take_map(MAP_FLOW_OFFERS);
        let map = map.with_context(|| format!("no map {MAP_FLOW_OFFERS} in the BPF object"))?;
        let pin = directory.join(PROGRAM_FLOW_OFFER);
        // A daemon that was killed in that moment left it.
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", pin.display()));
            }
            _ => {}
        }
        let opened = object::classifier(object, Program::Offer)?
            .pin(&pin)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(SchedClassifier::from_pin(&pin)?))
            .with_context(|| format!("cannot open the program by {}", pin.display()));
        let removed = fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()));
        let program = opened.and_then(|program| removed.map(|()| program))?;
        Ok(Self { program, batch: map.try_into()? })
    }

    /// Has a flow made, prolonged or ended of each offer, and writes down what became of it.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the batch, or to run the program.
    pub fn hand_over(&mut self, offers: &mut [Offer]) -> Result<()> {
        for offers in offers.chunks_mut(OFFERS) {
            let mut batch = Batch { count: offers.len() as u32, ..Batch::zeroed() };
            batch.offers[..offers.len()].copy_from_slice(offers);
            self.batch.set(0, Value(batch), 0).context("cannot write connections for BPF to carry")?;
            // The kernel wants a frame, if only a header's worth; each run takes one offer.
            let frame = [0; 14];
            let options =
                TestRunOptions { data_in: Some(&frame), repeat: batch.count, ..TestRunOptions::new() };
            self.program.test_run(options).context("cannot have BPF carry connections")?;
            let Value(batch) = self.batch.get(&0, 0).context("cannot read which connections BPF carries")?;
            offers.copy_from_slice(&batch.offers[..offers.len()]);
        }
        Ok(())
    }
}
