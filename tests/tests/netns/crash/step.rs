//! The steps of a program, and its end at one of them, by strace.

use std::{collections::BTreeMap, fmt, fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::harness::{
    daemon::{Daemon, place},
    eventually,
};

use crate::netns::network::PATIENCE;

/// System calls by which a program changes something outside of itself. Not every architecture has all of them.
const CALLS: &str = "bpf,sendto,sendmsg,write,ftruncate,?mkdir,mkdirat,?rename,renameat,renameat2,?unlink,unlinkat,?rmdir,?symlink,symlinkat";

/// One system call of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    call: String,
    /// Which of the calls of that name, from one on.
    number: usize,
    /// The command of `bpf()`.
    command: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}) number {}", self.call, self.command, self.number)
    }
}

/// The number at the beginning of a line of the log.
fn thread(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// The steps in a log of strace's: those of the first thread.
fn parse(log: &str) -> Vec<Step> {
    let first = thread(log);
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut steps = Vec::new();
    for line in log.lines().filter(|line| thread(line) == first) {
        let Some((call, rest)) = line.split_once('(') else { continue };
        let call = call.rsplit(' ').next().unwrap_or_default().to_owned();
        if call.is_empty() || !call.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            continue;
        }
        let command = if call == "bpf" { rest.split(',').next().unwrap_or_default() } else { "" };
        let number = numbers.entry(call.clone()).or_default();
        *number += 1;
        steps.push(Step { call, number: *number, command: command.to_owned() });
    }
    steps
}

/// So many steps of the sequence, in its order: the first ones of runs of the same, and most of them after the last
/// program was loaded, when everything has begun to change.
pub fn choose(steps: &[Step], count: usize) -> Vec<&Step> {
    let same = |one: &Step, other: &Step| (&one.call, &one.command) == (&other.call, &other.command);
    let begins = |(index, step): &(usize, &Step)| *index == 0 || !same(&steps[index - 1], step);
    let loaded = steps.iter().rposition(|step| step.command == "BPF_PROG_LOAD").unwrap_or(0);
    let (early, late): (Vec<_>, Vec<_>) =
        steps.iter().enumerate().filter(begins).partition(|(index, _)| *index < loaded);
    let late_count = late.len().min(count - count / 4);
    let mut chosen: Vec<&Step> = Vec::new();
    for (steps, count) in [(early, count - late_count), (late, late_count)] {
        let count = count.min(steps.len());
        chosen.extend((0..count).map(|index| steps[index * steps.len() / count].1));
    }
    chosen
}

/// A place for logs, and a program that stands for the daemon and runs it under strace.
pub struct Kills {
    directory: TempDir,
}

impl Kills {
    pub fn new() -> Result<Self> {
        let kills = Self { directory: tempfile::tempdir()? };
        let (log, options) = (kills.path("log"), kills.path("options"));
        // As a grandchild, so that the process that was started is the daemon.
        let script = format!(
            "#!/bin/sh\nexec strace -D -f -q -s 0 -o '{log}' -e 'trace={CALLS}' $(cat '{options}') '{}' \"$@\"\n",
            place::binary()?.display()
        );
        fs::write(kills.path("program"), script)?;
        fs::set_permissions(kills.path("program"), fs::Permissions::from_mode(0o755))?;
        Ok(kills)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// Does something with a daemon that strace is told to treat so.
    fn under<T>(
        &self,
        daemon: &mut Daemon,
        options: &str,
        work: impl FnOnce(&mut Daemon) -> Result<T>,
    ) -> Result<T> {
        fs::write(self.path("options"), options)?;
        daemon.use_binary(self.path("program").into());
        let result = work(daemon);
        daemon.use_binary(place::binary()?);
        result
    }

    /// The log, when the program has ended.
    fn log(&self) -> Result<String> {
        eventually(PATIENCE, || {
            let log = fs::read_to_string(self.path("log"))?;
            let ended = log.lines().any(|line| thread(line) == thread(&log) && line.contains(" +++ "));
            ensure!(ended, "the log has no end");
            Ok(log)
        })
    }

    fn was_killed(&self) -> Result<()> {
        let log = self.log()?;
        let end = log.lines().last().unwrap_or_default();
        ensure!(log.contains("+++ killed by SIGKILL +++"), "it ended by itself: {end}");
        Ok(())
    }

    /// The steps from the start of a daemon until it is ready; it is killed then.
    pub fn of_a_start(&self, daemon: &mut Daemon) -> Result<Vec<Step>> {
        self.under(daemon, "", |daemon| {
            daemon.launch()?;
            daemon.kill()
        })?;
        let log = self.log()?;
        let steps = parse(&log);
        ensure!(steps.iter().any(|step| step.command == "BPF_PROG_LOAD"), "no program was loaded: {log}");
        Ok(steps)
    }

    /// Starts a daemon that is killed at that step; one that does not come there is killed when it is ready.
    pub fn start(&self, daemon: &mut Daemon, step: &Step) -> Result<()> {
        self.under(daemon, &injection(step), |daemon| {
            if daemon.launch().is_ok() {
                // It may come to the step in this moment.
                let _ = daemon.kill();
            }
            Ok(())
        })?;
        self.was_killed()
    }

    /// The steps of a `dataplane detach` without a daemon.
    pub fn of_a_detach(&self, daemon: &mut Daemon) -> Result<Vec<Step>> {
        self.under(daemon, "", |daemon| daemon.detach())?;
        Ok(parse(&self.log()?))
    }

    /// Detaches, and is killed at that step.
    pub fn detach(&self, daemon: &mut Daemon, step: &Step) -> Result<()> {
        let detached = self.under(daemon, &injection(step), |daemon| Ok(daemon.detach()))?;
        ensure!(detached.is_err(), "it was not killed");
        self.was_killed()
    }

    /// The steps from SIGTERM to the end.
    pub fn of_an_end(&self, daemon: &mut Daemon) -> Result<Vec<Step>> {
        self.under(daemon, "", |daemon| {
            daemon.launch()?;
            daemon.stop()
        })?;
        let log = self.log()?;
        let (before, _) = log.split_once("--- SIGTERM").context("no SIGTERM in the log")?;
        Ok(parse(&log).split_off(parse(before).len()))
    }

    /// Starts a daemon, ends it, and kills it at that step of its end. How many steps it has made until then differs by
    /// one or two: says whether it came to that one.
    pub fn end(&self, daemon: &mut Daemon, step: &Step) -> Result<bool> {
        self.under(daemon, &injection(step), |daemon| {
            daemon.launch()?;
            Ok(daemon.stop().is_err())
        })
    }
}

fn injection(step: &Step) -> String {
    format!("-e inject={}:signal=SIGKILL:when={}", step.call, step.number)
}
