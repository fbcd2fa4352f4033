//! The commands other than `run`: they ask a daemon and print its answer, or do without one.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::{self, Config},
    control::{Request, answers, client::Client},
    daemon::{self, InUse, Lock},
    kernel::{netlink::Netlink, pins::Pins},
    log, show,
};

/// How long `detach` waits for a daemon that is starting or ending.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, and prints the answer as JSON or as text.
///
/// # Errors
///
/// Where no daemon answers, or it answers with an error.
pub fn ask<T: DeserializeOwned + Serialize>(
    client: &Client,
    json: bool,
    request: &Request,
    text: impl FnOnce(&T) -> String,
) -> Result<()> {
    let answer: T = client.ask(request)?;
    print(json, &answer, text)
}

/// Prints an answer as JSON or as text.
pub(crate) fn print<T: Serialize>(json: bool, answer: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
    let output = if json { serde_json::to_string_pretty(answer)? + "\n" } else { text(answer) };
    match std::io::stdout().write_all(log::plain(&output).as_bytes()) {
        // `dataplane route list | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the answer"),
    }
}

/// `dataplane bgp peers`.
///
/// # Errors
///
/// As [`ask`].
pub fn bgp_peers(client: &Client, json: bool) -> Result<()> {
    ask(client, json, &Request::BgpPeers, |list: &Vec<answers::BgpPeer>| show::bgp::peers(list))
}

/// `dataplane reload`.
///
/// # Errors
///
/// As [`ask`]; an invalid file is one.
pub fn reload(client: &Client, json: bool) -> Result<()> {
    ask(client, json, &Request::Reload, |warnings: &Vec<String>| {
        warnings.iter().map(|warning| format!("{warning}\n")).chain(["reloaded\n".to_owned()]).collect()
    })
}

/// What `dataplane check --json` prints.
#[derive(Debug, Serialize)]
pub struct CheckAnswer {
    valid: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// `dataplane check`: whether the file is valid and the kernel has what is needed.
///
/// # Errors
///
/// Where the answer cannot be printed; an invalid file is `Ok(false)`.
pub fn check(file: &Path, json: bool) -> Result<bool> {
    let (mut errors, warnings) = match config::load(file) {
        Ok(loaded) => (Vec::new(), loaded.warnings),
        Err(failure) => (failure.errors, failure.warnings),
    };
    let kernel = crate::kernel::object::check();
    let mut messages: Vec<String> = errors.drain(..).map(|error| error.to_string()).collect();
    if let Err(error) = kernel {
        messages.push(format!("kernel: {error:#}"));
    }
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let valid = messages.is_empty();
    if json {
        print(true, &CheckAnswer { valid, errors: messages, warnings }, |_| String::new())?;
        return Ok(valid);
    }
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
    let lines: String =
        messages.into_iter().chain(warnings).map(|line| format!("{}\n", log::plain(&line))).collect();
    // Whether anybody reads it or not: the exit status says the same.
    let _ = std::io::stderr().write_all(lines.as_bytes());
    if valid {
        print(false, &(), |()| format!("{} is valid\n", file.display()))?;
    }
    Ok(valid)
}

/// What `dataplane detach --json` prints.
#[derive(Debug, Serialize)]
pub struct DetachAnswer {
    /// What is among the pins and none of this program's.
    left_alone: Vec<PathBuf>,
}

/// `dataplane detach`: by the daemon if it runs, else from the pins.
///
/// # Errors
///
/// Where something stays behind, with what and why.
pub async fn detach(config: &Config, timeout: Option<Duration>, json: bool) -> Result<()> {
    let left_alone = remove(config, timeout).await?;
    print(json, &DetachAnswer { left_alone }, |answer| {
        let left = answer.left_alone.iter();
        left.map(|path| format!("left alone, since it is none of this program's: {}\n", path.display()))
            .chain(["detached\n".to_owned()])
            .collect()
    })
}

async fn remove(config: &Config, timeout: Option<Duration>) -> Result<Vec<PathBuf>> {
    let state_dir = &config.node.state_dir;
    let (client, pins) = (Client::new(state_dir, timeout), Pins::new(&config.node.bpf_dir));
    let deadline = Instant::now() + PATIENCE;
    let mut left = Vec::new();
    loop {
        // The lock tells for certain whether a daemon runs; a socket may be what a killed one left.
        let error = match Lock::take(state_dir) {
            Ok(_lock) => {
                let claim = match pins.claim_existing() {
                    Ok(claim) => claim,
                    Err(error) => {
                        daemon::remove_lock(state_dir)?;
                        return Err(error);
                    }
                };
                let (netlink, _events) = Netlink::connect().context("cannot open netlink")?;
                left.append(&mut daemon::remove_everything(&pins, &netlink).await?);
                drop(claim);
                left.sort();
                left.dedup();
                return daemon::remove_state(state_dir).map(|()| left);
            }
            Err(error) if error.is::<InUse>() => error,
            Err(error) => return Err(error),
        };
        // It answers when everything is removed, and then ends; the next turn finds it gone. One that is just
        // ending, or just starting, does not answer: it is waited for.
        let asked = client.ask::<Vec<PathBuf>>(&Request::Detach);
        if Instant::now() > deadline {
            return Err(asked.err().unwrap_or(error));
        }
        match asked {
            Ok(mut more) => left.append(&mut more),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
