//! A fresh Debian in a machine, under its own systemd, for what has to work on one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::image::Image;
use super::kernel::Kernel;
use super::machine::{Accelerator, Machine, Output};
use crate::setup::{self, Need};
use crate::{process, workspace};

/// What the smallest Debian lacks for a trial.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,kmod,iproute2,iputils-ping,procps";
/// How long a trial may take.
const LIMIT: Duration = Duration::from_secs(1200);
/// Debian is in memory, twice for a moment.
const MEMORY_MIB: u32 = 2048;

/// Installs the package on a fresh Debian with that kernel, runs it, and removes it: `image/trial.sh` has the steps.
///
/// # Errors
/// If a step fails, after its words were printed.
pub(crate) fn try_package(package: &Path, kernel: &str) -> Result<()> {
    setup::ensure(&[Need::Vm])?;
    let kernel = Kernel::find(kernel, false)?;
    let image = Image::debian(&kernel, &root()?, package)?;
    let machine = Machine {
        accelerator: Accelerator::find(&kernel)?,
        processors: 2,
        memory_mib: MEMORY_MIB,
        limit: LIMIT,
    };
    eprintln!("vm: booting a fresh Debian with Linux {}", kernel.release);
    let report = machine.run(&kernel, &image, Output::To(&mut super::print))?;
    if report.status != Some(0) {
        bail!("the package did not pass its trial on a fresh Debian");
    }
    Ok(())
}

/// The archive of a root file system: this system's release, made once, from where this system takes its packages.
fn root() -> Result<PathBuf> {
    let directory = workspace::target_dir()?.join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let codename = setup::own_codename()?;
    let path = directory.join(format!("{codename}.tar"));
    if path.exists() {
        return Ok(path);
    }
    eprintln!("vm: making a fresh {codename}");
    let part = tempfile::tempdir_in(&directory)?;
    let security = format!("{codename}-security");
    let mut sources = Vec::new();
    for (index, source) in setup::archives(&[&codename], &[&security])?.into_iter().enumerate() {
        let file = part.path().join(format!("{index}.{}", source.extension));
        fs::write(&file, source.text).with_context(|| format!("cannot write {}", file.display()))?;
        sources.push(file);
    }
    let made = part.path().join("root.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), &codename]);
    process::output(command.arg(&made).args(sources)).context("cannot make a root file system")?;
    fs::rename(&made, &path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
