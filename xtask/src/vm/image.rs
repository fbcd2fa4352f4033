//! What the machine boots into: an initial file system in memory, made of this machine's own files.
//!
//! Programs and their libraries stand where they stand here, links included; what init and the commands need besides is
//! busybox's.

mod modules;
mod userland;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::kernel::Kernel;

/// Where busybox's own programs are: behind the real ones in PATH.
const BUSYBOX_PROGRAMS: &str = "/usr/lib/busybox";
/// Runs as the first process.
const INIT: &str = include_str!("image/init.sh");
/// The same for a fresh Debian, with what its systemd runs.
const DEBIAN: &str = include_str!("image/debian.sh");
const TRIAL: &str = include_str!("image/trial.sh");
const TRIAL_SERVICE: &str = include_str!("image/trial.service");
/// What `dataplane check` and a shell's `dataplane run` find: every feature of the file, with documentation addresses.
const NODE: &str = include_str!("image/node.toml");

/// The file system's contents, by absolute path.
#[derive(Default)]
pub(super) struct Image {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    Link(PathBuf),
    /// A file of this machine.
    File(PathBuf),
    Text {
        text: String,
        mode: u32,
    },
}

impl Image {
    /// What boots, runs the command and tells its status.
    pub(super) fn minimal(command: &str) -> Result<Self> {
        let mut image = Self::base(INIT)?;
        image.text("/command", 0o755, command);
        Ok(image)
    }

    /// What boots a fresh Debian, of which `root` is an archive, and tries the package there.
    pub(super) fn debian(kernel: &Kernel, root: &Path, package: &Path) -> Result<Self> {
        let mut image = Self::base(DEBIAN)?;
        image.file("/debian.tar", root);
        image.file("/dataplane.deb", package);
        image.text("/trial.sh", 0o755, TRIAL);
        image.text("/trial.service", 0o644, TRIAL_SERVICE);
        modules::add(&mut image, kernel)?;
        Ok(image)
    }

    /// busybox, and that as the first process.
    fn base(init: &str) -> Result<Self> {
        let mut image = Self::default();
        for directory in ["/dev", "/proc", "/sys", "/run", "/tmp", BUSYBOX_PROGRAMS] {
            image.directory(Path::new(directory));
        }
        let busybox =
            crate::process::find("busybox").context("there is no busybox: run `cargo xtask setup`")?;
        let busybox =
            fs::canonicalize(&busybox).with_context(|| format!("cannot find {}", busybox.display()))?;
        image.file("/usr/bin/busybox", &busybox);
        for link in ["/bin", "/sbin", "/lib", "/lib64"] {
            image.entries.insert(link.into(), Entry::Link(format!("usr{link}").into()));
        }
        image.text("/init", 0o755, init);
        Ok(image)
    }

    /// The whole: also the programs that the tests call, the kernel's modules, and `dataplane`.
    pub(super) fn whole(kernel: &Kernel, command: &str, dataplane: &Path) -> Result<Self> {
        let mut image = Self::minimal(command)?;
        image.file("/usr/bin/dataplane", dataplane);
        image.text("/etc/dataplane/node.toml", 0o644, NODE);
        userland::add(&mut image)?;
        modules::add(&mut image, kernel)?;
        Ok(image)
    }

    /// A file of this machine's under another path.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, source: &Path) {
        self.put(path.as_ref(), Entry::File(source.to_owned()));
    }

    /// A file with this text.
    pub(super) fn text(&mut self, path: impl AsRef<Path>, mode: u32, text: impl Into<String>) {
        self.put(path.as_ref(), Entry::Text { text: text.into(), mode });
    }

    /// Completes it with the libraries that its programs ask for.
    pub(super) fn link(&mut self) -> Result<()> {
        userland::add_libraries(self)
    }

    /// Whether a command of that name would be found.
    pub(super) fn has(&self, program: &str) -> bool {
        if program.contains('/') {
            return self.entries.contains_key(&self.resolved(Path::new(program)));
        }
        let on_path = ["/usr/sbin", "/usr/bin"]
            .iter()
            .any(|directory| self.entries.contains_key(&Path::new(directory).join(program)));
        on_path
            || userland::busybox_programs().is_ok_and(|programs| programs.lines().any(|line| line == program))
    }

    /// Writes it as the kernel takes it (Documentation/driver-api/early-userspace/buffer-format.rst).
    pub(super) fn write(&self, file: &File) -> Result<()> {
        let mut archive = BufWriter::new(file);
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            entry
                .write(path, number, &mut archive)
                .with_context(|| format!("cannot write {} of the image", path.display()))?;
        }
        trailer(&mut archive)?;
        Ok(archive.flush()?)
    }

    /// This machine's file or directory under its own path, and every link on the way to it; nothing if it is not there.
    fn mirror(&mut self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let mut at = PathBuf::new();
        let mut rest = path.components();
        while let Some(component) = rest.next() {
            match component {
                // No link is on the way so far, so that this is the directory above.
                Component::ParentDir => drop(at.pop()),
                component => at.push(component),
            }
            let metadata =
                fs::symlink_metadata(&at).with_context(|| format!("cannot read {}", at.display()))?;
            if metadata.is_symlink() {
                let target = fs::read_link(&at)?;
                let mut leads = at.parent().unwrap_or(Path::new("/")).join(&target);
                // An empty rest would append a slash.
                leads.extend(rest);
                self.put(&at, Entry::Link(target));
                return self.mirror(&leads);
            }
            if metadata.is_file() {
                self.put(&at, Entry::File(at.clone()));
            } else if at.parent().is_some() {
                self.directory(&at);
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        let path = self.resolved(path);
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.entries.entry(path).or_insert(entry);
    }

    fn directory(&mut self, path: &Path) {
        for directory in path.ancestors().filter(|directory| directory.parent().is_some()) {
            self.entries.entry(directory.to_owned()).or_insert(Entry::Directory);
        }
    }

    /// The path without the links of the first level: `/sbin/ip` is `/usr/sbin/ip`.
    fn resolved(&self, path: &Path) -> PathBuf {
        let Ok(relative) = path.strip_prefix("/") else { return path.to_owned() };
        let mut components = relative.components();
        let Some(first) = components.next() else { return path.to_owned() };
        match self.entries.get(&Path::new("/").join(first)) {
            Some(Entry::Link(target)) if !components.as_path().as_os_str().is_empty() => {
                Path::new("/").join(target).join(components.as_path())
            }
            _ => path.to_owned(),
        }
    }

    /// The files of this machine that are in it.
    fn sources(&self) -> impl Iterator<Item = &Path> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::File(source) => Some(source.as_path()),
            _ => None,
        })
    }
}

