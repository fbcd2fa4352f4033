//! The kernel that is booted, and its modules.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::archive::Archive;
use super::version;
use crate::{process, workspace};

/// Where the magic number of the boot protocol is in a bzImage, and what it is
/// (Documentation/arch/x86/boot.rst).
const MAGIC: (u64, &[u8; 4]) = (0x202, b"HdrS");
/// Where, less 512, the image says where its version is.
const VERSION_POINTER: u64 = 0x20e;

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` shows it.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// `…/lib/modules/RELEASE`, if there is one.
    pub(crate) modules: Option<PathBuf>,
}

impl Kernel {
    /// The kernel that a user names: by path, or by version ([`version::matches`]), which is fetched unless it was before.
    /// `update` asks the archive whether there is a newer one.
    pub(crate) fn find(wanted: &str, update: bool) -> Result<Self> {
        if wanted.contains('/') || Path::new(wanted).is_file() {
            return Self::at(Path::new(wanted));
        }
        let directory = workspace::target_dir()?.join("vm");
        let cache = directory.join("kernels");
        let archive = Archive::open(directory.join("apt"), update);
        let release = match archive.as_ref().map(Archive::releases) {
            Ok(releases) => {
                let releases = releases?;
                version::best(&releases, wanted).cloned().with_context(|| unknown(wanted, &releases))?
            }
            // Without a network, what is there will do.
            Err(error) => {
                let releases = cached(&cache)?;
                let found = version::best(&releases, wanted).cloned();
                let found = found.with_context(|| format!("{error:#}; {}", unknown(wanted, &releases)))?;
                eprintln!("vm: {error:#}: taking Linux {found}, which is there");
                found
            }
        };
        let place = cache.join(&release);
        if let (false, Ok(archive)) = (place.exists(), &archive) {
            fetch(archive, &release, &cache)?;
        }
        Self::unpacked(&place, &release)
    }

    /// A kernel's file, with the modules that its directory or this machine has of its release.
    fn at(path: &Path) -> Result<Self> {
        let image = fs::canonicalize(path).with_context(|| format!("no kernel at {}", path.display()))?;
        let release = release_in(&image)?;
        let below =
            |root: &Path| ["lib/modules", "usr/lib/modules"].map(|part| root.join(part).join(&release));
        let beside = image.parent().map(Path::to_owned);
        let unpacked = image.parent().and_then(Path::parent).map(below).into_iter().flatten();
        let modules = beside
            .into_iter()
            .filter(|directory| directory.ends_with(&release))
            .chain(unpacked)
            .chain(below(Path::new("/")))
            .find(|directory| directory.join("kernel").is_dir());
        if modules.is_none() {
            eprintln!("vm: no modules of {release} are at hand: the kernel has what is built into it");
        }
        Ok(Self { release, image, modules })
    }

    fn unpacked(place: &Path, release: &str) -> Result<Self> {
        let modules = ["lib/modules", "usr/lib/modules"].map(|part| place.join(part).join(release));
        let modules = modules.into_iter().find(|directory| directory.join("kernel").is_dir());
        let images = [
            Some(place.join(format!("boot/vmlinuz-{release}"))),
            modules.as_ref().map(|modules| modules.join("vmlinuz")),
        ];
        let image = images.into_iter().flatten().find(|image| image.is_file());
        let image = image.with_context(|| {
            format!("there is no kernel in {0}: remove it, and it is fetched again", place.display())
        })?;
        release_in(&image)?;
        Ok(Self { release: release.to_owned(), image, modules })
    }
}

/// Fetches and unpacks a release; it is in its place when it is whole.
fn fetch(archive: &Archive, release: &str, cache: &Path) -> Result<()> {
    eprintln!("vm: fetching Linux {release}");
    let part = cache.join(format!(".{release}.{}", std::process::id()));
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let fetched = archive.unpack(release, &part).or_else(|_| {
        // The lists may be older than the archive: it keeps no release for long.
        archive.update()?;
        archive.unpack(release, &part)
    });
    let made = fetched.and_then(|()| index(release, &part));
    if made.is_err() {
        // What is left of it is in nobody's way.
        let _ = fs::remove_dir_all(&part);
    }
    made?;
    let place = cache.join(release);
    match fs::rename(&part, &place) {
        // Another process was quicker.
        Err(_) if place.exists() => Ok(fs::remove_dir_all(&part)?),
        result => result.with_context(|| format!("cannot make {}", place.display())),
    }
}

/// Makes the index by which `modprobe` finds modules: the package's own scripts would.
fn index(release: &str, root: &Path) -> Result<()> {
    let merged = root.join("usr/lib/modules");
    let base = if merged.is_dir() { root.join("usr") } else { root.to_owned() };
    let depmod = process::find("depmod").context("there is no depmod: run `cargo xtask setup`")?;
    process::output(Command::new(depmod).arg("--basedir").args([base.as_os_str(), release.as_ref()]))
        .map(drop)
}

/// The releases that were fetched before.
fn cached(cache: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(cache) else { return Ok(Vec::new()) };
    let mut releases = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            releases.push(name);
        }
    }
    Ok(releases)
}

fn unknown(wanted: &str, releases: &[String]) -> String {
    if releases.is_empty() {
        return format!("there is no Linux {wanted:?} at hand, nor any other");
    }
    let mut series: Vec<String> = releases.iter().map(|release| version::series(release)).collect();
    series.sort_by(|a, b| version::compare(a, b));
    series.dedup();
    format!(
        "no Linux {wanted:?} is to be had: {}, {:?}, or the path of a kernel",
        series.join(", "),
        version::NEWEST
    )
}

/// The release that a bzImage says it is.
fn release_in(image: &Path) -> Result<String> {
    let read = || -> Result<Option<String>> {
        let file = File::open(image)?;
        let mut magic = [0; 4];
        let mut pointer = [0; 2];
        let mut version = [0; 128];
        let length = file.metadata()?.len();
        if length < VERSION_POINTER + 512 + 2 {
            return Ok(None);
        }
        file.read_exact_at(&mut magic, MAGIC.0)?;
        file.read_exact_at(&mut pointer, VERSION_POINTER)?;
        if &magic != MAGIC.1 {
            return Ok(None);
        }
        let at = u64::from(u16::from_le_bytes(pointer)) + 512;
        let read = file.read_at(&mut version, at)?;
        let text = String::from_utf8_lossy(&version[..read]).into_owned();
        Ok(text.split([' ', '\0']).next().map(str::to_owned))
    };
    let release = read().with_context(|| format!("cannot read {}", image.display()))?;
    let Some(release) = release else {
        bail!("{} is not a kernel for x86 (a bzImage, such as /boot/vmlinuz-*)", image.display());
    };
    ensure!(!release.is_empty(), "{} does not say which release it is", image.display());
    Ok(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn a_kernel_tells_its_release() {
        let mut bytes = vec![0; 2048];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x300_u16.to_le_bytes());
        bytes[0x500..0x51c].copy_from_slice(b"6.1.0-56-cloud-amd64 (x@y) #");
        assert_eq!(release_in(written(&bytes).path()).unwrap(), "6.1.0-56-cloud-amd64");
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        for bytes in [&[][..], &[0; 100], &[0x7f; 4096]] {
            let error = release_in(written(bytes).path()).unwrap_err().to_string();
            assert!(error.contains("is not a kernel for x86"), "{error}");
        }
        let error = format!("{:#}", Kernel::find("/nonexistent/vmlinuz", false).unwrap_err());
        assert!(error.contains("no kernel at /nonexistent/vmlinuz"), "{error}");
    }

    #[test]
    fn an_unknown_version_is_answered_with_those_that_there_are() {
        let releases = ["6.1.0-56-cloud-amd64", "6.1.0-9-cloud-amd64", "7.3.4+deb13-cloud-amd64"];
        let said = unknown("5.4", &releases.map(str::to_owned));
        assert!(said.contains("6.1, 7.3, \"newest\""), "{said}");
    }
}
