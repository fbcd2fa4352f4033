//! The package, installed and removed below a directory instead of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{process, workspace};

/// What must be there when the package is installed.
const INSTALLED: [&str; 9] = [
    "usr/sbin/dataplane",
    "usr/lib/systemd/system/dataplane.service",
    "usr/share/man/man8/dataplane.8.gz",
    "usr/share/man/man8/dataplane-monitor.8.gz",
    "usr/share/bash-completion/completions/dataplane",
    "usr/share/zsh/vendor-completions/_dataplane",
    "usr/share/fish/vendor_completions.d/dataplane.fish",
    "usr/share/doc/dataplane/configuration.md",
    "etc/dataplane/node.toml.example",
];

/// Installs, configures, upgrades, removes and purges the package.
pub(super) fn run(package: &Path) -> Result<()> {
    let root = workspace::target_dir()?.join("dist/root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let database = root.join("var/lib/dpkg");
    for directory in ["info", "updates", "triggers"] {
        fs::create_dir_all(database.join(directory))?;
    }
    fs::create_dir_all(root.join("etc"))?;
    fs::write(database.join("status"), "")?;

    dpkg(&root, &["--install"], Some(package))?;
    for path in INSTALLED {
        let path = root.join(path);
        ensure!(fs::metadata(&path).is_ok_and(|file| file.len() > 0), "{} is not there", path.display());
    }
    let binary = root.join("usr/sbin/dataplane");
    process::output(Command::new(&binary).arg("--version")).context("the installed program does not run")?;
    let example = root.join("etc/dataplane/node.toml.example");
    // Where the kernel may not be asked, the file is looked at all the same: its errors would name it.
    if process::is_root() {
        process::output(Command::new(&binary).arg("check").arg("--config").arg(&example))
            .context("the example is not valid")?;
    }
    // The operator's own file survives an upgrade and a removal.
    let own = root.join("etc/dataplane/node.toml");
    fs::copy(&example, &own)?;
    dpkg(&root, &["--install"], Some(package))?;
    dpkg(&root, &["--remove", "dataplane"], None)?;
    ensure!(!binary.exists() && own.exists(), "a removal leaves the configuration and nothing else");
    dpkg(&root, &["--purge", "dataplane"], None)?;
    let left: Vec<PathBuf> = files(&root)?.into_iter().filter(|path| !path.starts_with(&database)).collect();
    ensure!(left == [own], "after the purge there are still {left:?}");
    fs::remove_dir_all(&root)?;
    println!("package: installed, upgraded, removed and purged below {}", root.display());
    Ok(())
}

/// Runs dpkg on that root. The package's scripts run on this machine, where they must find no service manager: in a
/// mount namespace whose `/run` is empty.
fn dpkg(root: &Path, action: &[&str], package: Option<&Path>) -> Result<()> {
    let mut command = Command::new("unshare");
    if !process::is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && exec dpkg \"$@\"", "dpkg"]);
    command.arg(format!("--root={}", root.display()));
    command.args(["--force-script-chrootless", "--force-depends", "--log=/dev/null"]);
    process::output(command.args(action).args(package)).map(drop)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
