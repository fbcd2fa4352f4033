//! The daemon's own log, to standard error, and what else it says of itself.
//!
//! Nothing of this ends the daemon or holds it up: not a full disk, and not a reader that has gone or reads no more.

mod text;
mod writer;

use std::{
    io::{self, Write as _},
    sync::OnceLock,
    time::Duration,
};

use rustix::stdio;
use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, fmt, fmt::MakeWriter};

use crate::config::{Log, LogFormat};
pub use text::plain;
use writer::Writer;

/// How long the end waits for a reader.
const AT_THE_END: Duration = Duration::from_secs(1);

static STDERR: OnceLock<Writer> = OnceLock::new();
static STDOUT: OnceLock<Writer> = OnceLock::new();

/// Starts logging as configured; `RUST_LOG` goes before the configured level.
pub fn start(config: &Log) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(config.level.to_string()));
    let to = Lines { journal: is_journal() };
    let builder = fmt().with_env_filter(filter).with_writer(to).with_target(false).log_internal_errors(false);
    match config.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Whether standard error is the journal's socket (systemd.exec(5), `$JOURNAL_STREAM`), which reads a line's priority from
/// its beginning (sd-daemon(3)).
fn is_journal() -> bool {
    let Ok(stderr) = rustix::fs::fstat(stdio::stderr()) else { return false };
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Says on standard output that the daemon is ready.
pub fn ready() {
    let writer = STDOUT.get_or_init(|| Writer::start(io::stdout(), None));
    writer.write(b"ready\n".to_vec(), true);
}

/// Lines that were not written, because nobody took them.
pub fn lost() -> u64 {
    [&STDERR, &STDOUT].into_iter().filter_map(OnceLock::get).map(Writer::lost).sum()
}

/// Says on standard error why a command failed, or what is to be known beside its answer.
pub fn complain(message: &str) {
    let line = format!("dataplane: {}\n", plain(message));
    match STDERR.get() {
        Some(writer) => writer.write(line.into_bytes(), true),
        // Nobody is left to be told of a standard error that cannot be written.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Gives what is not written yet a last chance.
pub fn end() {
    for writer in [&STDERR, &STDOUT].into_iter().filter_map(OnceLock::get) {
        writer.flush(AT_THE_END);
    }
}

/// Makes writers of one event each.
struct Lines {
    journal: bool,
}

/// An event on its way.
struct Event {
    prefix: &'static str,
    /// Whether whoever looks at the log now must find it there.
    at_once: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event { prefix: "", at_once: true }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Event {
        let level = *event.level();
        let prefix = if self.journal { priority(level) } else { "" };
        Event { prefix, at_once: level <= Level::INFO }
    }
}

/// As sd-daemon(3) has them: `SD_ERR`, `SD_WARNING`, `SD_INFO` and `SD_DEBUG`.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

impl io::Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().map(|line| format!("{}{}\n", self.prefix, plain(line)));
        let on_loss = if self.prefix.is_empty() { "" } else { priority(Level::WARN) };
        let writer = STDERR.get_or_init(|| Writer::start(io::stderr(), Some(on_loss)));
        writer.write(lines.collect::<String>().into_bytes(), self.at_once);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
