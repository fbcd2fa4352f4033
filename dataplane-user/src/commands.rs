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
    kernel::{capabilities, limits, netlink::Netlink, pins::Pins},
    log,
    respect::rules,
    show,
    wanted::Ipsec,
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
pub fn bgp_peers(client: &Client, json: bool, verbose: bool) -> Result<()> {
    ask(client, json, &Request::BgpPeers, |list: &Vec<answers::BgpPeer>| show::bgp::peers(list, verbose))
}

/// `dataplane status`: whether nothing is wrong.
///
/// # Errors
///
/// As [`ask`].
pub fn status(client: &Client, json: bool) -> Result<bool> {
    let mut status: answers::Status = client.ask(&Request::Status)?;
    if let Some(respect) = &mut status.respect {
        // Read here: the daemon runs no programs.
        respect.every_packet = rules::wanting_every_packet().iter().map(ToString::to_string).collect();
    }
    print(json, &status, show::status)?;
    Ok(status.complaints.is_empty())
}

/// `dataplane bgp routes`, which may be a million: they are asked for and printed part by part.
///
/// # Errors
///
/// As [`ask`].
pub fn bgp_routes(client: &Client, json: bool, refused: bool) -> Result<()> {
    let ask = |after| client.ask(&Request::BgpRoutePage { refused, after });
    let output = std::io::BufWriter::new(std::io::stdout().lock());
    match show::bgp::Routes::new(ask).write(output, json) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

/// `dataplane bgp routes | head` is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let json = || error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    io.or_else(json) == Some(std::io::ErrorKind::BrokenPipe)
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

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Everything is as it must be.
    Valid,
    /// The file is not.
    BadFile,
    /// The file is, and the kernel, or what this process may do, is not.
    BadSystem,
}

/// `dataplane check`: whether the file is valid and the kernel has what is needed.
///
/// # Errors
///
/// Where the answer cannot be printed; an invalid file is none.
pub fn check(file: &Path, json: bool) -> Result<Checked> {
    let (errors, warnings, ipsec, respects) = match config::load(file) {
        Ok(loaded) => (Vec::new(), loaded.warnings, ipsec(&loaded.config), loaded.config.respects()),
        Err(failure) => (failure.errors, failure.warnings, Ipsec::default(), false),
    };
    let rules = if respects { rules::wanting_every_packet() } else { Vec::new() };
    let system = capabilities::check().and_then(|()| crate::kernel::object::check());
    let system = system.err().map(|error| limits::explain(format!("system: {error:#}")));
    let lacking: Vec<String> = system.into_iter().chain(ipsec.complaint()).collect();
    let checked = match (errors.is_empty(), lacking.is_empty()) {
        (false, _) => Checked::BadFile,
        (true, false) => Checked::BadSystem,
        (true, true) => Checked::Valid,
    };
    let errors: Vec<String> = errors.iter().map(ToString::to_string).chain(lacking).collect();
    let rules = rules.iter().map(|rule| format!("a rule does not see carried packets: {rule}"));
    let warnings: Vec<String> =
        warnings.iter().map(ToString::to_string).chain(ipsec.note()).chain(rules).collect();
    let valid = checked == Checked::Valid;
    if json {
        print(true, &CheckAnswer { valid, errors, warnings }, |_| String::new())?;
        return Ok(checked);
    }
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
    let lines: String =
        errors.into_iter().chain(warnings).map(|line| format!("{}\n", log::plain(&line))).collect();
    // Whether anybody reads it or not: the exit status says the same.
    let _ = std::io::stderr().write_all(lines.as_bytes());
    if checked == Checked::BadSystem {
        print(false, &(), |()| format!("{} is valid, and could not be used here\n", file.display()))?;
    } else if valid {
        print(false, &(), |()| format!("{} is valid\n", file.display()))?;
    }
    Ok(checked)
}

/// What `dataplane detach --json` prints.
#[derive(Debug, Serialize)]
pub struct DetachAnswer {
    /// What is among the pins and none of this program's.
    left_alone: Vec<PathBuf>,
}

/// What the IPsec policies of this network namespace mean for that configuration: nothing where this process may not ask.
fn ipsec(config: &Config) -> Ipsec {
    let ask = || -> Result<Ipsec> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (netlink, _events) = Netlink::connect()?;
            let (policies, mirror) = (netlink.ipsec_policies().await?, daemon::read_kernel(&netlink).await?);
            Ok(Ipsec::new(&policies, config, &mirror))
        })
    };
    ask().unwrap_or_else(|error| {
        tracing::debug!("IPsec policies cannot be read: {error:#}");
        Ipsec::default()
    })
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
