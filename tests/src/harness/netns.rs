//! Network namespaces that `ip netns` and `nsenter` see, each with a guard.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    panic,
    process::Command,
    sync::{Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    keep, names,
    process::{Inner, Output, Process, run},
    wait::eventually,
};

/// Where `ip netns` keeps its mounts (ip-netns(8)).
pub const DIRECTORY: &str = "/run/netns";

/// A network namespace with `lo` up and IPv6 off; dropped, its processes are killed and it is deleted.
#[derive(Debug)]
pub struct Namespace {
    mount: Mount,
    file: File,
    processes: Mutex<Vec<Weak<Inner>>>,
}

impl Namespace {
    /// Makes a namespace; `purpose` is a word for people, and becomes a part of the unique name.
    ///
    /// # Errors
    /// If `ip netns add` fails: not root, in general.
    pub fn new(purpose: &str) -> Result<Self> {
        let namespace = Self::many(&[purpose])?.pop().context("no namespace was made")?;
        namespace.ip_batch("link set lo up\n")?;
        Ok(namespace)
    }

    /// Makes many with one process, all but for `lo`, which is still down.
    pub(super) fn many(purposes: &[&str]) -> Result<Vec<Self>> {
        let mounts: Vec<Mount> = purposes.iter().map(|purpose| Mount { name: names::of(purpose) }).collect();
        let lines: String = mounts.iter().map(|mount| format!("netns add {}\n", mount.name)).collect();
        ip_batch(&lines)?;
        mounts
            .into_iter()
            .map(|mount| {
                let path = mount.path();
                let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
                let namespace = Self { mount, file, processes: Mutex::default() };
                // Router solicitations and duplicate address detection would be packets that no test sent.
                namespace.sysctl_if_present("net.ipv6.conf.all.disable_ipv6", "1")?;
                Ok(namespace)
            })
            .collect()
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.mount.name
    }

    /// The path that `nsenter --net=` takes.
    pub fn path(&self) -> String {
        self.mount.path()
    }

    /// A command that will run in the namespace, to be given an environment or started.
    ///
    /// It enters the network alone: `ip netns exec` would hide the BPF file system behind a new /sys.
    pub fn command<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net={}", self.path())).arg("--").args(command);
        nsenter
    }

    /// Runs a command to its end; it is killed after a minute.
    pub fn run<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Output {
        run(self.command(command), "")
    }

    /// Runs a command to its end with `input` on its standard input (`nft -f -`, `iptables-restore`).
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        command: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Output {
        run(self.command(command), input)
    }

    /// Starts a command and leaves it running under a guard.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Result<Process> {
        self.start(self.command(command))
    }

    /// Starts what [`Self::command`] made, as [`Self::spawn`] does.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: Command) -> Result<Process> {
        let process = Process::start(command)?;
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.retain(|process| process.strong_count() > 0);
        processes.push(std::sync::Arc::downgrade(process.inner()));
        Ok(process)
    }

    /// Runs `ip` with arguments that have no spaces of their own, and gives its output.
    ///
    /// # Errors
    /// If `ip` fails, with what it says.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.run(std::iter::once("ip").chain(arguments.split_whitespace())).ok()
    }

    /// Runs many `ip` commands, one a line, in one process.
    ///
    /// # Errors
    /// At the first line that fails, which `ip` names by its number.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.enter(|| ip_batch(lines)).with_context(|| format!("in namespace {}", self.name()))
    }

    /// Waits until every link that is up and has a carrier sends.
    ///
    /// The kernel gives such a link its queue in a work item of its own (net/core/link_watch.c), which waits for the
    /// lock of all network configuration; what is sent before is dropped, and an ARP request is then not asked again
    /// for a second.
    ///
    /// # Errors
    /// If a link is not ready in ten seconds, with what `ip` says of it.
    pub fn await_links(&self) -> Result<()> {
        eventually(Duration::from_secs(10), || {
            let links = self.ip("-oneline link show up")?;
            let waiting =
                links.lines().find(|link| link.contains(" qdisc noop ") && link.contains("LOWER_UP"));
            ensure!(waiting.is_none(), "in namespace {}: {}", self.name(), waiting.unwrap_or_default());
            Ok(())
        })
    }

    /// Runs a closure in a thread of its own that is in the namespace; sockets made there stay there.
    ///
    /// Commands started by it are in the namespace, too. `/proc/net` belongs to the process and so to the
    /// outside: read `/proc/thread-self/net`.
    ///
    /// # Errors
    /// The closure's, or setns()'s.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the descriptor is open as long as `self`, and setns() touches no memory.
                let result = unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) };
                if result != 0 {
                    return Err(io::Error::last_os_error())
                        .with_context(|| format!("cannot enter namespace {}", self.name()));
                }
                work()
            });
            thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Sets a kernel parameter (`net.ipv4.ip_forward`).
    ///
    /// # Errors
    /// If it does not exist, or does not take the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that opens it (net/sysctl_net.c).
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}")))
    }

    fn sysctl_if_present(&self, key: &str, value: &str) -> Result<()> {
        match self.sysctl(key, value) {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other,
        }
    }

    /// The Ethernet address of an interface.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let link = self.link(interface)?;
        let text = link["address"].as_str().context("the link has no address")?;
        let octets: Vec<u8> =
            text.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>()?;
        octets.try_into().map_err(|_| anyhow::anyhow!("{text} is not an Ethernet address"))
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        Ok(u32::try_from(self.link(interface)?["ifindex"].as_u64().context("the link has no index")?)?)
    }

    fn link(&self, interface: &str) -> Result<serde_json::Value> {
        let text = self.ip(&format!("-j link show dev {interface}"))?;
        let mut links: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        ensure!(links.len() == 1, "{interface} names {} links", links.len());
        Ok(links.remove(0))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if keep::requested() {
            return;
        }
        let processes = self.processes.get_mut().unwrap_or_else(PoisonError::into_inner);
        for process in processes.iter().filter_map(Weak::upgrade) {
            process.kill();
        }
    }
}

/// The name in [`DIRECTORY`]; dropped, it is unmounted and removed as `ip netns delete` does.
#[derive(Debug)]
struct Mount {
    name: String,
}

impl Mount {
    fn path(&self) -> String {
        format!("{DIRECTORY}/{}", self.name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if keep::requested() {
            return;
        }
        let path = self.path();
        let Ok(c_path) = CString::new(path.as_str()) else { return };
        // SAFETY: the path is a C string that lives until after the call. It fails where the namespace was
        // never made; whether something is left over shows below.
        unsafe { libc::umount2(c_path.as_ptr(), libc::MNT_DETACH) };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("cannot remove {path}: {error}; `ip netns delete {}` does", self.name);
            }
            _ => {}
        }
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Runs `ip -batch -` in the namespace of the calling thread.
fn ip_batch(lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    run(command, lines).ok().map(drop).with_context(|| {
        let first: Vec<&str> = lines.lines().take(10).collect();
        format!("of {} lines, the first of which are: {}", lines.lines().count(), first.join(" / "))
    })
}
