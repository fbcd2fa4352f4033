//! `dataplane`: the command line of the library.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use dataplane::{
    cli::{BgpCommand, Cli, Command, EndpointCommand, NatCommand, RouteCommand, Setup},
    commands,
    config::{self, AnySystem, Config, Failure, Places, RunningSystem, System},
    control::{BadFile, Request, answers},
    daemon, log, manual, monitor, show,
};

/// Exit status for a bad configuration file; clap exits with the same for bad usage.
const BAD_FILE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dataplane: {error:#}");
            let is_bad_file = error.is::<Failure>() || error.is::<BadFile>();
            ExitCode::from(if is_bad_file { BAD_FILE } else { 1 })
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let Cli { state_dir, json, command } = cli;
    let asked = state_dir.clone().unwrap_or_else(|| Config::default_node().node.state_dir);
    match command {
        Command::Run(setup) => {
            let places = Places { state_dir, bpf_dir: setup.bpf_dir.clone() };
            let config = load(&setup, &places, &RunningSystem)?;
            log::start(&config.log);
            let file = (!setup.from_kernel).then_some(setup.config);
            block_on(daemon::run(config, file, places))?;
        }
        Command::Check { config } => {
            let valid = commands::check(&config, json)?;
            return Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(BAD_FILE) });
        }
        Command::Status => commands::ask(&asked, json, &Request::Status, show::status)?,
        Command::Endpoint(EndpointCommand::List) => commands::endpoint_list(&asked, json)?,
        Command::Route(RouteCommand::List) => commands::route_list(&asked, json)?,
        Command::Route(RouteCommand::Get { address }) => {
            let request = Request::RouteGet { address };
            commands::ask(&asked, json, &request, |answer: &answers::RouteGet| show::route_get(answer))?;
        }
        Command::Nat(NatCommand::List) => commands::ask(&asked, json, &Request::NatList, show::nat::list)?,
        Command::Nat(NatCommand::Stats) => commands::ask(&asked, json, &Request::NatStats, show::nat::stats)?,
        Command::Drops => commands::drops(&asked, json)?,
        Command::Monitor(arguments) => block_on(monitor::run(&arguments.into(), &asked, json))?,
        Command::Bgp(BgpCommand::Peers { verbose }) => commands::bgp_peers(&asked, json, verbose)?,
        Command::Bgp(BgpCommand::Routes { refused }) => commands::bgp_routes(&asked, json, refused)?,
        Command::Trace(arguments) => {
            let request = Request::Trace(arguments.into());
            commands::ask(&asked, json, &request, show::trace)?;
        }
        Command::Reload => commands::reload(&asked, json)?,
        Command::Detach(setup) => {
            let places = Places { state_dir, bpf_dir: setup.bpf_dir.clone() };
            // A password that is gone, for instance, must not keep the data path in place.
            block_on(commands::detach(&load(&setup, &places, &AnySystem)?))?;
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
            eprintln!("dataplane: warning: {warning}");
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
