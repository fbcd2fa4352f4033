//! The host's ephemeral ports, and those that are reserved from them: two sysctls of the network namespace.
//!
//! `net.ipv4.ip_local_reserved_ports` is one list for everybody. What this daemon adds to it is noted in a file that
//! outlives the daemon, so that exactly that is taken away again.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::port_set::PortSet;

/// File in the state directory: the ports that were added, in a line as the kernel writes them. A second line is there
/// while one list takes the place of another.
pub const RESERVED_PORTS_FILE: &str = "reserved-ports";

/// Room for the longest list there can be: every other port.
const LONGEST_LIST: usize = 6 << 15;

/// Who has reserved what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Others than this daemon.
    pub others: PortSet,
    /// This daemon, or one before it with the same state directory.
    pub ours: PortSet,
}

/// The sysctls of the calling thread's namespace.
#[derive(Clone, Debug)]
pub struct PortSysctls {
    directory: PathBuf,
}

impl Default for PortSysctls {
    fn default() -> Self {
        // /proc/sys/net shows the namespace of the task that opens it (`net_ctl_root.lookup` in net/sysctl_net.c).
        Self { directory: "/proc/sys/net/ipv4".into() }
    }
}

impl PortSysctls {
    /// The ports from which the host takes those of its own connections.
    ///
    /// # Errors
    ///
    /// Where the sysctl cannot be read.
    pub fn ephemeral(&self) -> Result<RangeInclusive<u16>> {
        let path = self.directory.join("ip_local_port_range");
        let text = read(&path)?;
        parse_range(&text).with_context(|| format!("{} holds no range: {text:?}", path.display()))
    }

    /// The ports that it leaves out of them.
    ///
    /// # Errors
    ///
    /// Where the sysctl cannot be read.
    pub fn reserved(&self) -> Result<PortSet> {
        let path = self.list();
        let text = read(&path)?;
        PortSet::parse(&text).with_context(|| format!("{} holds no list: {text:?}", path.display()))
    }

    fn list(&self) -> PathBuf {
        self.directory.join("ip_local_reserved_ports")
    }
}

/// The list, and the note of what was added to it.
#[derive(Clone, Debug)]
pub struct ReservedPorts {
    sysctls: PortSysctls,
    note: PathBuf,
}

impl ReservedPorts {
    /// That of the calling thread's namespace, for the daemon with that state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { sysctls: PortSysctls::default(), note: state_dir.join(RESERVED_PORTS_FILE) }
    }

    /// What is reserved. Ours is what was noted, as long as all of it is there: else somebody has set another list, and
    /// that is theirs as a whole.
    ///
    /// # Errors
    ///
    /// Where the sysctl or the note cannot be read.
    pub fn read(&self) -> Result<Reserved> {
        let now = self.sysctls.reserved()?;
        // Of two lists, of which one was about to take the other's place, the longer one that is there is the one that
        // is: the shorter may be a part of it.
        let ours = self.noted()?.into_iter().filter(|ports| ports.is_subset(&now)).max_by_key(PortSet::len);
        let ours = ours.unwrap_or_default();
        Ok(Reserved { others: &now - &ours, ours })
    }

    /// Reserves these, and no longer those that were reserved by us before. What others have reserved stays. Says whether the
    /// list was changed.
    ///
    /// # Errors
    ///
    /// Where the sysctl or the note cannot be written: what was reserved is then as it was.
    pub fn set(&self, wanted: &PortSet) -> Result<bool> {
        let Reserved { others, ours } = self.read()?;
        let wanted = wanted - &others;
        if wanted == ours {
            // A note of a list that is gone would be taken for ours where somebody reserves the same ports.
            if self.noted()? != [ours.clone()] {
                self.write_note(&[&ours])?;
            }
            return Ok(false);
        }
        // Both are noted before the list changes: whichever it is when this is interrupted, it is known to be ours.
        self.write_note(&[&ours, &wanted])?;
        let path = self.sysctls.list();
        let written = fs::write(&path, format!("{}\n", &others | &wanted))
            .with_context(|| format!("cannot write {}", path.display()));
        self.write_note(&[if written.is_ok() { &wanted } else { &ours }])?;
        written.map(|()| true)
    }

    /// Takes away what was added, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub fn put_back(&self) -> Result<()> {
        let is_noted =
            fs::exists(&self.note).with_context(|| format!("cannot read {}", self.note.display()))?;
        if is_noted { self.set(&PortSet::new()).map(drop) } else { Ok(()) }
    }

    fn noted(&self) -> Result<Vec<PortSet>> {
        match fs::read_to_string(&self.note) {
            // What is no list is none of ours: a machine that lost its power may have written half of one.
            Ok(text) => Ok(text.lines().filter_map(PortSet::parse).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.note.display())),
        }
    }

    fn write_note(&self, lists: &[&PortSet]) -> Result<()> {
        if lists.iter().all(|list| list.is_empty()) {
            return remove(&self.note);
        }
        let text: String = lists.iter().map(|list| format!("{list}\n")).collect();
        // By renaming, so that a daemon that is killed leaves one or the other.
        let new = self.note.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.note));
        written.with_context(|| format!("cannot write {}", self.note.display()))
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Reads a sysctl by one system call: of a list, the kernel gives as much as there is room for, and then no more
/// (`proc_do_large_bitmap()` in kernel/sysctl.c).
fn read(path: &Path) -> Result<String> {
    let mut bytes = vec![0; LONGEST_LIST];
    let length = File::open(path)
        .and_then(|mut file| file.read(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    bytes.truncate(length);
    String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))
}

