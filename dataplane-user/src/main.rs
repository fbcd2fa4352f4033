//! `dataplane`: the command line of the library.
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody reads.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use dataplane::{
    cli::{BgpCommand, Cli, Command, EndpointCommand, FlowCommand, NatCommand, RouteCommand, Setup},
    commands,
    config::{self, AnySystem, Config, Failure, Netfilter, Places, RunningSystem, System},
    control::{BadFile, client::Client},
    daemon,
    kernel::{limits, pinned},
    log, manual, monitor, reads,
    trace::Probe,
};
use dataplane_common::reason::Class;

/// Exit status for a bad configuration file; clap exits with the same for bad usage.
const BAD_FILE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            log::complain(&limits::explain(format!("{error:#}")));
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
            return Ok(match commands::check(&config, json)? {
                commands::Checked::Valid => ExitCode::SUCCESS,
                commands::Checked::BadFile => ExitCode::from(BAD_FILE),
                commands::Checked::BadSystem => ExitCode::FAILURE,
            });
        }
        // Who reads JSON reads there how the node is.
        Command::Status => return commands::status(&client, json).map(|well| negative_unless(well || json)),
        Command::Endpoint(EndpointCommand::List) => reads::endpoint_list(&client, json)?,
        Command::Route(RouteCommand::List) => reads::route_list(&client, json)?,
        Command::Route(RouteCommand::Get { address }) => reads::route_get(&client, json, address)?,
        Command::Flow(FlowCommand::List { filter, limit }) => {
            reads::flow_list(&client, json, &filter.into(), limit)?;
        }
        Command::Flow(FlowCommand::Stats) => reads::flow_stats(&client, json)?,
        Command::Flow(FlowCommand::End(filter)) => reads::flow_end(&client, json, &filter.into())?,
        Command::Nat(NatCommand::List) => reads::nat_list(&client, json)?,
        Command::Nat(NatCommand::Stats) => reads::nat_stats(&client, json)?,
        Command::Drops => reads::drops(&client, json)?,
        Command::Monitor(arguments) => block_on(monitor::run(&arguments.into(), &asked, json))?,
        Command::Bgp(BgpCommand::Peers { verbose }) => commands::bgp_peers(&client, json, verbose)?,
        Command::Bgp(BgpCommand::Routes { refused }) => commands::bgp_routes(&client, json, refused)?,
        Command::Trace(arguments) => {
            let tells = arguments.exit_code;
            let probe = Probe::try_from(arguments).unwrap_or_else(|error| error.exit());
            let trace = block_on(async { reads::trace(&client, json, &probe).await })?;
            return Ok(negative_unless(!tells || trace.verdict != Class::Drop.name()));
        }
        Command::Reload => commands::reload(&client, json)?,
        Command::Detach(setup) => {
            let places = Places { state_dir, bpf_dir: setup.bpf_dir.clone() };
            // A password that is gone, for instance, must not keep the data path in place.
            block_on(commands::detach(&load_to_detach(&setup, &places)?, timeout, json))?;
        }
        Command::Completions { shell } => manual::completions(shell)?,
        Command::Manual { directory } => manual::write(&directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit status of a question that was answered: 1 for no.
fn negative_unless(yes: bool) -> ExitCode {
    if yes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The file's configuration, or the one without a file.
fn load(setup: &Setup, places: &Places, system: &dyn System) -> Result<Config> {
    let mut config = if setup.from_kernel && setup.bypass_netfilter {
        log::complain(
            "warning: --bypass-netfilter: packets that BPF carries pass no rule of iptables or nftables on this node: policy, services \
             and published ports do not hold for them",
        );
        Config::from_kernel(Netfilter::Bypass)
    } else if setup.from_kernel {
        Config::from_kernel(Netfilter::Respect)
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

/// The same to take it away: where the file is gone, or there never was one, the state directory says where the pins are.
fn load_to_detach(setup: &Setup, places: &Places) -> Result<Config> {
    if setup.from_kernel || setup.config.exists() {
        return load(setup, places, &AnySystem);
    }
    let mut config = Config::from_kernel(Netfilter::Respect);
    places.apply(&mut config);
    if places.bpf_dir.is_none() {
        config.node.bpf_dir = pinned::bpf_dir(&config.node.state_dir).with_context(|| {
            format!(
                "there is no file {}, and nothing says otherwise what to detach (--config FILE, or --from-kernel with \
                 the daemon's --state-dir and --bpf-dir)",
                setup.config.display()
            )
        })?;
    }
    Ok(config)
}

/// One thread does everything: the daemon waits nearly all the time.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
