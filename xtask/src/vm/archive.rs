//! Debian's archive of kernels, by an apt of its own: the machine's sources and packages stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::version;
use crate::{process, setup};

/// The suites that have kernels of the matrix: 6.1 and 6.12 in the first two, the newest in backports.
const SUITES: [&str; 3] = ["bookworm", "trixie", "trixie-backports"];
/// Those of the archive of security updates, where the machine has one.
const SECURITY_SUITES: [&str; 2] = ["bookworm-security", "trixie-security"];
/// The kernels that are made for virtual machines: small, and with everything that the data path needs.
const FLAVOUR: &str = "-cloud-amd64";

/// apt with a directory of its own.
pub(super) struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Knows what there is; asks the archive for it where `update` or nothing is known so far.
    pub(super) fn open(directory: PathBuf, update: bool) -> Result<Self> {
        if process::find("apt-get").is_none() {
            bail!("there is no apt-get here to fetch Debian's kernels with: give `--kernel` the path of one");
        }
        let archive = Self { directory };
        if update || !archive.stamp().exists() {
            archive.update()?;
        }
        Ok(archive)
    }

    /// Asks the archive what there is now.
    pub(super) fn update(&self) -> Result<()> {
        let sources = self.directory.join("sources");
        for directory in
            [&sources, &self.directory.join("lists/partial"), &self.directory.join("archives/partial")]
        {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        for (index, source) in setup::archives(&SUITES, &SECURITY_SUITES)?.into_iter().enumerate() {
            let path = sources.join(format!("{index}.{}", source.extension));
            fs::write(&path, source.text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        // Without the option, apt counts an archive that it cannot reach as a success.
        let updated = process::output(self.apt("apt-get").args(["-qq", "update", "--error-on=any"]));
        if let Err(error) = updated {
            if self.releases()?.is_empty() {
                return Err(error.context("cannot ask Debian's archive for its kernels"));
            }
            eprintln!("vm: {error:#}: going on with what is known of the archive");
            return Ok(());
        }
        fs::write(self.stamp(), "").with_context(|| format!("cannot write {}", self.stamp().display()))
    }

    /// The releases that can be had.
    pub(super) fn releases(&self) -> Result<Vec<String>> {
        let names = process::output(self.apt("apt-cache").args(["pkgnames", "linux-image-"]))?;
        let release = |name: &str| {
            let release = name.strip_prefix("linux-image-")?;
            let numbered = release.starts_with(|first: char| first.is_ascii_digit());
            (numbered && release.ends_with(FLAVOUR) && !is_series(release)).then(|| release.to_owned())
        };
        let mut releases: Vec<String> = names.lines().filter_map(release).collect();
        releases.sort_by(|a, b| version::compare(a, b));
        Ok(releases)
    }

    /// Fetches the packages of a release and unpacks them below `into`.
    ///
    /// Up to 6.12 everything is in `linux-image-…`; later the kernel itself is in `linux-binary-…`, and then its modules
    /// in `linux-modules-…`.
    pub(super) fn unpack(&self, release: &str, into: &Path) -> Result<()> {
        let known = process::output(self.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        let parts = ["image", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
        let names = parts.iter().filter(|name| known.lines().any(|line| line == *name));
        process::output(self.apt("apt-get").args(["-qq", "download"]).args(names).current_dir(into))
            .with_context(|| format!("cannot fetch Linux {release}"))?;
        for entry in fs::read_dir(into).with_context(|| format!("cannot read {}", into.display()))? {
            let package = entry?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                process::output(Command::new("dpkg-deb").arg("--extract").args([&package, into]))?;
                fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
            }
        }
        Ok(())
    }

    /// There once the lists are.
    fn stamp(&self) -> PathBuf {
        self.directory.join("updated")
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let directory = self.directory.display();
        for option in [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={directory}/sources"),
            format!("Dir::State::Lists={directory}/lists"),
            "Dir::State::Status=/dev/null".to_owned(),
            format!("Dir::Cache={directory}"),
            "Acquire::Languages=none".to_owned(),
            // Without it, root's apt fetches as a user who may not write below target.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// Whether the package only depends on the newest of a series: `6.12-cloud-amd64`.
fn is_series(release: &str) -> bool {
    let numbers = release.trim_end_matches(FLAVOUR);
    numbers.split('.').count() < 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_no_release() {
        assert!(is_series("6.12-cloud-amd64"));
        assert!(!is_series("6.1.0-56-cloud-amd64") && !is_series("7.3.4+deb13-cloud-amd64"));
    }
}
