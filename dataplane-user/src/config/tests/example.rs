//! Files that are right.

use std::path::PathBuf;

use dataplane_common::flow::state::State;

use super::{accepted, unmarked};
use crate::config::{
    Config, Datapath, Egress, Endpoint, HostPorts, KernelImport, Log, LogFormat, LogLevel, Masquerade,
    Metrics, Netfilter, Node, Route, RouteProtocol, TcAttach, UplinkHook,
};

/// What this version can do of the complete file.
const AVAILABLE: &str = r#"
[node]
name = "node001"
uplinks = ["eth0", "eth1"]
workload-prefix = "cali"
state-dir = "/run/dataplane"
bpf-dir = "/sys/fs/bpf/dataplane"

[datapath]
uplink-hook = "tc"
tc-attach = "clsact"
discover = false
kernel-routes = false
egress = "bpf"
netfilter = "bypass"
host-ports = "leave"
max-endpoints = 2_000
max-flows = 100_000
max-flows-per-source = 1000
max-routes = 0x1000

[[pool]]
cidr = "172.19.0.0/16"

[[block]]
cidr = "172.19.35.0/24"

[[endpoint]]
address = "172.19.35.2"
interface = "cali1"

[[endpoint]]
address = "172.19.35.3"
interface = "cali1"

[[route]]
to = "172.19.36.0/24"
via = "10.141.0.2"

[[route]]
to = "172.19.36.128/25"
via = "169.254.0.7"

[[masquerade]]
source = "172.19.0.0/16"
exclude = ["172.19.0.0/16", "10.141.0.0/16"]
interface = "eth1"
address = "192.168.200.172"
ports = "49152-65535"

[timeouts]
udp-replied-seconds = 90

[kernel]
import = true
table = 254
protocols = ["bird", "zebra", "static", "200"]

[metrics]
listen = "127.0.0.1:9477"

[log]
level = "debug"
format = "json"
"#;

/// More of it, in the words of the reference.
const BGP: &str = r#"
[bgp]
asn = 64512
router-id = "10.141.0.1"
listen = "10.141.0.1:179"
accept = ["172.19.0.0/16"]
graceful-restart-seconds = 120

[[bgp.peer]]
address = "10.141.0.2"
asn = 64512
port = 179
passive = false
password-file = "/etc/dataplane/bgp-secret"
ttl-security-hops = 1
hold-seconds = 90
max-prefixes = 100000
max-next-hops = 4096
allowas-in = 1

[datapath]
uplink-hook = "xdp"
"#;

fn prefix(text: &str) -> ipnet::Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn an_empty_file_takes_every_default() {
    let loaded = accepted("");
    assert_eq!(loaded.config, Config::default_node());
    assert!(loaded.warnings.is_empty());
    assert_eq!(accepted("# nothing\n[node]\n[datapath]\n[kernel]\n[log]\n").config, loaded.config);
    assert_eq!(accepted("pool = []\n").config, loaded.config);
}

#[test]
fn every_key_arrives() {
    let loaded = accepted(AVAILABLE);
    let expected = Config {
        node: Node {
            name: "node001".to_owned(),
            uplinks: Some(vec!["eth0".to_owned(), "eth1".to_owned()]),
            workload_prefix: "cali".to_owned(),
            state_dir: PathBuf::from("/run/dataplane"),
            bpf_dir: PathBuf::from("/sys/fs/bpf/dataplane"),
        },
        datapath: Datapath {
            uplink_hook: UplinkHook::Tc,
            tc_attach: TcAttach::Clsact,
            discover: false,
            kernel_routes: false,
            egress: Egress::Bpf,
            netfilter: Netfilter::Bypass,
            skip_mark: None,
            skip: Vec::new(),
            host_ports: HostPorts::Leave,
            max_endpoints: 2000,
            max_routes: 4096,
            max_flows: 100_000,
            max_flows_per_source: Some(1000),
        },
        pools: vec![prefix("172.19.0.0/16")],
        blocks: vec![prefix("172.19.35.0/24")],
        endpoints: vec![
            Endpoint { address: [172, 19, 35, 2].into(), interface: "cali1".to_owned() },
            Endpoint { address: [172, 19, 35, 3].into(), interface: "cali1".to_owned() },
        ],
        routes: vec![
            Route { to: prefix("172.19.36.0/24"), via: [10, 141, 0, 2].into() },
            Route { to: prefix("172.19.36.128/25"), via: [169, 254, 0, 7].into() },
        ],
        masquerade: vec![Masquerade {
            source: prefix("172.19.0.0/16"),
            exclude: vec![prefix("172.19.0.0/16"), prefix("10.141.0.0/16")],
            interface: Some("eth1".to_owned()),
            address: Some([192, 168, 200, 172].into()),
            ports: Some(49152..=65535),
        }],
        timeouts: loaded.config.timeouts,
        bgp: None,
        kernel: KernelImport {
            import: true,
            table: 254,
            protocols: Some(vec![
                RouteProtocol { name: "bird".to_owned(), number: 12 },
                RouteProtocol { name: "zebra".to_owned(), number: 11 },
                RouteProtocol { name: "static".to_owned(), number: 4 },
                RouteProtocol { name: "200".to_owned(), number: 200 },
            ]),
        },
        metrics: Metrics { listen: Some("127.0.0.1:9477".parse().unwrap()) },
        log: Log { level: LogLevel::Debug, format: LogFormat::Json },
    };
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.config.timeouts.seconds(State::UdpReplied), 90);
    assert_eq!(loaded.config.timeouts.seconds(State::UdpUnreplied), State::UdpUnreplied.default_timeout());
    assert!(loaded.warnings.is_empty());
}

