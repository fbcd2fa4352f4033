//! The daemon of one node, with its own configuration, state directory and pins.

pub mod config;
mod leftovers;
pub mod place;

use std::{
    fmt::Display,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use dataplane_common::{
    reason::{Class, Reason},
    stats::Hook,
};
use serde_json::Value;

use self::place::Directory;
pub use self::{config::Config, place::binary};
use super::{
    keep,
    netns::Namespace,
    process::{Output, Process, Stream, run},
    topology::{Node, parse},
};

/// How long a daemon may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a daemon may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running daemon; dropped, it is stopped and detached, what it left behind is a panic, and its log goes
/// to standard error, where the test runner shows it if the test failed.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    namespace: Arc<Namespace>,
    directory: Directory,
    bpf_dir: PathBuf,
    process: Option<Process>,
    /// With what options `--from-kernel` stands in place of a file.
    from_kernel: Option<Vec<String>>,
    finished: bool,
}

impl Daemon {
    /// Starts `dataplane run` on the node and waits until it is ready.
    ///
    /// # Errors
    /// If it does not say `ready` within ten seconds: with all that it wrote.
    pub fn start(node: &Node, config: &Config) -> Result<Self> {
        let mut daemon = Self::prepare(node, config)?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// Starts `dataplane run --from-kernel` on the node and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_from_kernel(node: &Node, options: &[&str]) -> Result<Self> {
        let mut daemon = Self::prepare(node, &Config::new())?;
        fs::remove_file(daemon.config_file())?;
        daemon.from_kernel = Some(options.iter().map(|option| (*option).to_owned()).collect());
        daemon.launch()?;
        Ok(daemon)
    }

    /// Writes the configuration and makes the directories, and starts nothing: for tests of commands that
    /// run without a daemon, and of daemons that must not start.
    ///
    /// # Errors
    /// If the directories or the file cannot be made.
    pub fn prepare(node: &Node, config: &Config) -> Result<Self> {
        Self::prepare_binary(node, config, place::binary()?)
    }

