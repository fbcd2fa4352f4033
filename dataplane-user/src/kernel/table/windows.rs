//! The words of a pinned table, for reading: mapped window by window, so that a reader takes the same memory for any table.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, MapError};
use aya::sys::SyscallError;
use dataplane_common::names::MAP_ROUTE_ROOT;
use dataplane_common::trie::{ROOT_WORDS, SLAB_WORDS};

use super::view::Source;
use crate::kernel::mapping::{BPF_F_MMAPABLE, Mapping};
use crate::kernel::pinned::Pinned;
use crate::kernel::pins::Pins;

/// Words of a window: 16 KiB, a multiple of the pages of every architecture but those of 64 KiB, where it is one page.
const WINDOW_WORDS: usize = 4096;

/// Windows that are kept: 4 MiB.
const WINDOWS: usize = 256;

/// Slabs that are kept open.
const OPEN_SLABS: usize = 256;

/// The words of the table that is pinned there.
pub struct Windows {
    pins: Pins,
    root: Mapping<AtomicU32>,
    slabs: HashMap<u32, MapData>,
    /// By the number of the window, counted through all slabs, modulo their count.
    windows: Vec<Option<(usize, Mapping<AtomicU32>)>>,
    window_words: usize,
}

impl Windows {
    /// Opens the table among those maps.
    ///
    /// # Errors
    ///
    /// Where it is missing, or of another layout.
    pub fn open(pinned: &Pinned) -> Result<Self> {
        let page_words = rustix::param::page_size() / size_of::<u32>();
        Ok(Self {
            pins: pinned.pins().clone(),
            root: pinned.mapping(MAP_ROUTE_ROOT, ROOT_WORDS)?,
            slabs: HashMap::new(),
            windows: (0..WINDOWS).map(|_| None).collect(),
            window_words: WINDOW_WORDS.max(page_words),
        })
    }

    /// The slab of that number, if there is one.
    fn slab(&mut self, number: u32) -> Result<Option<&MapData>> {
        if !self.slabs.contains_key(&number) {
            let pin = self.pins.slabs().join(number.to_string());
            let slab = match MapData::from_pin(&pin) {
                Err(MapError::SyscallError(SyscallError { io_error, .. }))
                    if io_error.kind() == io::ErrorKind::NotFound =>
                {
                    return Ok(None);
                }
                slab => slab.with_context(|| format!("cannot open {}", pin.display()))?,
            };
            let info = slab.info()?;
            ensure!(
                info.value_size() as usize == SLAB_WORDS * size_of::<u32>()
                    && info.map_flags() & BPF_F_MMAPABLE != 0,
                "{} is no part of a route table",
                pin.display()
            );
            if self.slabs.len() >= OPEN_SLABS {
                self.slabs.clear();
            }
            self.slabs.insert(number, slab);
        }
        Ok(self.slabs.get(&number))
    }
}

impl Source for Windows {
    fn root(&self, index: usize) -> u32 {
        self.root.values()[index].load(Ordering::Acquire)
    }

    fn slab(&mut self, slab: u32, first: u32, words: &mut [u32]) -> Result<bool> {
        let (window_words, first) = (self.window_words, first as usize);
        if first + words.len() > SLAB_WORDS {
            return Ok(false);
        }
        let in_slab = first / window_words;
        let number = slab as usize * SLAB_WORDS.div_ceil(window_words) + in_slab;
        let place = number % WINDOWS;
        if self.windows[place].as_ref().is_none_or(|(there, _)| *there != number) {
            let Some(map) = self.slab(slab)? else { return Ok(false) };
            let offset = in_slab * window_words * size_of::<u32>();
            let window = Mapping::part(map, offset, window_words.min(SLAB_WORDS))?;
            self.windows[place] = Some((number, window));
        }
        let Some((_, window)) = &self.windows[place] else { return Ok(false) };
        // A chunk is aligned to its size, and so lies in one window.
        for (word, from) in words.iter_mut().zip(&window.values()[first % window_words..]) {
            *word = from.load(Ordering::Acquire);
        }
        Ok(true)
    }
}