impl Entry {
    fn write(&self, path: &Path, number: u32, archive: &mut impl Write) -> Result<()> {
        let name = path.strip_prefix("/")?.to_str().context("the path is not UTF-8")?;
        let entry = |mode: u32, kind| Builder::new(name).ino(number).mode(mode).set_mode_file_type(kind);
        match self {
            Self::Directory => {
                entry(0o755, ModeFileType::Directory).write(archive, 0).finish()?;
            }
            Self::Link(target) => {
                let target = target.to_str().context("the link's target is not UTF-8")?;
                let size = u32::try_from(target.len())?;
                let mut writer = entry(0o777, ModeFileType::Symlink).write(archive, size);
                writer.write_all(target.as_bytes())?;
                writer.finish()?;
            }
            Self::File(source) => {
                let mut file =
                    File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
                let size = u32::try_from(file.metadata()?.len())?;
                let mut writer = entry(0o755, ModeFileType::Regular).write(archive, size);
                io::copy(&mut file, &mut writer)?;
                writer.finish()?;
            }
            Self::Text { text, mode } => {
                let mut writer =
                    entry(*mode, ModeFileType::Regular).write(archive, u32::try_from(text.len())?);
                writer.write_all(text.as_bytes())?;
                writer.finish()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(image: &Image) -> Vec<String> {
        let file = tempfile::tempfile().unwrap();
        image.write(&file).unwrap();
        let mut names = Vec::new();
        let mut at = file;
        std::io::Seek::rewind(&mut at).unwrap();
        let mut reader = BufReaderAt::new(at);
        while let Some(name) = reader.next() {
            names.push(name);
        }
        names
    }

    struct BufReaderAt(Option<File>);

    impl BufReaderAt {
        fn new(file: File) -> Self {
            Self(Some(file))
        }

        fn next(&mut self) -> Option<String> {
            let reader = cpio::newc::Reader::new(self.0.take()?).unwrap();
            let entry = reader.entry();
            let name = (!entry.is_trailer()).then(|| format!("{} {:o}", entry.name(), entry.mode()));
            self.0 = Some(reader.finish().unwrap());
            name
        }
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut image = Image::default();
        image.text("/a/b/c", 0o644, "text");
        image.text("/a/b-d", 0o755, "");
        image.entries.insert("/l".into(), Entry::Link("a/b".into()));
        assert_eq!(names(&image), ["a 40755", "a/b 40755", "a/b/c 100644", "a/b-d 100755", "l 120777"]);
    }

    #[test]
    fn a_program_is_mirrored_with_the_links_that_lead_to_it() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let root = directory.path().canonicalize()?;
        fs::create_dir_all(root.join("real/deep"))?;
        fs::write(root.join("real/deep/program"), "x")?;
        std::os::unix::fs::symlink("real", root.join("linked"))?;
        std::os::unix::fs::symlink("../linked/deep/program", root.join("real/alternative"))?;
        let mut image = Image::default();
        image.mirror(&root.join("real/alternative"))?;
        image.mirror(&root.join("nothing"))?;
        let entry = |path: &str| image.entries.get(&root.join(path));
        assert_eq!(entry("real/alternative"), Some(&Entry::Link("../linked/deep/program".into())));
        assert_eq!(entry("linked"), Some(&Entry::Link("real".into())));
        assert_eq!(entry("real/deep/program"), Some(&Entry::File(root.join("real/deep/program"))));
        assert_eq!(entry("nothing"), None);
        Ok(())
    }

    #[test]
    fn what_goes_below_a_link_goes_where_it_leads() {
        let mut image = Image::default();
        image.entries.insert("/lib".into(), Entry::Link("usr/lib".into()));
        image.text("/lib/modules/x", 0o644, "");
        assert!(image.entries.contains_key(Path::new("/usr/lib/modules/x")));
        assert!(image.has("/lib/modules/x") && !image.has("/lib/modules/y") && !image.has("no-such-program"));
    }
}
