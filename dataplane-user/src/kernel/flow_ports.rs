//! The ports that MASQUERADE may use, as the programs read them.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, IterableMap},
};
use dataplane_common::{
    atomic::Word64,
    ports::{MAP_FLOW_PORTS, PORT_WORDS, WORDS_PER_ROW},
};

use super::{mapping::Mapping, pinned::Pinned};
use crate::port_set::PortSet;

/// The map of ports.
pub struct FlowPorts {
    words: Mapping<Word64>,
}

impl FlowPorts {
    /// Takes over the object's map, with what an earlier run set.
    ///
    /// # Errors
    ///
    /// Where the map has another layout.
    pub fn open(object: &mut Ebpf) -> Result<Self> {
        let map = object.take_map(MAP_FLOW_PORTS);
        let map: Array<_, u64> =
            map.with_context(|| format!("no map {MAP_FLOW_PORTS} in the BPF object"))?.try_into()?;
        Ok(Self { words: Mapping::new(IterableMap::<u32, u64>::map(&map), PORT_WORDS, 1)? })
    }

    /// The map as it is pinned.
    ///
    /// # Errors
    ///
    /// Where it is missing, or has another layout.
    pub fn pinned(pinned: &Pinned) -> Result<Self> {
        Ok(Self { words: pinned.mapping(MAP_FLOW_PORTS, 1)? })
    }

    /// Takes away every port that is not among these, and adds none; says whether there was any.
    pub fn restrict(&mut self, allowed: &PortSet) -> bool {
        let both = self.words.values().iter().zip(allowed.words().iter().cycle());
        let words: Vec<u64> = both.map(|(word, allowed)| word.load() & allowed).collect();
        self.apply(&words)
    }

    /// Makes these the ports, a bit for each, row by row; says whether any was taken away.
    pub fn apply(&mut self, words: &[u64]) -> bool {
        let mut took = false;
        for (word, value) in self.words.values().iter().zip(words) {
            // The daemon alone writes.
            let before = word.load();
            if before != *value {
                word.store(*value);
                took |= before & !value != 0;
            }
        }
        took
    }

    /// How many ports of a row may be used.
    pub fn count(&self, row: u32) -> u64 {
        let row = self.words.values().chunks(WORDS_PER_ROW as usize).nth(row as usize).unwrap_or_default();
        row.iter().map(|word| u64::from(word.load().count_ones())).sum()
    }
}
