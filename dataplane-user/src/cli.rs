//! The command line.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use clap_complete::Shell;
use dataplane_common::reason::{Class, Reason};

use crate::{
    config,
    monitor::Options,
    trace::{Probe, Protocol},
};

/// Carries containers' packets in BPF: the node daemon and its commands.
///
/// Errors go to standard error with exit status 1, or 2 for a bad configuration file or bad usage.
#[derive(Debug, Parser)]
#[command(name = "dataplane", version, max_term_width = 100)]
pub struct Cli {
    /// State directory of the daemon that is asked [default: /run/dataplane]; for `run` and `detach`, in
    /// place of the one in the file
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node daemon in the foreground; it prints `ready` when the data path is in step
    ///
    /// SIGTERM leaves programs and tables in place and forwarding; `dataplane detach` takes them away.
    /// SIGHUP reads the file again.
    Run(Setup),
    /// Check a configuration file: every error with its line, column and mend
    Check {
        /// Configuration file
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
        config: PathBuf,
    },
    /// The node, its hooks and tables, and what is wrong
    Status,
    /// The containers of this node
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// The routes as the data path holds them
    #[command(subcommand)]
    Route(RouteCommand),
    /// The translations of MASQUERADE
    #[command(subcommand)]
    Nat(NatCommand),
    /// Packets dropped or passed to the kernel, by hook and reason
    Drops,
    /// Packets dropped or passed to the kernel as it happens, one line each; works without a daemon, too
    Monitor(MonitorArgs),
    /// The BGP peers, and the routes that they announce
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// Run the loaded program on a packet and tell each step
    Trace(TraceArgs),
    /// Make the daemon read its configuration file again; an invalid one changes nothing (exit status 2)
    Reload,
    /// Remove every hook, pin and route of this node's dataplane, daemon or no daemon
    Detach(Setup),
    /// Print the completions of a shell, for its directory of them
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Manual {
        /// The directory
        directory: PathBuf,
    },
}

/// What a node is to do, and where its daemon's things are.
#[derive(Debug, Args)]
pub struct Setup {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    pub config: PathBuf,
    /// Read no file: carry what BIRD, FRR, Calico or flannel route by the kernel, and write nothing there
    ///
    /// Uplinks are the interfaces of the default routes, containers the routes `ADDRESS dev caliX scope link`,
    /// blocks of this node the blackhole routes, other nodes' blocks the routes by a router on an uplink.
    /// Whatever else containers send stays with the kernel and its rules.
    #[arg(long, conflicts_with = "config")]
    pub from_kernel: bool,
    /// Directory of the pinned maps and links, in place of the one in the file [default:
    /// /sys/fs/bpf/dataplane]
    #[arg(long, value_name = "DIR")]
    pub bpf_dir: Option<PathBuf>,
}

/// What a monitor shows.
#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// Show drops alone
    #[arg(long, conflicts_with = "reasons")]
    pub drops: bool,
    /// Show packets with this reason alone; may be given several times (`docs/reasons.md` has them all)
    #[arg(long = "reason", value_name = "NAME", value_parser = reason_parser(), hide_possible_values = true)]
    pub reasons: Vec<Reason>,
    /// Show packets that came in by this interface alone
    #[arg(long, value_name = "IFACE")]
    pub interface: Option<String>,
    /// Show IPv4 packets from or to this address alone
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<Ipv4Addr>,
    /// Show at most so many a second for each reason and CPU; what exceeds it is counted and told
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Directory of the pinned maps [default: where the daemon of the state directory has, or had, them]
    #[arg(long, value_name = "DIR")]
    pub bpf_dir: Option<PathBuf>,
}

impl From<MonitorArgs> for Options {
    fn from(arguments: MonitorArgs) -> Self {
        let MonitorArgs { drops, reasons, interface, address, limit, bpf_dir } = arguments;
        Self { drops, reasons, interface, address, limit, bpf_dir }
    }
}

/// The reasons that a monitor can show, by name.
fn reason_parser() -> impl TypedValueParser<Value = Reason> {
    let shown = || Reason::ALL.iter().filter(|reason| reason.class() != Class::Forward);
    PossibleValuesParser::new(shown().map(|reason| PossibleValue::new(reason.name()).help(reason.text())))
        .try_map(move |name| {
            shown().find(|reason| reason.name() == name).copied().ok_or("there is no such reason")
        })
}

/// Commands about endpoints.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// Address, interface, container MAC and source of each
    List,
}

/// Commands about routes.
#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Every route with its source
    List,
    /// The route that packets to an address take, as the programs find it
    Get {
        /// The address
        address: Ipv4Addr,
    },
}

/// Commands about BGP.
#[derive(Debug, Subcommand)]
pub enum BgpCommand {
    /// Each session: state, uptime, prefixes, and the reason for the last session down
    Peers {
        /// Also errors from before the session that is established
        #[arg(long)]
        verbose: bool,
    },
    /// What was learned, from whom, and what is announced
    Routes {
        /// Only what is refused, with the reason
        #[arg(long)]
        refused: bool,
    },
}

/// Commands about translations.
#[derive(Debug, Subcommand)]
pub enum NatCommand {
    /// Every translation that lives: original, translated, remote, state, age, bytes
    List,
    /// How full the table is, ports in use, and who was refused
    Stats,
}

/// A packet to be traced.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Interface by which the packet comes in
    #[arg(long = "in", value_name = "IFACE")]
    pub interface: String,
    /// Protocol
    #[arg(value_enum)]
    pub protocol: Protocol,
    /// Source address, with a port for udp and tcp
    #[arg(value_name = "SRC[:PORT]", value_parser = parse_side)]
    pub source: (Ipv4Addr, Option<u16>),
    /// Destination address, with a port for udp and tcp
    #[arg(value_name = "DST[:PORT]", value_parser = parse_side)]
    pub destination: (Ipv4Addr, Option<u16>),
}

impl From<TraceArgs> for Probe {
    fn from(arguments: TraceArgs) -> Self {
        let (source, source_port) = arguments.source;
        let (destination, destination_port) = arguments.destination;
        Self {
            interface: arguments.interface,
            protocol: arguments.protocol,
            source,
            source_port: source_port.unwrap_or(40_000),
            destination,
            destination_port: destination_port.unwrap_or(80),
        }
    }
}

fn parse_side(text: &str) -> Result<(Ipv4Addr, Option<u16>), String> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    match text.parse::<SocketAddrV4>() {
        Ok(side) => Ok((*side.ip(), Some(side.port()))),
        Err(_) => Err("expected an IPv4 address, or ADDRESS:PORT, as in 172.19.35.2:8080".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_side_is_an_address_with_or_without_a_port() {
        assert_eq!(parse_side("10.0.0.1"), Ok(([10, 0, 0, 1].into(), None)));
        assert_eq!(parse_side("10.0.0.1:53"), Ok(([10, 0, 0, 1].into(), Some(53))));
        assert!(parse_side("10.0.0.1:").is_err());
        assert!(parse_side("host:80").is_err());
    }
}