/// Two numbers with a tab between.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// Files in place of the sysctls.
    fn with(list: &str) -> (TempDir, ReservedPorts) {
        let place = tempfile::tempdir().unwrap();
        let sysctls = PortSysctls { directory: place.path().to_owned() };
        let ports = ReservedPorts { sysctls, note: place.path().join(RESERVED_PORTS_FILE) };
        fs::write(ports.sysctls.list(), format!("{list}\n")).unwrap();
        (place, ports)
    }

    fn ports(text: &str) -> PortSet {
        PortSet::parse(text).unwrap()
    }

    fn list(ports: &ReservedPorts) -> String {
        fs::read_to_string(ports.sysctls.list()).unwrap().trim().to_owned()
    }

    #[test]
    fn the_range_is_read_as_the_kernel_prints_it() {
        let (place, ports) = with("");
        fs::write(place.path().join("ip_local_port_range"), "32768\t60999\n").unwrap();
        assert_eq!(ports.sysctls.ephemeral().unwrap(), 32768..=60999);
        fs::write(place.path().join("ip_local_port_range"), "32768").unwrap();
        assert!(ports.sysctls.ephemeral().is_err());
    }

    #[test]
    fn only_what_was_added_is_taken_away() {
        let (_place, reserved) = with("8080,50000");
        reserved.set(&ports("40000-50000")).unwrap();
        assert_eq!(list(&reserved), "8080,40000-50000");
        // Somebody adds to the list.
        fs::write(reserved.sysctls.list(), "8080,9000,40000-50000").unwrap();
        assert_eq!(reserved.read().unwrap().others, ports("8080,9000,50000"));
        reserved.put_back().unwrap();
        assert_eq!(list(&reserved), "8080,9000,50000");
        assert!(!reserved.note.exists());
        reserved.put_back().unwrap();
    }

    #[test]
    fn another_list_is_somebody_else_s() {
        let (_place, reserved) = with("");
        reserved.set(&ports("40000-50000")).unwrap();
        // As `sysctl --system` does.
        fs::write(reserved.sysctls.list(), "8080,40000").unwrap();
        assert_eq!(reserved.read().unwrap(), Reserved { others: ports("8080,40000"), ours: PortSet::new() });
        reserved.set(&ports("40000-50000")).unwrap();
        assert_eq!(list(&reserved), "8080,40000-50000");
        reserved.put_back().unwrap();
        assert_eq!(list(&reserved), "8080,40000");
    }

    #[test]
    fn a_note_of_ports_that_are_not_reserved_any_more_goes() {
        let (_place, reserved) = with("");
        reserved.set(&ports("40000")).unwrap();
        fs::write(reserved.sysctls.list(), "8080").unwrap();
        reserved.put_back().unwrap();
        assert!(!reserved.note.exists());
        assert_eq!(list(&reserved), "8080");
    }

    proptest! {
        #[test]
        fn an_interrupted_change_is_undone_as_a_whole(
            others in prop::collection::btree_set(100..140_u16, 0..10),
            before in prop::collection::btree_set(100..140_u16, 0..20),
            after in prop::collection::btree_set(100..140_u16, 0..20),
            is_written in any::<bool>(),
        ) {
            let others: PortSet = others.into_iter().collect();
            let (before, after): (PortSet, PortSet) = (before.into_iter().collect(), after.into_iter().collect());
            let (_place, reserved) = with(&others.to_string());
            reserved.set(&before).unwrap();
            let (before, after) = (&before - &others, &after - &others);
            reserved.write_note(&[&before, &after]).unwrap();
            if is_written {
                fs::write(reserved.sysctls.list(), (&others | &after).to_string()).unwrap();
            }
            reserved.put_back().unwrap();
            prop_assert_eq!(list(&reserved), others.to_string());
            prop_assert!(!reserved.note.exists());
        }
    }
}
