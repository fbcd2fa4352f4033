//! `dataplane`: the command line of the library.
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody reads.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use dataplane::{
    cli::{BgpCommand, Cli, Command, EndpointCommand, NatCommand, RouteCommand, Setup},
    commands,
    config::{self, AnySystem, Config, Failure, Places, RunningSystem, System},
    control::{BadFile, Request, client::Client},
    daemon, log, manual, monitor, reads, show,
};

/// Exit status for a bad configuration file; clap exits with the same for bad usage.
const BAD_FILE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            log::complain(&format!("{error:#}"));
            let is_bad_file = error.is::<Failure>() || error.is::<BadFile>();
            ExitCode::from(if is_bad_file { BAD_FILE } else { 1 })
        }
    };
    log::end();
    code
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let Cli { state_dir, json, timeout, command } = cli;
    let asked = state_dir.clone().unwrap_or_else(|| Config::default_node().node.state_dir);
    let client = Client::new(&asked, timeout);
    match command {
        Command::Run(setup) => {
            let places = Places { state_dir, bpf_dir: setup.bpf_dir.clone() };
            block_on(async {
                let hangup = daemon::hangups()?;
                let config = load(&setup, &places, &RunningSystem)?;
                log::start(&config.log);
                let file = (!setup.from_kernel).then_some(setup.config);
                daemon::run(config, file, places, hangup).await
            })?;
        }
        Command::Check { config } => {
            let valid = commands::check(&config, json)?;
            return Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(BAD_FILE) });
        }
        Command::Status => commands::ask(&client, json, &Request::Status, show::status)?,
        Command::Endpoint(EndpointCommand::List) => reads::endpoint_list(&client, json)?,
        Command::Route(RouteCommand::List) => reads::route_list(&client, json)?,
        Command::Route(RouteCommand::Get { address }) => reads::route_get(&client, json, address)?,
        Command::Nat(NatCommand::List) => commands::ask(&client, json, &Request::NatList, show::nat::list)?,
        Command::Nat(NatCommand::Stats) => {
            commands::ask(&client, json, &Request::NatStats, show::nat::stats)?
        }
        Command::Drops => reads::drops(&client, json)?,
        Command::Monitor(arguments) => block_on(monitor::run(&arguments.into(), &asked, json))?,
        Command::Bgp(BgpCommand::Peers) => commands::bgp_peers(&client, json)?,
        Command::Bgp(BgpCommand::Routes { refused }) => {
            commands::ask(&client, json, &Request::BgpRoutes { refused }, show::bgp::routes)?;
        }
        Command::Trace(arguments) => {
            block_on(async { reads::trace(&client, json, &arguments.into()).await.map(drop) })?;
        }
        Command::Reload => commands::reload(&client, json)?,
        Command::Detach(setup) => {
            let places = Places { state_dir, bpf_dir: setup.bpf_dir.clone() };
            // A password that is gone, for instance, must not keep the data path in place.
            block_on(commands::detach(&load(&setup, &places, &AnySystem)?, timeout, json))?;
        }
        Command::Completions { shell } => manual::completions(shell)?,
        Command::Manual { directory } => manual::write(&directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The file's configuration, or the one without a file.
fn load(setup: &Setup, places: &Places, system: &dyn System) -> Result<Config> {
    let mut config = if setup.from_kernel {
        Config::from_kernel()
    } else {
        let loaded = config::load_for(&setup.config, system)?;
        for warning in &loaded.warnings {
            log::complain(&format!("warning: {warning}"));
        }
        loaded.config
    };
    places.apply(&mut config);
    Ok(config)
}

/// One thread does everything: the daemon waits nearly all the time.
fn block_on(future: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
