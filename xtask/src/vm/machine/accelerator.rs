//! Who runs the machine's instructions: the processor itself, or QEMU.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;

use super::{Machine, Output};
use crate::vm::image::Image;
use crate::vm::kernel::Kernel;
use crate::workspace;

/// How long a machine that does nothing may take with either.
const KVM_LIMIT: Duration = Duration::from_secs(20);
const TCG_LIMIT: Duration = Duration::from_secs(120);
/// Whatever else `max` has makes the translated kernel twice as slow; the random numbers it needs to start.
const TCG_PROCESSOR: &str = "qemu64,+rdrand";
/// Changes with every start of the system.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const DEVICE: &str = "/dev/kvm";

/// Who runs the machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accelerator {
    /// The processor
    Kvm,
    /// QEMU's translator, some ten times slower
    Tcg,
}

impl Accelerator {
    pub(super) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", TCG_PROCESSOR],
        }
    }

    /// The one that works here: booting is tried, since a /dev/kvm that opens may still lead to a machine that hangs.
    /// What was found holds until the next start of this system.
    pub(crate) fn find(kernel: &Kernel) -> Result<Self> {
        let version = super::version()?;
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let key = format!("{version}\n{boot}");
        let path = workspace::target_dir()?.join("vm/accelerator");
        let known = fs::read_to_string(&path).ok();
        for (accelerator, name) in [(Self::Kvm, "kvm"), (Self::Tcg, "tcg")] {
            if known.as_ref().is_some_and(|known| known.strip_prefix(name) == Some(&format!("\n{key}"))) {
                return Ok(accelerator);
            }
        }
        let found = match Self::Kvm.works(kernel, KVM_LIMIT) {
            Ok(()) => (Self::Kvm, "kvm"),
            Err(kvm) => {
                let tcg = Self::Tcg.works(kernel, TCG_LIMIT);
                tcg.with_context(|| anyhow!("no machine boots here, by KVM ({}) or without", reason(&kvm)))?;
                eprintln!("vm: {}: the machines run without KVM, more slowly", reason(&kvm));
                (Self::Tcg, "tcg")
            }
        };
        let directory = path.parent().context("no directory above")?;
        fs::create_dir_all(directory)?;
        fs::write(&path, format!("{}\n{key}", found.1))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(found.0)
    }

    /// Boots a machine that ends at once.
    fn works(self, kernel: &Kernel, limit: Duration) -> Result<()> {
        if self == Self::Kvm {
            let device = File::options().read(true).write(true).open(DEVICE);
            device.with_context(|| format!("{DEVICE} cannot be opened"))?;
        }
        let machine = Machine { accelerator: self, processors: 1, memory_mib: 512, limit };
        let image = Image::minimal("#!/usr/bin/busybox sh\n")?;
        machine.run(kernel, &image, Output::To(&mut |_| Ok(()))).map(drop)
    }
}

/// What went wrong, without what was on the console.
fn reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split(';').next().unwrap_or_default().to_owned()
}
