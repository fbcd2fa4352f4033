//! The command line.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use clap::{
    Args, CommandFactory as _, Parser, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use clap_complete::Shell;
use dataplane_common::{
    flow::state::State,
    reason::{Class, Reason},
};
use ipnet::Ipv4Net;

use crate::{
    config,
    monitor::Options,
    reads::{By, Filter},
    trace::{Probe, Protocol, TcpFlag},
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
    /// Seconds to wait for the daemon's answer [default: 2, and 30 for `reload` and `detach`]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
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
    ///
    /// Exit status 1 where something is wrong, as where no daemon answers; with --json 0, and `health` says it.
    Status,
    /// The containers of this node
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// The routes as the data path holds them
    #[command(subcommand)]
    Route(RouteCommand),
    /// The connections that the data path knows
    #[command(subcommand)]
    Flow(FlowCommand),
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
    /// Simulate a packet: run the loaded program on it, and print each step
    Trace(TraceArgs),
    /// Make the daemon read its configuration file again; an invalid one changes nothing (exit status 2)
    Reload,
    /// Remove every hook, pin and route of this node's dataplane, whether or not the daemon runs
    ///
    /// Without a file, the state directory says where the pins are. What others pinned there stays.
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
    /// The kernel decides about each connection by its rules, and BPF carries those that are established (`netfilter =
    /// "respect"`).
    #[arg(long, conflicts_with = "config")]
    pub from_kernel: bool,
    /// With --from-kernel: BPF carries packets between containers at once, and no rule of iptables or nftables holds for them
    #[arg(long, requires = "from_kernel")]
    pub bypass_netfilter: bool,
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

/// Commands about flows.
#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// Every flow that lives: both tuples, state, what decided it, way out, age, packets and bytes
    List {
        /// Which ones
        #[command(flatten)]
        filter: FlowArgs,
        /// Print so many at most
        #[arg(long, value_name = "NUMBER")]
        limit: Option<u64>,
    },
    /// How full the table is, flows by state and by what decided them, and refusals by reason
    Stats,
    /// End flows, all of them where no option says which: the next packet of each is judged anew
    End(FlowArgs),
}

/// Which flows are meant: those with all that is given.
#[derive(Debug, Args)]
pub struct FlowArgs {
    /// Source of the first packet: an address, or a network
    #[arg(long, value_name = "ADDRESS[/LENGTH]", value_parser = parse_network)]
    pub source: Option<Ipv4Net>,
    /// Destination of the first packet, before any translation
    #[arg(long, value_name = "ADDRESS[/LENGTH]", value_parser = parse_network)]
    pub destination: Option<Ipv4Net>,
    /// Protocol
    #[arg(long, value_parser = ["tcp", "udp", "icmp"])]
    pub protocol: Option<String>,
    /// State
    #[arg(long, value_parser = state_parser())]
    pub state: Option<State>,
    /// What decided it
    #[arg(long)]
    pub by: Option<By>,
}

impl From<FlowArgs> for Filter {
    fn from(arguments: FlowArgs) -> Self {
        let FlowArgs { source, destination, protocol, state, by } = arguments;
        Self { source, destination, protocol, state, by }
    }
}

/// The states of flows that live, by name.
fn state_parser() -> impl TypedValueParser<Value = State> {
    let living = || State::ALL.iter().filter(|state| **state != State::Dead);
    PossibleValuesParser::new(living().map(|state| state.name())).try_map(move |name| {
        living().find(|state| state.name() == name).copied().ok_or("there is no such state")
    })
}

fn parse_network(text: &str) -> Result<Ipv4Net, String> {
    let address = text.parse::<Ipv4Addr>().map(Ipv4Net::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| "expected an IPv4 address, or ADDRESS/LENGTH, as in 172.19.35.0/24".to_owned())
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
    /// TCP flags of the packet, in place of a SYN: of FIN, SYN, RST, PSH, ACK, URG, ECE and CWR, separated by commas
    ///
    /// `ACK` is a packet in the middle of a connection, `SYN,ACK` the answer to a SYN.
    #[arg(
        long,
        value_name = "FLAG,…",
        value_enum,
        value_delimiter = ',',
        ignore_case = true,
        hide_possible_values = true
    )]
    pub flags: Option<Vec<TcpFlag>>,
    /// Exit with status 1 where the packet is dropped
    #[arg(long)]
    pub exit_code: bool,
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

impl TryFrom<TraceArgs> for Probe {
    type Error = clap::Error;

    fn try_from(arguments: TraceArgs) -> Result<Self, clap::Error> {
        if arguments.flags.is_some() && arguments.protocol != Protocol::Tcp {
            let mut command = Cli::command();
            command.build();
            let message = "--flags are those of TCP: the protocol must be tcp";
            let trace = command.find_subcommand("trace").cloned();
            return Err(trace.unwrap_or(command).error(ErrorKind::ArgumentConflict, message));
        }
        let (source, source_port) = arguments.source;
        let (destination, destination_port) = arguments.destination;
        Ok(Self {
            interface: arguments.interface,
            protocol: arguments.protocol,
            source,
            source_port: source_port.unwrap_or(40_000),
            destination,
            destination_port: destination_port.unwrap_or(80),
            tcp_flags: arguments.flags.unwrap_or_else(|| vec![TcpFlag::Syn]),
        })
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

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|timeout| !timeout.is_zero()).ok_or_else(|| "expected seconds, as in 5 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probe of a traced packet, or the error's text.
    fn probe(options: &[&str], protocol: &str) -> Result<Probe, String> {
        let line =
            [&["dataplane", "trace", "--in", "cali1"], options, &[protocol, "10.0.0.1:1", "10.0.0.2:2"]]
                .concat();
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Trace(arguments) = cli.command else { return Err("another command".to_owned()) };
        Probe::try_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_of_a_traced_packet() {
        let flags = |options: &[&str]| probe(options, "tcp").map(|probe| probe.tcp_flags);
        assert_eq!(flags(&[]), Ok(vec![TcpFlag::Syn]));
        assert_eq!(flags(&["--flags", "SYN,ACK"]), Ok(vec![TcpFlag::Syn, TcpFlag::Ack]));
        assert_eq!(flags(&["--flags", "fin,ack"]), Ok(vec![TcpFlag::Fin, TcpFlag::Ack]));
        let error = flags(&["--flags", "SYN,NAK"]).unwrap_err();
        assert!(
            error.contains("'NAK'") && error.contains("FIN, SYN, RST, PSH, ACK, URG, ECE, CWR"),
            "{error}"
        );
        let error = probe(&["--flags", "ACK"], "udp").unwrap_err();
        assert!(
            error.contains("the protocol must be tcp") && error.contains("Usage: dataplane trace"),
            "{error}"
        );
        assert!(probe(&[], "udp").is_ok());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_network_is_an_address_with_or_without_a_length() {
        assert_eq!(parse_network("10.0.0.1"), Ok(Ipv4Net::from(Ipv4Addr::new(10, 0, 0, 1))));
        assert!(parse_network("10.0.0.0/8").is_ok_and(|network| network.prefix_len() == 8));
        assert!(parse_network("10.0.0.0/33").is_err() && parse_network("host").is_err());
    }

    #[test]
    fn a_side_is_an_address_with_or_without_a_port() {
        assert_eq!(parse_side("10.0.0.1"), Ok(([10, 0, 0, 1].into(), None)));
        assert_eq!(parse_side("10.0.0.1:53"), Ok(([10, 0, 0, 1].into(), Some(53))));
        assert!(parse_side("10.0.0.1:").is_err());
        assert!(parse_side("host:80").is_err());
    }
}
