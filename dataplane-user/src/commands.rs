//! The commands other than `run`: they ask a daemon and print its answer, or do without one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::{self, Config},
    control::{Request, answers, client},
    daemon::{self, Lock},
    kernel::{netlink::Netlink, pins::Pins},
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
    state_dir: &Path,
    json: bool,
    request: &Request,
    text: impl FnOnce(&T) -> String,
) -> Result<()> {
    let answer: T = client::ask(state_dir, request)?;
    print(json, &answer, text)
}

fn print<T: Serialize>(json: bool, answer: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
    use std::io::Write as _;
    let output = if json { serde_json::to_string_pretty(answer)? + "\n" } else { text(answer) };
    match std::io::stdout().write_all(output.as_bytes()) {
        // `dataplane route list | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the answer"),
    }
}

/// `dataplane endpoint list`.
///
/// # Errors
///
/// As [`ask`].
pub fn endpoint_list(state_dir: &Path, json: bool) -> Result<()> {
    ask(state_dir, json, &Request::EndpointList, |list: &Vec<answers::Endpoint>| show::endpoints(list))
}

/// `dataplane route list`.
///
/// # Errors
///
/// As [`ask`].
pub fn route_list(state_dir: &Path, json: bool) -> Result<()> {
    ask(state_dir, json, &Request::RouteList, |list: &Vec<answers::Route>| show::routes(list))
}

/// `dataplane drops`.
///
/// # Errors
///
/// As [`ask`].
pub fn drops(state_dir: &Path, json: bool) -> Result<()> {
    ask(state_dir, json, &Request::Drops, |list: &Vec<answers::Count>| show::counts(list))
}

/// `dataplane bgp peers`.
///
/// # Errors
///
/// As [`ask`].
pub fn bgp_peers(state_dir: &Path, json: bool, verbose: bool) -> Result<()> {
    ask(state_dir, json, &Request::BgpPeers, |list: &Vec<answers::BgpPeer>| show::bgp::peers(list, verbose))
}

/// `dataplane bgp routes`, which may be a million: they are asked for and printed part by part.
///
/// # Errors
///
/// As [`ask`].
pub fn bgp_routes(state_dir: &Path, json: bool, refused: bool) -> Result<()> {
    let ask = |after| client::ask(state_dir, &Request::BgpRoutePage { refused, after });
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
pub fn reload(state_dir: &Path, json: bool) -> Result<()> {
    ask(state_dir, json, &Request::Reload, |warnings: &Vec<String>| {
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
    let (mut errors, warnings, ipsec) = match config::load(file) {
        Ok(loaded) => (Vec::new(), loaded.warnings, ipsec(&loaded.config)),
        Err(failure) => (failure.errors, failure.warnings, Ipsec::default()),
    };
    let kernel = crate::kernel::object::check();
    let mut messages: Vec<String> = errors.drain(..).map(|error| error.to_string()).collect();
    if let Err(error) = kernel {
        messages.push(format!("kernel: {error:#}"));
    }
    messages.extend(ipsec.complaint());
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).chain(ipsec.note()).collect();
    let valid = messages.is_empty();
    if json {
        print(true, &CheckAnswer { valid, errors: messages, warnings }, |_| String::new())?;
        return Ok(valid);
    }
    for message in messages {
        eprintln!("{message}");
    }
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    if valid {
        println!("{} is valid", file.display());
    }
    Ok(valid)
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
pub async fn detach(config: &Config) -> Result<()> {
    let state_dir = &config.node.state_dir;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The lock tells for certain whether a daemon runs; a socket may be what a killed one left.
        let error = match Lock::take(state_dir) {
            Ok(_lock) => {
                let (netlink, _events) = Netlink::connect().context("cannot open netlink")?;
                daemon::remove_everything(&Pins::new(&config.node.bpf_dir), &netlink).await?;
                return daemon::remove_state(state_dir);
            }
            Err(error) => error,
        };
        // It answers when everything is removed, and then ends; the next turn finds it gone. One that is just
        // ending, or just starting, does not answer: it is waited for.
        let asked = client::ask::<()>(state_dir, &Request::Detach);
        if Instant::now() > deadline {
            return Err(asked.err().unwrap_or(error));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
