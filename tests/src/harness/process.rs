//! Commands: run to their end, or kept as a guard.

use std::{
    fmt,
    fs::File,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{keep, wait::eventually};

/// How long [`run`] lets a command run.
pub const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What came of a command that was run to its end.
#[derive(Debug)]
#[must_use = "a command may have failed: ask ok() or success()"]
pub struct Output {
    /// The command line.
    pub command: String,
    /// How it ended, or why it did not start or was stopped.
    pub status: Result<ExitStatus>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }

    /// The exit status; none if it did not start, was stopped, or died of a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.as_ref().ok().and_then(ExitStatus::code)
    }

    /// Its standard output.
    ///
    /// # Errors
    /// If it did not end with status 0: the command, how it ended, and its standard error.
    pub fn ok(self) -> Result<String> {
        let Self { command, status, stdout, stderr } = self;
        let status = status.with_context(|| format!("`{command}`, which had said: {}", stderr.trim()))?;
        if !status.success() {
            // Some commands (ping, ip -j) complain on their standard output.
            let said = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
            bail!("`{command}` ended with {status}: {said}");
        }
        Ok(stdout)
    }
}

/// A running command; dropped, it is killed and waited for.
///
/// Its outputs go to unnamed files rather than pipes: nobody has to drain them, a grandchild that holds
/// one open blocks nobody, and a process that is kept may go on writing.
#[derive(Debug)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    command: String,
    child: Mutex<Child>,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Starts a command with nothing on its standard input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: Command) -> Result<Self> {
        Self::start_with_input(command, "")
    }

    /// Starts a command with `input` on its standard input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with_input(mut command: Command, input: &str) -> Result<Self> {
        let stdout = tempfile::tempfile().context("cannot make a file for the output")?;
        let stderr = tempfile::tempfile().context("cannot make a file for the output")?;
        let stdin = if input.is_empty() {
            Stdio::null()
        } else {
            let mut file = tempfile::tempfile().context("cannot make a file for the input")?;
            file.write_all(input.as_bytes())?;
            file.seek(SeekFrom::Start(0))?;
            Stdio::from(file)
        };
        let line = display(&command);
        let child = command
            .stdin(stdin)
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self { inner: Arc::new(Inner { command: line, child: Mutex::new(child), stdout, stderr }) })
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.inner.child().id()
    }

    /// What it has written so far.
    pub fn output(&self, stream: Stream) -> String {
        self.inner.output(stream)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn exit_status(&self) -> Result<Option<ExitStatus>> {
        Ok(self.inner.child().try_wait()?)
    }

    /// Waits for a complete line on that stream, from its beginning, that the predicate accepts.
    ///
    /// # Errors
    /// If the time is over, or the process ends without it: with what it wrote.
    pub fn wait_for_line(
        &self,
        stream: Stream,
        predicate: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Result<String> {
        let mut ended = None;
        let found = eventually(timeout, || {
            // Asked before reading: what it wrote before it ended is then surely read.
            let status = self.exit_status()?;
            let text = self.output(stream);
            let complete = text.rfind('\n').map_or("", |end| &text[..end]);
            match complete.lines().find(|line| predicate(line)) {
                Some(line) => Ok(Some(line.to_owned())),
                None if status.is_some() => {
                    ended = status;
                    Ok(None)
                }
                None => bail!("no such line"),
            }
        });
        match found {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(anyhow!("it ended")),
            Err(error) => Err(error),
        }
        .with_context(|| {
            let ended = ended.map(|status| format!(" ({status})")).unwrap_or_default();
            format!(
                "`{}`{ended} did not write the line awaited; stdout: {:?}, stderr: {:?}",
                self.inner.command,
                self.output(Stream::Stdout),
                self.output(Stream::Stderr)
            )
        })
    }

    /// Sends a signal (`libc::SIGTERM`, ...) unless it has ended.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let mut child = self.inner.child();
        if child.try_wait()?.is_none() {
            let pid = i32::try_from(child.id())?;
            // SAFETY: kill() touches no memory. The child is not waited for yet (the lock is held), so
            // the number is still its own.
            if unsafe { libc::kill(pid, signal) } != 0 {
                return Err(std::io::Error::last_os_error())
                    .with_context(|| format!("cannot send signal {signal} to `{}`", self.inner.command));
            }
        }
        Ok(())
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If it still runs after `timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        eventually(timeout, || {
            self.exit_status()?.ok_or_else(|| anyhow!("`{}` still runs", self.inner.command))
        })
    }

    /// Kills it with SIGKILL and waits; nothing if it has ended.
    pub fn kill(&self) {
        self.inner.kill();
    }
}

impl Inner {
    fn child(&self) -> MutexGuard<'_, Child> {
        // A panic elsewhere must not keep a process from being killed.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self, stream: Stream) -> String {
        let file = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        // The child writes at the offset that this handle shares with it, so it must not be moved.
        let mut bytes = vec![0; file.metadata().map_or(0, |metadata| metadata.len() as usize)];
        let read = file.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    pub(super) fn kill(&self) {
        let mut child = self.child();
        // Both fail only if it has ended and was waited for.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !keep::requested() {
            self.kill();
        }
    }
}

/// Runs a command to its end, with `input` on its standard input; it is killed after [`RUN_LIMIT`].
pub fn run(command: Command, input: &str) -> Output {
    let line = display(&command);
    match Process::start_with_input(command, input) {
        Ok(process) => finish(&process),
        Err(error) => {
            Output { command: line, status: Err(error), stdout: String::new(), stderr: String::new() }
        }
    }
}

/// Waits for a process as [`run`] does, and gathers what it wrote.
pub fn finish(process: &Process) -> Output {
    let status = process.wait(RUN_LIMIT);
    if status.is_err() {
        process.kill();
    }
    Output {
        command: process.inner.command.clone(),
        status,
        stdout: process.output(Stream::Stdout),
        stderr: process.output(Stream::Stderr),
    }
}

fn display(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {})", self.inner.command, self.pid())
    }
}
