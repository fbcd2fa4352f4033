//! The asking side.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use super::{Answer, BadFile, Request, socket};

/// Longer than any honest answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon of that state directory.
///
/// # Errors
///
/// Where no daemon listens, or it answers with an error.
pub fn ask<T: DeserializeOwned>(state_dir: &Path, request: &Request) -> Result<T> {
    let path = socket(state_dir);
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
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("the daemon closed the connection")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("the daemon did not answer")?;
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
