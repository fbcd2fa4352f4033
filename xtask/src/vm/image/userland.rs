//! Programs of Debian packages, with the libraries that they are linked with.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Image;
use crate::process;
use crate::setup::{self, Need};

/// What packages hold that no program reads.
const UNREAD: [&str; 6] = [
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/bash-completion/",
    "/usr/share/lintian/",
    "/lib/systemd/",
];
/// Names of users, protocols and services.
const DATABASES: [&str; 5] =
    ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/protocols", "/etc/services"];
/// Where packages put links to programs for the alternatives system, which their lists of files do not have.
const PROGRAMS: [&str; 2] = ["/usr/sbin", "/usr/bin"];

/// Packages that a system has anyway: programs that in busybox can do less (its shell calls its own programs first), and
/// the loader of modules.
const BASE: [&str; 4] = ["bash", "coreutils", "dash", "kmod"];

/// Adds the packages that the tests need, and those of every system.
pub(super) fn add(image: &mut Image) -> Result<()> {
    let packages: BTreeSet<&str> =
        setup::needed(&[Need::Test]).map(|package| package.name).chain(BASE).collect();
    // Of a package that came by other means, dpkg says so on standard error.
    let listed =
        Command::new("dpkg").arg("--listfiles").args(&packages).output().context("cannot run dpkg")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for path in listed.lines().filter(|path| UNREAD.iter().all(|unread| !path.starts_with(unread))) {
        let path = Path::new(path);
        if path.is_file() {
            image.mirror(path)?;
        }
    }
    for path in DATABASES {
        image.mirror(Path::new(path))?;
    }
    add_alternatives(image)
}

/// Adds every program that is a link to one of the image's.
fn add_alternatives(image: &mut Image) -> Result<()> {
    let there: BTreeSet<PathBuf> = image.sources().map(Path::to_owned).collect();
    for directory in PROGRAMS {
        for entry in fs::read_dir(directory).with_context(|| format!("cannot read {directory}"))? {
            let path = entry?.path();
            if path.is_symlink() && fs::canonicalize(&path).is_ok_and(|target| there.contains(&target)) {
                image.mirror(&path)?;
            }
        }
    }
    Ok(())
}

/// Adds the libraries of every program and library that is there.
pub(super) fn add_libraries(image: &mut Image) -> Result<()> {
    let mut ldd = Command::new("ldd");
    for file in image.sources().filter(|file| is_elf(file)) {
        ldd.arg(file);
    }
    // Its status tells of files that are linked with nothing.
    let listed = ldd.output().context("cannot run ldd")?;
    for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
        image.mirror(Path::new(library))?;
    }
    Ok(())
}

/// The names of the programs in busybox, one a line.
pub(super) fn busybox_programs() -> Result<String> {
    process::output(Command::new("busybox").arg("--list"))
}

/// The paths in lines like `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(listed: &str) -> BTreeSet<&str> {
    listed
        .lines()
        .filter_map(|line| {
            let (path, _) = line.rsplit_once(" (0x")?;
            let path = path.rsplit_once("=> ").map_or(path, |(_, path)| path).trim();
            path.starts_with('/').then_some(path)
        })
        .collect()
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    // A kernel's modules are ELF files, too.
    let is_module = file.extension().is_some_and(|extension| extension == "ko");
    let mut read = || File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok();
    !is_module && read() && &magic == b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_with_and_without_a_name() {
        let listed = "/usr/bin/x:\n\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux.so.2 (0x00007f)\n\tlibgone.so => not found\n/usr/bin/y:\n\
                      \tstatically linked\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n";
        assert_eq!(
            libraries(listed).into_iter().collect::<Vec<_>>(),
            ["/lib/libc.so.6", "/lib64/ld-linux.so.2"]
        );
    }

    #[test]
    fn scripts_are_no_programs_of_the_linker() {
        assert!(is_elf(&std::env::current_exe().unwrap()));
        assert!(!is_elf(Path::new("/etc/passwd")) && !is_elf(Path::new("/nonexistent")));
    }
}