    /// As [`Self::prepare`], with another program than the one under test: the older one of an upgrade.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_binary(node: &Node, config: &Config, binary: PathBuf) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("dataplane-test-").tempdir()?;
        // The temporary name is unique on this machine, so the name made from it is, too.
        let unique = directory.path().file_name().context("a directory without a name")?;
        let bpf_dir = Path::new(place::BPF_ROOT).join(unique);
        Self::prepare_in(node, config, binary, Directory::Temporary(directory), bpf_dir)
    }

    /// As [`Self::prepare`], for a daemon that people will look at and that may be kept: its file and its
    /// `state-dir` are `directory`, which the caller makes and removes, and signals from the terminal go past it.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_at(
        node: &Node,
        config: &Config,
        binary: PathBuf,
        directory: &Path,
        bpf_dir: &Path,
    ) -> Result<Self> {
        Self::prepare_in(node, config, binary, Directory::Given(directory.to_owned()), bpf_dir.to_owned())
    }

    fn prepare_in(
        node: &Node,
        config: &Config,
        binary: PathBuf,
        directory: Directory,
        bpf_dir: PathBuf,
    ) -> Result<Self> {
        place::mount_bpf_file_system()?;
        let namespace = node.namespace();
        let daemon =
            Self { binary, namespace, directory, bpf_dir, process: None, from_kernel: None, finished: false };
        daemon.write_config(config)?;
        Ok(daemon)
    }

    /// Starts it on what is there, after [`Self::stop`], [`Self::kill`] or [`Self::prepare`].
    ///
    /// # Errors
    /// If it runs, or as [`Self::start`].
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the daemon runs");
        let mut command = self.set_up("run");
        if matches!(self.directory, Directory::Given(_)) {
            command.process_group(0);
        }
        let process = self.namespace.start(command)?;
        // One that is not ready is killed here; the error has all that it wrote.
        process
            .wait_for_line(Stream::Stdout, |line| line.trim() == "ready", START_LIMIT)
            .context("the daemon did not become ready")?;
        self.process = Some(process);
        Ok(())
    }

    /// From now on, commands and the next launch use that program: an upgrade.
    pub fn use_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// The file that the daemon reads.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("node.toml")
    }

    /// Its `state-dir`.
    pub fn state_dir(&self) -> PathBuf {
        match &self.directory {
            Directory::Temporary(directory) => directory.path().join("state"),
            Directory::Given(directory) => directory.clone(),
        }
    }

    /// Its `bpf-dir`.
    pub fn bpf_dir(&self) -> &Path {
        &self.bpf_dir
    }

    /// The process, while it runs: for its output, and signals.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Writes another configuration; the daemon takes it at [`Self::reload`] or [`Self::launch`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        let path = self.config_file();
        fs::write(&path, config.text(&self.state_dir(), &self.bpf_dir))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Runs `dataplane ARGUMENTS --state-dir DIR` on the node.
    pub fn cli_output(&self, arguments: &[&str]) -> Output {
        let state_dir = self.state_dir().to_string_lossy().into_owned();
        let options = ["--state-dir", &state_dir];
        run(self.command(&[arguments, &options].concat()), "")
    }

    /// Starts `dataplane ARGUMENTS --state-dir DIR` on the node, and leaves it running.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Process> {
        let state_dir = self.state_dir().to_string_lossy().into_owned();
        self.namespace.start(self.command(&[arguments, &["--state-dir", &state_dir]].concat()))
    }

    /// Runs a command whose output is JSON: `cli(&["status", "--json"])`.
    ///
    /// # Errors
    /// If it fails, with what it says, or if its output is not JSON.
    pub fn cli(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.cli_output(arguments).ok()?;
        serde_json::from_str(&text)
            .with_context(|| format!("{arguments:?} printed {text:?}, which is no JSON"))
    }

    /// Runs `dataplane reload`.
    ///
    /// # Errors
    /// If the daemon refuses the file.
    pub fn reload(&self) -> Result<()> {
        self.cli_output(&["reload"]).ok().map(drop)
    }

    /// Packets that the data path dropped or passed to the kernel at that hook for that reason.
    ///
    /// # Errors
    /// If the daemon does not tell.
    pub fn drops(&self, hook: Hook, reason: Reason) -> Result<u64> {
        let drops = self.cli(&["drops", "--json"])?;
        let at = |hook: Hook| count(&drops, hook.name(), None, reason.name());
        // What XDP drops, tc never sees; what it passes, tc counts.
        let before = hook == Hook::FromUplink && reason.class() == Class::Drop;
        Ok(at(hook) + if before { at(Hook::XdpFromUplink) } else { 0 })
    }

    /// The route that a packet to `address` would take, as `dataplane route get` shows it.
    ///
    /// # Errors
    /// If the daemon does not tell.
    pub fn route_get(&self, address: impl Display) -> Result<Value> {
        self.cli(&["route", "get", &parse(address)?.to_string(), "--json"])
    }

    /// SIGTERM, and waits; the data path stays in place.
    ///
    /// # Errors
    /// If it does not end within ten seconds, or with a failure.
    pub fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { bail!("the daemon does not run") };
        process.signal(libc::SIGTERM)?;
        let status = process.wait(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "the daemon ended with {status}: {}",
            process.output(Stream::Stderr).trim()
        );
        Ok(())
    }

    /// SIGKILL, and waits; the data path stays in place.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { bail!("the daemon does not run") };
        let ended = process.exit_status()?;
        process.kill();
        ensure!(ended.is_none(), "the daemon had ended: {}", process.output(Stream::Stderr).trim());
        Ok(())
    }

    /// Runs `dataplane detach`.
    ///
    /// # Errors
    /// If it fails.
    pub fn detach(&self) -> Result<()> {
        run(self.set_up("detach"), "").ok().map(drop)
    }

    /// Does what the drop does, with an error in place of a panic, and without the log.
    ///
    /// # Errors
    /// If it did not stop or detach, or left something behind: all of it.
    pub fn finish(mut self) -> Result<()> {
        let complaints = self.clean_up();
        ensure!(complaints.is_empty(), "the daemon was not gone without trace:\n{}", complaints.join("\n"));
        Ok(())
    }

    /// What of the data path is on the node: pins, programs on interfaces, routes. Empty after a detach.
    ///
    /// # Errors
    /// If `ip` or `bpftool` does not tell.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        leftovers::find(&self.namespace, &self.bpf_dir)
    }

    /// A command that must be told what the node is to do.
    fn set_up(&self, command: &str) -> Command {
        let Some(options) = &self.from_kernel else {
            return self.command(&[command, "--config", &self.config_file().to_string_lossy()]);
        };
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (state_dir, bpf_dir) = (self.state_dir(), self.bpf_dir.to_string_lossy());
        let places = ["--state-dir", &state_dir.to_string_lossy(), "--bpf-dir", &bpf_dir];
        self.command(&[&[command, "--from-kernel"], &options[..], &places[..]].concat())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command([&self.binary]);
        command.args(arguments);
        command
    }

    /// Everything that the drop does, in its order; goes on after an error and tells all of them.
    fn clean_up(&mut self) -> Vec<String> {
        self.finished = true;
        if keep::requested() {
            return Vec::new();
        }
        let mut complaints = Vec::new();
        let mut note = |result: Result<()>| complaints.extend(result.err().map(|error| format!("{error:#}")));
        if self.process.is_some() {
            note(self.stop());
        }
        note(self.detach());
        match self.leftovers() {
            Ok(found) => complaints.extend(found.into_iter().map(|what| format!("left behind: {what}"))),
            Err(error) => complaints.push(format!("{error:#}")),
        }
        if let Err(error) = place::remove_pins(&self.bpf_dir) {
            complaints.push(format!("{error:#}"));
        }
        complaints
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if keep::requested() {
            self.directory.keep();
            return;
        }
        if self.finished {
            return;
        }
        if let Some(process) = &self.process {
            let log = [Stream::Stdout, Stream::Stderr].map(|stream| process.output(stream)).concat();
            eprintln!("the daemon's log:\n{log}");
        }
        let complaints = self.clean_up();
        if thread::panicking() {
            // The first failure is the one to read.
            complaints.iter().for_each(|complaint| eprintln!("after the failure: {complaint}"));
        } else {
            assert!(
                complaints.is_empty(),
                "the daemon was not gone without trace:\n{}",
                complaints.join("\n")
            );
        }
    }
}

