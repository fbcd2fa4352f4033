//! The asking side.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use super::{Answer, BadFile, Request, socket};

/// How long an answer may take that is only read from the daemon's state.
const TO_READ: Duration = Duration::from_secs(2);

/// How long a change may take.
const TO_CHANGE: Duration = Duration::from_secs(30);

/// Asks the daemon of a state directory.
#[derive(Clone, Debug)]
pub struct Client {
    state_dir: PathBuf,
    timeout: Option<Duration>,
}

impl Client {
    /// A client that waits so long for each answer; by default two seconds, and thirty for a change.
    pub fn new(state_dir: &Path, timeout: Option<Duration>) -> Self {
        Self { state_dir: state_dir.to_owned(), timeout }
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Asks the daemon. A request that it has not begun when this gives up is not carried out any more.
    ///
    /// # Errors
    ///
    /// Where no daemon listens, it does not answer in time, or it answers with an error.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let path = socket(&self.state_dir);
        let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow!(
                "no daemon answers at {}: start `dataplane run`, or name its directory with --state-dir \
                 (what it attached keeps forwarding without it)",
                path.display()
            ),
            io::ErrorKind::PermissionDenied => {
                anyhow!("no permission to ask the daemon at {}: try as root", path.display())
            }
            _ => anyhow!("cannot connect to {}: {error}", path.display()),
        })?;
        let timeout = self.timeout.unwrap_or(if request.changes() { TO_CHANGE } else { TO_READ });
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.write_all(line.as_bytes()).map_err(|error| late(error, timeout, request))?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).map_err(|error| late(error, timeout, request))?;
        if answer.is_empty() {
            bail!("the daemon closed the connection without an answer: look at its log");
        }
        match serde_json::from_str(&answer).context("the daemon's answer is of another version")? {
            Answer::Ok(value) => {
                serde_json::from_value(value).context("the daemon's answer is of another version")
            }
            Answer::Error(message) => bail!("{message}"),
            Answer::BadFile(faults) => Err(BadFile(faults).into()),
        }
    }
}

/// An error of the connection, with what it means.
fn late(error: io::Error, timeout: Duration, request: &Request) -> anyhow::Error {
    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return anyhow!("the daemon closed the connection: {error}");
    }
    let unfinished = if request.changes() {
        "; if it has not begun with this, it does not any more; look at `dataplane status`"
    } else {
        ""
    };
    anyhow!(
        "the daemon did not answer within {} s: it is busy or hangs (its log tells; --timeout waits longer){unfinished}",
        timeout.as_secs_f64()
    )
}
