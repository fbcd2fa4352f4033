//! The kernel's modules, for `modprobe` to load when something asks for them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Image;
use crate::vm::kernel::Kernel;

/// The parts of the tree that a network in a virtual machine may ask for; what they depend on comes along.
const WANTED: [&str; 3] = ["kernel/net/", "kernel/drivers/net/", "kernel/crypto/"];
/// Devices that are no part of such a network.
const UNWANTED: [&str; 4] = [
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/wireless/",
    "kernel/drivers/net/usb/",
    "kernel/drivers/net/phy/",
];

/// Adds them with their index.
pub(super) fn add(image: &mut Image, kernel: &Kernel) -> Result<()> {
    let Some(modules) = &kernel.modules else { return Ok(()) };
    let path = modules.join("modules.dep");
    let index = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let place = PathBuf::from("/lib/modules").join(&kernel.release);
    for module in wanted(&index) {
        image.file(place.join(module), &modules.join(module));
    }
    for entry in fs::read_dir(modules).with_context(|| format!("cannot read {}", modules.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(Path::new);
        if let Some(name) = name.filter(|name| name.to_string_lossy().starts_with("modules.")) {
            image.file(place.join(name), &path);
        }
    }
    Ok(())
}

/// The wanted modules of a `modules.dep` (depmod(8): `MODULE: every module that it depends on`).
fn wanted(index: &str) -> BTreeSet<&str> {
    let is_wanted = |module: &str| {
        WANTED.iter().any(|part| module.starts_with(part))
            && UNWANTED.iter().all(|part| !module.starts_with(part))
    };
    let lines = index.lines().filter_map(|line| line.split_once(':'));
    let chosen = lines.filter(|(module, _)| is_wanted(module));
    chosen.flat_map(|(module, needs)| needs.split_whitespace().chain([module])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_comes_along() {
        let index = "kernel/net/8021q/8021q.ko: kernel/net/802/mrp.ko kernel/lib/a.ko\n\
                     kernel/fs/xfs/xfs.ko: kernel/lib/b.ko\n\
                     kernel/drivers/net/veth.ko.xz:\n\
                     kernel/drivers/net/ethernet/intel/e1000.ko:\n";
        let modules: Vec<&str> = wanted(index).into_iter().collect();
        assert_eq!(
            modules,
            [
                "kernel/drivers/net/veth.ko.xz",
                "kernel/lib/a.ko",
                "kernel/net/802/mrp.ko",
                "kernel/net/8021q/8021q.ko"
            ]
        );
    }
}
