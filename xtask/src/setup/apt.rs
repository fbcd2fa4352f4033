//! Installation of Debian packages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::install::say_and_run;
use super::packages::Package;
use super::services;
use crate::process;

/// Where apt reads its sources from.
const SOURCES: &str = "/etc/apt";

/// Updates apt's lists, then installs the packages; a component of the archive is added only for a package
/// that apt cannot find without it.
pub(super) fn install(packages: &[&Package]) -> Result<()> {
    update()?;
    for package in packages {
        let Some(component) = package.component else { continue };
        if !has_candidate(package.name)? {
            add_component(component).with_context(|| format!("{} is in {component}", package.name))?;
            update()?;
        }
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    for name in &names {
        if !has_candidate(name)? {
            bail!(
                "apt knows no package {name}: add a source that has it (LLVM 22 is in Debian 12's security \
                 updates, and LLVM's own archive has it for others), or install what it brings in another way"
            );
        }
    }
    services::without(packages.iter().filter_map(|package| package.service), || get_install(&names))
}

/// The same for packages of the main component, by name.
pub(super) fn install_names(names: &[&str]) -> Result<()> {
    update()?;
    get_install(names)
}

fn update() -> Result<()> {
    say_and_run(Command::new("apt-get").args(["-qq", "update"]))
}

fn get_install(names: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Without a terminal of its own, dpkg draws no progress into logs.
    let options = ["-qq", "-o", "Dpkg::Use-Pty=0", "--yes", "--no-install-recommends"];
    command.args(options).arg("install").args(names);
    say_and_run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn has_candidate(package: &str) -> Result<bool> {
    let policy = process::output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    Ok(candidate(&policy).is_some())
}

/// The version that `apt-cache policy` would install.
fn candidate(policy: &str) -> Option<&str> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then_some(version)
}

/// Writes a source with this component beside the one that has `main` of the system's release.
fn add_component(component: &str) -> Result<()> {
    let codename = own_codename()?;
    let Some(added) = source(&codename, &[&codename], component)? else {
        bail!("no apt source below {SOURCES} has main of {codename}, to take {component} from as well")
    };
    let name = format!("dataplane-{component}.{}", added.extension);
    let path = PathBuf::from(SOURCES).join("sources.list.d").join(name);
    println!("setup: adding the component {component} of {codename}: {}", path.display());
    fs::write(&path, added.text).with_context(|| format!("cannot write {}", path.display()))
}

/// A file for `sources.list.d`.
pub(crate) struct Source {
    /// By which apt knows the style.
    pub(crate) extension: &'static str,
    pub(crate) text: String,
}

/// The archives that this system takes its packages and its security updates from, with other suites of theirs in the
/// place of the system's own.
pub(crate) fn archives(suites: &[&str], security: &[&str]) -> Result<Vec<Source>> {
    let codename = own_codename()?;
    let Some(main) = source(&codename, suites, "main")? else {
        bail!("no apt source below {SOURCES} has main of {codename}, to find Debian's archive by")
    };
    let security = source(&format!("{codename}-security"), security, "main")?;
    Ok([main].into_iter().chain(security).collect())
}

/// The source that has `main` of `suite`, with other suites and another component.
fn source(suite: &str, suites: &[&str], component: &str) -> Result<Option<Source>> {
    for file in source_files(Path::new(SOURCES))? {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = if file.extension().is_some_and(|extension| extension == "sources") {
            stanza_with(&text, suite, suites, component).map(|text| Source { extension: "sources", text })
        } else {
            line_with(&text, suite, suites, component).map(|text| Source { extension: "list", text })
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The name of this system's release.
pub(crate) fn own_codename() -> Result<String> {
    let os_release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    codename(&os_release).map(str::to_owned).context("/etc/os-release names no VERSION_CODENAME")
}

fn codename(os_release: &str) -> Option<&str> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"'))
}

/// apt's source files: `sources.list`, then those of `sources.list.d` by name.
fn source_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    match fs::read_dir(directory.join("sources.list.d")) {
        Ok(entries) => {
            for entry in entries {
                files.push(entry.context("cannot list apt's sources")?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("cannot list apt's sources"),
    }
    files.retain(|file| {
        file.extension().is_some_and(|extension| extension == "sources" || extension == "list")
    });
    files.sort();
    let single = directory.join("sources.list");
    if single.is_file() {
        files.insert(0, single);
    }
    Ok(files)
}

/// The first stanza (sources.list(5), deb822 style) that has `main` of `suite`, with `suites` and `component` in
/// their places: the same archive and the same key.
fn stanza_with(text: &str, suite: &str, suites: &[&str], component: &str) -> Option<String> {
    let stanza = text.split("\n\n").find(|stanza| {
        words(stanza, "Types:").contains(&"deb")
            && words(stanza, "Suites:").contains(&suite)
            && words(stanza, "Components:").contains(&"main")
    })?;
    let mut added = String::new();
    for line in stanza.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(':') {
            Some(("Components", _)) => added += &format!("Components: {component}"),
            Some(("Suites", _)) => added += &format!("Suites: {}", suites.join(" ")),
            _ => added += line,
        }
        added.push('\n');
    }
    Some(added)
}

fn words<'a>(stanza: &'a str, field: &str) -> Vec<&'a str> {
    let value = stanza.lines().find_map(|line| line.strip_prefix(field));
    value.unwrap_or_default().split_whitespace().collect()
}

/// The first line (sources.list(5), one-line style) that has `main` of `suite`, once for each of `suites`, with
/// `component` in the place of its components.
fn line_with(text: &str, suite: &str, suites: &[&str], component: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let (source, components) = line.split_once(&format!(" {suite} "))?;
        let is_main = source.starts_with("deb ") && components.split_whitespace().any(|word| word == "main");
        is_main.then(|| suites.iter().map(|suite| format!("{source} {suite} {component}\n")).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_and_none_is_none() {
        let policy = |version| format!("netperf:\n  Installed: (none)\n  Candidate: {version}\n");
        assert_eq!(candidate(&policy("2.7.0-0.1")), Some("2.7.0-0.1"));
        assert_eq!(candidate(&policy("(none)")), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn the_release_is_named_with_or_without_quotes() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n"), Some("trixie"));
        assert_eq!(codename("ID=arch\n"), None);
    }

    #[test]
    fn a_stanza_keeps_archive_and_key() {
        let text = "Types: deb\nURIs: http://archive.example/security\nSuites: bookworm-security\n\
                    Components: main\n\n\
                    Types: deb\n# a mirror\nURIs: http://archive.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/k.gpg\n";
        assert_eq!(
            stanza_with(text, "bookworm", &["bookworm", "trixie"], "non-free").as_deref(),
            Some(
                "Types: deb\nURIs: http://archive.example/debian\nSuites: bookworm trixie\nComponents: non-free\n\
                 Signed-By: /usr/share/keyrings/k.gpg\n"
            )
        );
        assert_eq!(stanza_with(text, "trixie", &["trixie"], "non-free"), None);
    }

    #[test]
    fn a_line_keeps_archive_and_key() {
        let text = "# deb http://archive.example/debian bookworm main\n\
                    deb http://archive.example/security bookworm-security main\n\
                    deb [signed-by=/k.gpg] http://archive.example/debian bookworm main contrib\n";
        assert_eq!(
            line_with(text, "bookworm", &["bookworm", "trixie"], "non-free").as_deref(),
            Some(
                "deb [signed-by=/k.gpg] http://archive.example/debian bookworm non-free\n\
                 deb [signed-by=/k.gpg] http://archive.example/debian trixie non-free\n"
            )
        );
        assert_eq!(
            line_with("deb-src http://archive.example/debian bookworm main", "bookworm", &["x"], "x"),
            None
        );
    }
}