#[test]
fn the_complete_file_is_right() {
    let warnings = accepted(include_str!("complete.toml")).warnings;
    let messages: Vec<_> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(messages, ["interface `eth1` is not among the uplinks"]);
}

/// The parts that later features find parsed.
mod parsed_ahead {
    use super::*;
    use crate::config::report::Report;
    use crate::config::{Draft, syntax};

    fn build(text: &str) -> Config {
        let mut report = Report::new(text);
        let tree = syntax::parse(text, &mut report);
        let draft = Draft::read(&tree, &mut report);
        assert_eq!(report.finish("node.toml"), Ok(Vec::new()));
        draft.build()
    }

    #[test]
    fn as_they_are_written() {
        let config = build(&unmarked(BGP).0);
        let bgp = config.bgp.unwrap();
        assert_eq!((bgp.asn, bgp.router_id), (64512, [10, 141, 0, 1].into()));
        assert_eq!(bgp.listen, Some("10.141.0.1:179".parse().unwrap()));
        assert_eq!(bgp.accept, [prefix("172.19.0.0/16")]);
        assert_eq!(bgp.graceful_restart_seconds, 120);
        let peer = &bgp.peers[0];
        assert_eq!((peer.address, peer.asn, peer.port), ([10, 141, 0, 2].into(), 64512, 179));
        assert_eq!(peer.ttl_security_hops, Some(1));
        assert_eq!((peer.passive, peer.hold_seconds, peer.max_prefixes), (false, 90, 100_000));
        assert_eq!((peer.max_next_hops, peer.allowas_in), (4096, 1));
        assert_eq!(peer.password_file, Some(PathBuf::from("/etc/dataplane/bgp-secret")));

        assert_eq!(config.datapath.uplink_hook, UplinkHook::Xdp);
    }

    #[test]
    fn and_with_the_pools_by_default() {
        let config = build(
            "[[pool]]\ncidr = \"172.19.0.0/16\"\n[[masquerade]]\nsource = \"172.19.0.0/17\"\n\
             [bgp]\nasn = 64512\nrouter-id = \"10.141.0.1\"\n[[bgp.peer]]\naddress = \"127.0.0.2\"\nasn = 1\n",
        );
        let (rule, bgp) = (&config.masquerade[0], config.bgp.unwrap());
        assert_eq!((&rule.exclude, &bgp.accept), (&config.pools, &config.pools));
        assert_eq!((&rule.interface, rule.address, &rule.ports), (&None, None, &None));
        assert_eq!((bgp.listen, bgp.graceful_restart_seconds), (None, 120));
        let peer = &bgp.peers[0];
        assert_eq!(
            (peer.port, peer.passive, peer.hold_seconds, peer.max_prefixes),
            (179, false, 90, 100_000)
        );
        assert_eq!((peer.max_next_hops, peer.allowas_in), (4096, 0));
        assert_eq!((&peer.password_file, peer.ttl_security_hops), (&None, None));
    }
}
