//! What kernels have, and since when.

use std::fs;

use anyhow::{Context as _, Result};

use super::skip::skip;

/// What a test needs of the kernel, and not every supported one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Links to the TCX hooks (`BPF_TCX_INGRESS`; Linux commit e420bed02507).
    Tcx,
    /// An interface that is up can be given another name (Linux commit bd039b5ea2a9).
    LiveRename,
    /// Devices tell what they can do at XDP, without which it is not known whether a veth takes frames (Linux commit
    /// 66c0e13ad236).
    XdpFeatures,
}

impl Feature {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tcx, Self::LiveRename, Self::XdpFeatures];

    fn name(self) -> &'static str {
        match self {
            Self::Tcx => "TCX",
            Self::LiveRename => "renaming of interfaces that are up",
            Self::XdpFeatures => "devices' word on what they can do at XDP",
        }
    }

    /// The first release that has it: its first two numbers.
    #[must_use]
    pub fn since(self) -> (u32, u32) {
        match self {
            Self::Tcx => (6, 6),
            Self::LiveRename => (6, 2),
            Self::XdpFeatures => (6, 3),
        }
    }

    /// Why a test that needs it is skipped.
    #[must_use]
    pub fn reason(self) -> String {
        let (major, minor) = self.since();
        format!("needs {}, which Linux has since {major}.{minor}", self.name())
    }
}

/// Skips `test`, and says so with `true`, if the running kernel comes before the feature.
///
/// # Errors
/// If the kernel does not tell its release.
pub fn skip_without(feature: Feature, test: &str) -> Result<bool> {
    let lacks = running()? < feature.since();
    if lacks {
        skip(test, &feature.reason());
    }
    Ok(lacks)
}

/// The first two numbers of the running kernel's release.
///
/// # Errors
/// If the kernel does not tell them.
pub fn running() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel tells no release")?;
    major_minor(&release).with_context(|| format!("the release {release:?} does not begin with two numbers"))
}

fn major_minor(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(major_minor("6.1.0-56-cloud-amd64\n"), Some((6, 1)));
        assert!(major_minor("6.12.1") > major_minor("6.6.9"));
        assert_eq!(major_minor("6"), None);
    }
}
