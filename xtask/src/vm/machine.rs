//! A machine of QEMU's that boots a kernel, runs a command and ends.
//!
//! Everything that it is given and gives goes by files without a name and by pipes: nothing is left of it. The kernel
//! kills it when this process ends, however that comes.

mod accelerator;
mod terminal;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context as _, Result, bail};

pub(crate) use accelerator::Accelerator;

use super::image::Image;
use super::kernel::Kernel;
use super::report::Report;
use crate::process;
use terminal::Terminal;

/// The name of the program.
const QEMU: &str = "qemu-system-x86_64";
/// For every kernel: its messages of importance on the first serial line, no waiting after a panic, and none of what
/// only costs time here.
const KERNEL_ARGUMENTS: &str = "console=ttyS0,115200 8250.nr_uarts=4 quiet panic=-1 oops=panic mitigations=off \
                                random.trust_cpu=on no_timer_check tsc=reliable";
/// How many lines of the console tell why a machine did not do what it should.
const LAST_LINES: usize = 20;
/// How often is looked whether the time is over.
const TICK: Duration = Duration::from_millis(200);

/// What the machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) accelerator: Accelerator,
    pub(crate) processors: u32,
    pub(crate) memory_mib: u32,
    /// After which it is stopped.
    pub(crate) limit: Duration,
}

/// Where the command's output goes.
pub(super) enum Output<'a> {
    /// Piece by piece to the caller; there is no input.
    To(&'a mut dyn FnMut(&[u8]) -> Result<()>),
    /// It has this process's terminal.
    Terminal,
}

impl Machine {
    /// Boots the kernel with the image, whose command then runs; gives what it reported, its status among it.
    ///
    /// # Errors
    /// If there is no QEMU, or the machine does not come to its end: with what it said last.
    pub(super) fn run(&self, kernel: &Kernel, image: &Image, output: Output) -> Result<Report> {
        let initial = tempfile::tempfile().context("cannot make a file for the image")?;
        image.write(&initial)?;
        let (console, report) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let interactive = matches!(output, Output::Terminal);
        let mut command = self.command(kernel, interactive, &initial, &console, &report);
        let _terminal = interactive.then(Terminal::save);
        let mut child = Guard(
            command
                .spawn()
                .with_context(|| format!("cannot start {QEMU}: `cargo xtask setup` installs it"))?,
        );
        let deadline = Instant::now() + self.limit;
        let ended = match output {
            Output::To(take) => pass(&mut child.0, deadline, take)?,
            Output::Terminal => wait(&mut child.0, deadline)?,
        };
        drop(child);
        let (report, console) = (Report::parse(&text(&report)?), text(&console)?);
        if report.status.is_some() {
            return Ok(report);
        }
        bail!("{}; {}", self.verdict(kernel, &report, ended), last_lines(&console))
    }

    /// Why there is no status.
    fn verdict(&self, kernel: &Kernel, report: &Report, ended: Ended) -> String {
        let Kernel { release, image, .. } = kernel;
        let seconds = self.limit.as_secs();
        match (ended, report.up) {
            (Ended::Stopped, true) => format!(
                "Linux {release} had not ended its command after {seconds} s and was stopped: --time-limit gives it longer"
            ),
            (Ended::Stopped, false) => format!(
                "Linux {release} ({}) had not reached user space after {seconds} s and was stopped",
                image.display()
            ),
            (Ended::Itself(reason), true) => {
                format!("Linux {release} ended before its command did, as after a panic{reason}")
            }
            (Ended::Itself(reason), false) => {
                format!("Linux {release} ({}) ended before it reached user space{reason}", image.display())
            }
        }
    }