/// Sums the member `packets` over all objects of that reason below that hook.
///
/// The hook may be a member of the same object or of one around it.
fn count(value: &Value, hook: &str, around: Option<&str>, reason: &str) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(|item| count(item, hook, around, reason)).sum(),
        Value::Object(members) => {
            let here = members.get("hook").and_then(Value::as_str).or(around);
            let matches = here == Some(hook) && members.get("reason").and_then(Value::as_str) == Some(reason);
            let own = members.get("packets").and_then(Value::as_u64).filter(|_| matches).unwrap_or(0);
            own + members.values().map(|member| count(member, hook, here, reason)).sum::<u64>()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_flat_and_nested_reports() {
        let flat = json!({"drops": [
            {"hook": "from-uplink", "reason": "no-endpoint", "packets": 3},
            {"hook": "from-container", "reason": "no-endpoint", "packets": 4},
        ]});
        let nested = json!([{"hook": "from-uplink", "reasons": [{"reason": "no-endpoint", "packets": 5}]}]);
        assert_eq!(count(&flat, "from-uplink", None, "no-endpoint"), 3);
        assert_eq!(count(&flat, "from-uplink", None, "malformed"), 0);
        assert_eq!(count(&nested, "from-uplink", None, "no-endpoint"), 5);
    }
}
