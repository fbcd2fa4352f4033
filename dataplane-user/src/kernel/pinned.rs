//! The pinned maps as commands open them: without a daemon, which the data path does not need either.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Map, MapData, MapError};
use dataplane_common::names::LAYOUT_VERSION;

use super::{mapping::Mapping, pins::Pins};

/// Symbolic link in the state directory to the `bpf-dir`: it outlives the daemon, as the pins do.
pub const BPF_LINK: &str = "bpf";

/// A value of a map, as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Value<T>(pub T);

// SAFETY: transparent over a type that is plain old data already.
unsafe impl<T: bytemuck::Pod> aya::Pod for Value<T> {}

/// The directory of the maps of a data path of this version.
#[derive(Clone, Debug)]
pub struct Pinned {
    maps: PathBuf,
}

impl Pinned {
    /// Finds the maps in `bpf_dir`; else where the daemon of the state directory has, or had, them.
    ///
    /// # Errors
    ///
    /// Where no data path of this version is pinned there, or it may not be read.
    pub fn find(bpf_dir: Option<&Path>, state_dir: &Path) -> Result<Self> {
        let link = state_dir.join(BPF_LINK);
        let bpf_dir = match bpf_dir {
            Some(bpf_dir) => bpf_dir.to_owned(),
            None => fs::read_link(&link).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => {
                    anyhow!("no permission to read {}: try as root", link.display())
                }
                _ => anyhow!(
                    "no daemon has run with the state directory {}: start `dataplane run`, or name its directory with \
                     --state-dir, or that of the pins with --bpf-dir",
                    state_dir.display()
                ),
            })?,
        };
        let maps = Pins::new(&bpf_dir).maps();
        match fs::exists(&maps) {
            Ok(true) => Ok(Self { maps }),
            Ok(false) => Err(anyhow!(
                "no data path of this version (layout {LAYOUT_VERSION}) is pinned in {}: start `dataplane run`",
                bpf_dir.display()
            )),
            Err(error) => Err(anyhow!("cannot read {}: {error} (try as root)", maps.display())),
        }
    }

    /// The directory that the maps are pinned in.
    pub fn directory(&self) -> &Path {
        &self.maps
    }

    /// The map of that name.
    ///
    /// # Errors
    ///
    /// Where it is missing, or may not be opened.
    pub fn data(&self, name: &str) -> Result<MapData> {
        let path = self.maps.join(name);
        MapData::from_pin(&path).with_context(|| format!("cannot open {} (try as root)", path.display()))
    }

    /// The map of that name, as one of its kind.
    ///
    /// # Errors
    ///
    /// Where it is missing, may not be opened, or is of another kind or size of values.
    pub fn open<M: TryFrom<Map, Error = MapError>>(&self, name: &str) -> Result<M> {
        let map = Map::from_map_data(self.data(name)?).with_context(|| format!("map {name}"))?;
        M::try_from(map).with_context(|| format!("map {name}"))
    }

    /// All values of an array, mapped into this process, of which each holds `per_value` of the `T`.
    ///
    /// # Errors
    ///
    /// Where it is missing, has another size of values, or cannot be mapped.
    pub(super) fn mapping<T: Sync>(&self, name: &str, per_value: usize) -> Result<Mapping<T>> {
        let data = self.data(name)?;
        let values = data.info()?.max_entries();
        Mapping::new(&data, values, per_value).with_context(|| format!("map {name}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn maps_are_found_by_the_link_or_by_name() {
        let place = tempfile::tempdir().unwrap();
        let (state_dir, bpf_dir) = (place.path().join("state"), place.path().join("bpf"));
        fs::create_dir_all(&state_dir).unwrap();
        let error = Pinned::find(None, &state_dir).unwrap_err().to_string();
        assert!(error.contains("no daemon has run"), "{error}");

        symlink(&bpf_dir, state_dir.join(BPF_LINK)).unwrap();
        let error = Pinned::find(None, &state_dir).unwrap_err().to_string();
        assert!(error.contains("no data path of this version"), "{error}");

        let maps = Pins::new(&bpf_dir).maps();
        fs::create_dir_all(&maps).unwrap();
        assert_eq!(Pinned::find(None, &state_dir).unwrap().directory(), maps);
        assert_eq!(Pinned::find(Some(&bpf_dir), Path::new("/nonexistent")).unwrap().directory(), maps);
        let error = format!("{:#}", Pinned::find(None, &state_dir).unwrap().data("NONE").unwrap_err());
        assert!(error.contains("cannot open"), "{error}");
    }
}