    fn command(
        &self,
        kernel: &Kernel,
        interactive: bool,
        initial: &File,
        console: &File,
        report: &File,
    ) -> Command {
        let inherited = [initial, console, report].map(|file| file.as_raw_fd());
        let [initial, console, report] = inherited.map(|descriptor| format!("/proc/self/fd/{descriptor}"));
        let mut arguments = KERNEL_ARGUMENTS.to_owned();
        if interactive {
            arguments += " vm.shell";
        }
        let mut command = Command::new(process::find(QEMU).unwrap_or_else(|| QEMU.into()));
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-name", "dataplane"])
            .args(self.accelerator.arguments())
            .args(["-smp", &self.processors.to_string(), "-m", &self.memory_mib.to_string()])
            .args(["-kernel".as_ref(), kernel.image.as_os_str(), "-initrd".as_ref(), initial.as_ref()])
            .args(["-append", &arguments])
            .args(["-chardev", &format!("file,id=console,path={console}"), "-serial", "chardev:console"])
            .args(["-chardev", "stdio,id=command,signal=off", "-serial", "chardev:command"])
            .args(["-chardev", &format!("file,id=report,path={report}"), "-serial", "chardev:report"]);
        if !interactive {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        // SAFETY: between fork and exec only prctl(2) and fcntl(2) are called, which signal-safety(7) allows or which
        // are plain system calls; they touch no memory.
        unsafe { command.pre_exec(move || inherit(&inherited)) };
        command
    }
}

/// In the new process: it ends with its parent, and keeps these files open.
fn inherit(descriptors: &[RawFd]) -> io::Result<()> {
    // SAFETY: takes numbers alone.
    let mut failed = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0;
    for descriptor in descriptors {
        // SAFETY: takes numbers alone; clears FD_CLOEXEC, the only flag that there is.
        failed |= unsafe { libc::fcntl(*descriptor, libc::F_SETFD, 0) } != 0;
    }
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How QEMU ended.
enum Ended {
    /// By itself, and what it said.
    Itself(String),
    /// The time was over.
    Stopped,
}

/// Passes the output on until QEMU ends or the time is over.
fn pass(child: &mut Child, deadline: Instant, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Ended> {
    let mut output = child.stdout.take().context("QEMU has no standard output")?;
    let mut errors = child.stderr.take().context("QEMU has no standard error")?;
    let (sender, pieces) = mpsc::channel();
    thread::scope(|scope| {
        let complaints = scope.spawn(move || {
            let mut text = String::new();
            // Whatever was read until then is what there is.
            let _ = errors.read_to_string(&mut text);
            text
        });
        scope.spawn(move || {
            let mut piece = [0; 8192];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let passed = loop {
            match pieces.recv_timeout(TICK) {
                Ok(piece) => match take(&piece) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Err(RecvTimeoutError::Disconnected) => break wait(child, deadline),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= deadline {
                break Ok(Ended::Stopped);
            }
        };
        // Both threads end when QEMU's ends of the pipes are closed.
        if !matches!(passed, Ok(Ended::Itself(_))) {
            let _ = child.kill();
        }
        drop(pieces);
        let said = complaints.join().unwrap_or_default();
        passed.map(|ended| match ended {
            Ended::Itself(_) if !said.trim().is_empty() => {
                Ended::Itself(format!("; {QEMU} says: {}", said.trim()))
            }
            ended => ended,
        })
    })
}

fn wait(child: &mut Child, deadline: Instant) -> Result<Ended> {
    loop {
        if child.try_wait().context("cannot wait for QEMU")?.is_some() {
            return Ok(Ended::Itself(String::new()));
        }
        if Instant::now() >= deadline {
            return Ok(Ended::Stopped);
        }
        thread::sleep(TICK);
    }
}

/// Kills and waits for what still runs.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that another process writes by a descriptor of its own.
fn text(file: &File) -> Result<String> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "its console said nothing".to_owned();
    }
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("its console said last:\n  {}\n", last.join("\n  "))
}

/// The version of QEMU, in a line.
///
/// # Errors
/// If there is none.
pub(super) fn version() -> Result<String> {
    let Some(program) = process::find(QEMU) else {
        bail!("there is no {QEMU}: `cargo xtask setup` installs it");
    };
    let said = process::output(Command::new(program).arg("--version"))?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_the_console_are_shown() {
        let console: String = (0..100).map(|line| format!("line {line}\r\n\r\n")).collect();
        let said = last_lines(&console);
        assert!(said.contains("line 99") && said.contains("line 80") && !said.contains("line 79"), "{said}");
        assert_eq!(last_lines(" \r\n"), "its console said nothing");
    }
}
