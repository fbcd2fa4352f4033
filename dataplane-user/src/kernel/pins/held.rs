//! The pinned maps, held open, so that they can be pinned again where somebody removes the pins: a map without any pin
//! would be lost with the daemon, and the translations with it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use dataplane_common::names::{PINNED_MAPS, RENEWED_MAPS};

use super::Pins;

/// Every map that a daemon pins by name, with where it is pinned.
#[derive(Debug)]
pub struct Held {
    maps: Vec<(PathBuf, MapData)>,
}

impl Held {
    /// Opens what is pinned.
    ///
    /// # Errors
    ///
    /// Where a map is not pinned, or cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self> {
        let open = |name: &&str| {
            let path = pins.maps().join(name);
            let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
            Ok((path, map))
        };
        let maps = PINNED_MAPS.iter().chain(RENEWED_MAPS).map(open).collect::<Result<_>>()?;
        Ok(Self { maps })
    }

    /// Pins again what is pinned no more, and says whether there was anything of the kind. The directories are there.
    ///
    /// # Errors
    ///
    /// Where a map cannot be pinned.
    pub fn pin_missing(&self) -> Result<bool> {
        let mut found = false;
        for (path, map) in self.maps.iter().filter(|(path, _)| !path.exists()) {
            map.pin(path).with_context(|| format!("cannot pin a map at {}", path.display()))?;
            found = true;
        }
        Ok(found)
    }
}
