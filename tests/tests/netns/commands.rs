//! What the commands print: JSON with the documented members, and text for people.

use anyhow::{Context as _, Result, ensure};
use dataplane_common::reason::Reason;
use serde_json::Value;
use tests::harness::{Daemon, traffic};

use super::{
    network::{Network, forwarded},
    require_root,
};

/// Sees that an object has exactly these members: fewer break scripts, and more are not documented.
fn members(value: &Value, wanted: &[&str]) -> Result<()> {
    let mut found: Vec<&str> = value.as_object().context("no object")?.keys().map(String::as_str).collect();
    let mut wanted = wanted.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    ensure!(found == wanted, "the members are {found:?}, not {wanted:?}, in {value}");
    Ok(())
}

fn text(daemon: &Daemon, arguments: &[&str]) -> Result<String> {
    daemon.cli_output(arguments).ok()
}

#[test]
fn status_tells_of_the_node() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    traffic::ping(c1, c3.address, 1)?.all_answered()?;
    let status = daemon1.cli(&["status", "--json"])?;
    members(
        &status,
        &[
            "version",
            "node",
            "health",
            "complaints",
            "uptime_seconds",
            "pid",
            "config_file",
            "hooks",
            "import",
            "ipsec",
            "tables",
            "respect",
            "route_table_bytes",
            "peers",
            "packets",
            "packets_by_hook",
            "uplinks",
        ],
    )?;
    let pid = daemon1.process().context("no daemon")?.pid();
    assert_eq!((&status["pid"], &status["health"]), (&pid.into(), &"ok".into()));
    assert_eq!(status["config_file"], daemon1.config_file().display().to_string());
    for hook in status["hooks"].as_array().context("no hooks")? {
        members(hook, &["interface", "ifindex", "hook", "program", "program_id", "mode"])?;
        let interface = hook["interface"].as_str().context("no name")?;
        assert_eq!(hook["ifindex"], node1.ifindex(interface)?);
    }
    let tables = status["tables"].as_array().context("no tables")?;
    let names: Vec<_> = tables.iter().map(|table| table["table"].as_str()).collect();
    assert_eq!(names, [Some("routes"), Some("endpoints"), Some("next-hops")]);
    for table in tables {
        members(table, &["table", "used", "max"])?;
        assert!(table["used"].as_u64() <= table["max"].as_u64(), "{table}");
    }
    for packets in [&status["packets"], &status["packets_by_hook"]["from-container"]] {
        members(packets, &["forwarded", "passed", "dropped"])?;
    }
    members(&status["uplinks"][0], &["interface", "uplink_hook", "why"])?;
    let shown = text(daemon1, &["status"])?;
    for part in ["health ok", "cali1", "from-container", "from-uplink", "endpoints"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    Ok(())
}

#[test]
fn endpoints_and_routes_are_listed() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, .. } = &network;
    let endpoints = daemon1.cli(&["endpoint", "list", "--json"])?;
    let endpoints = endpoints.as_array().context("no list")?;
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        members(endpoint, &["address", "interface", "ifindex", "mac", "mtu_bytes", "source"])?;
    }
    let shown = text(daemon1, &["endpoint", "list"])?;
    let line = |address: &str| shown.lines().find(|line| line.contains(address)).context("no such line");
    assert!(line("172.19.35.2")?.contains("cali1") && line("172.19.35.2")?.ends_with("config"), "{shown}");
    assert!(line("172.19.35.3")?.contains("cali2") && line("172.19.35.3")?.ends_with("kernel"), "{shown}");

    let routes = daemon1.cli(&["route", "list", "--json"])?;
    let fields = ["prefix", "kind", "via", "interface", "reason", "source"];
    let shape = |prefix: &str| -> Result<[String; 3]> {
        let routes = routes.as_array().context("no list")?;
        let route = routes.iter().find(|route| route["prefix"] == prefix).context("no such route")?;
        members(route, &fields)?;
        Ok(["kind", "via", "source"].map(|field| route[field].as_str().unwrap_or("-").to_owned()))
    };
    assert_eq!(shape("172.19.35.0/24")?, ["block", "-", "config"]);
    assert_eq!(shape("172.19.36.0/26")?, ["next-hop", "10.141.0.2", "config"]);
    assert_eq!(shape("172.19.35.2/32")?, ["endpoint", "-", "config"]);
    assert_eq!(shape("172.19.35.3/32")?, ["endpoint", "-", "kernel"]);
    assert_eq!(shape("10.141.0.0/16")?, ["next-hop", "-", "kernel"]);
    assert_eq!(shape("10.141.0.1/32")?, ["kernel", "-", "kernel"]);
    assert!(text(daemon1, &["route", "list"])?.contains("172.19.36.0/26"));

    let cases = [
        (c1.address.to_string(), "172.19.35.2/32", "endpoint"),
        (c2.address.to_string(), "172.19.35.3/32", "endpoint"),
        ("172.19.35.77".to_owned(), "172.19.35.0/24", "block"),
        ("172.19.36.63".to_owned(), "172.19.36.0/26", "next-hop"),
        ("10.141.9.9".to_owned(), "10.141.0.0/16", "next-hop"),
        ("224.0.0.5".to_owned(), "224.0.0.0/4", "kernel"),
    ];
    for (address, prefix, kind) in cases {
        let answer = daemon1.route_get(&address)?;
        members(&answer, &["address", "route", "other_offers"])?;
        members(&answer["route"], &fields)?;
        assert_eq!(answer["address"], address);
        assert_eq!((&answer["route"]["prefix"], &answer["route"]["kind"]), (&prefix.into(), &kind.into()));
        assert!(text(daemon1, &["route", "get", &address])?.contains(prefix));
    }
    // Just outside the /26.
    assert!(daemon1.route_get("172.19.36.64")?["route"].is_null());
    Ok(())
}

#[test]
fn an_address_from_two_sources_shows_both() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, .. } = &network;
    daemon1.write_config(&super::network::config1().endpoint(c2.address, "cali2"))?;
    daemon1.reload()?;
    let answer = daemon1.route_get(c2.address)?;
    assert_eq!(answer["route"]["source"], "config");
    assert_eq!(answer["other_offers"][0]["source"], "kernel");
    network.ping_by_bpf(c1, c2.address)
}

#[test]
fn drops_are_counted_by_hook_and_reason() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    traffic::ping_with(c1, "172.19.35.200", 4, &["-W", "0.2"])?.none_answered()?;
    traffic::ping(c1, node1.address, 2)?.all_answered()?;
    traffic::ping(c1, c3.address, 2)?.all_answered()?;
    let drops = daemon1.cli(&["drops", "--json"])?;
    let lines = drops.as_array().context("no list")?;
    let find =
        |hook: &str, reason: &str| lines.iter().find(|line| line["hook"] == hook && line["reason"] == reason);
    for line in lines {
        members(line, &["hook", "reason", "class", "text", "packets", "bytes"])?;
        let reason = Reason::ALL.iter().find(|reason| line["reason"] == reason.name());
        let reason = reason.with_context(|| format!("no such reason: {line}"))?;
        assert_eq!((&line["class"], &line["text"]), (&reason.class().name().into(), &reason.text().into()));
        assert_ne!(line["class"], "forward");
    }
    let dropped = find("from-container", "no-endpoint").context("nothing dropped")?;
    // 98 bytes each: Ethernet, IPv4 and ICMP headers, and the 56 bytes of ping.
    assert_eq!((&dropped["packets"], &dropped["bytes"]), (&4.into(), &(4 * 98).into()));
    let passed = find("from-container", "to-host").context("nothing passed")?;
    assert_eq!((&passed["class"], &passed["packets"]), (&"pass".into(), &2.into()));
    let shown = text(daemon1, &["drops"])?;
    assert!(shown.contains("no-endpoint") && shown.contains("to-host"), "{shown}");
    Ok(())
}

#[test]
fn trace_says_what_would_happen() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, .. } = &network;
    let before = (forwarded(daemon1)?, daemon1.cli(&["drops", "--json"])?);
    // Interface, protocol, source, destination; verdict, reason, and what the steps mention.
    let cases = [
        ("cali1", "icmp", "172.19.35.2", "172.19.36.2", "forward", "forwarded", "10.141.0.2"),
        ("cali1", "tcp", "172.19.35.2:40000", "172.19.35.3:80", "forward", "delivered", "cali2"),
        ("cali2", "udp", "172.19.35.3:5353", "10.141.0.9:53", "forward", "forwarded", "on the link of eth0"),
        ("cali1", "udp", "172.19.35.2:5353", "172.19.35.99:53", "drop", "no-endpoint", "172.19.35.0/24"),
        ("cali1", "tcp", "172.19.35.3:1", "172.19.36.2:80", "drop", "spoofed-source", "cali2"),
        ("cali1", "icmp", "192.0.2.1", "172.19.36.2", "drop", "spoofed-source", "no route"),
        ("cali1", "icmp", "172.19.35.2", "10.141.0.1", "pass", "to-host", "10.141.0.1/32"),
        ("cali1", "tcp", "172.19.35.2:1", "192.0.2.1:80", "pass", "no-route", "no route"),
        ("eth0", "tcp", "10.141.0.2:1", "172.19.35.2:80", "forward", "delivered", "cali1"),
        ("eth0", "udp", "172.19.36.2:1", "172.19.35.98:53", "drop", "no-endpoint", "172.19.35.0/24"),
        ("eth0", "icmp", "172.19.36.2", "192.0.2.1", "pass", "not-local", "no route"),
    ];
    for (interface, protocol, source, destination, verdict, reason, mention) in cases {
        let arguments = ["trace", "--in", interface, protocol, source, destination];
        let trace = daemon1.cli(&[&arguments[..], &["--json"]].concat())?;
        members(&trace, &["hook", "interface", "steps", "verdict", "reason", "text", "flow"])?;
        assert_eq!((&trace["verdict"], &trace["reason"]), (&verdict.into(), &reason.into()), "{trace}");
        let hook = if interface == "eth0" { "from-uplink" } else { "from-container" };
        assert_eq!((&trace["hook"], &trace["interface"]), (&hook.into(), &interface.into()));
        let steps = trace["steps"].as_array().context("no steps")?;
        for step in steps {
            members(step, &["step", "text"])?;
        }
        assert_eq!((&steps[0]["step"], &steps[1]["step"]), (&"frame".into(), &"ipv4".into()), "{trace}");
        assert!(trace["steps"].to_string().contains(mention), "no {mention:?} in {trace}");
        let shown = text(daemon1, &arguments)?;
        assert!(shown.contains(mention) && shown.contains(reason), "{shown}");
    }
    // It is a question, not a packet: nothing is counted, and nothing is sent.
    assert_eq!((forwarded(daemon1)?, daemon1.cli(&["drops", "--json"])?), before);
    let output = daemon1.cli_output(&["trace", "--in", "lo", "icmp", "127.0.0.1", "127.0.0.1"]);
    assert!(output.code() == Some(1) && output.stderr.contains("dataplane status"), "{output:?}");
    network.ping_by_bpf(c1, c3.address)
}

#[test]
fn exit_statuses_are_for_scripts() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, .. } = &network;
    let code = |arguments: &[&str]| daemon1.cli_output(arguments).code();
    assert_eq!(code(&["status"]), Some(0));
    daemon1.write_config(&super::network::config1().route("60.0.0.0/24", "10.99.0.1"))?;
    daemon1.reload()?;
    assert_eq!((code(&["status"]), code(&["status", "--json"])), (Some(1), Some(0)));
    let dropped = ["trace", "--in", "cali1", "udp", "172.19.35.2:53", "172.19.35.99:53"];
    let forwarded = ["trace", "--in", "cali1", "udp", "172.19.35.2:53", "172.19.36.2:53"];
    for (arguments, plain, told) in [(&dropped, 0, 1), (&forwarded, 0, 0)] {
        assert_eq!(code(arguments), Some(plain));
        assert_eq!(code(&[&arguments[..], &["--exit-code"]].concat()), Some(told));
        assert_eq!(code(&[&arguments[..], &["--exit-code", "--json"]].concat()), Some(told));
    }
    Ok(())
}

#[test]
fn uptime_is_told_in_units() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let shown = text(&network.daemon1, &["status"])?;
    let up = shown.split(" up ").nth(1).and_then(|rest| rest.split(" ·").next()).context("no uptime")?;
    ensure!(up.ends_with('s') && !up.contains(" s"), "{up:?}");
    Ok(())
}

/// As nobody, and where few files may be open: the cause is named, and the file is not blamed.
#[test]
fn what_the_system_lacks_is_named() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, .. } = &network;
    let file = daemon1.config_file().to_string_lossy().into_owned();
    let binary = tests::harness::daemon::place::binary()?.to_string_lossy().into_owned();
    let unable = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let output = node1.run([&unable[..], &[&binary, "check", "--config", &file]].concat());
    ensure!(output.code() == Some(1) && output.stderr.contains("this process lacks CAP_BPF"), "{output:?}");
    ensure!(output.stderr.lines().count() == 1, "{output:?}");
    let few = ["prlimit", "--nofile=12:12"];
    let output = node1.run([&few[..], &[&binary, "check", "--config", &file]].concat());
    ensure!(output.code() == Some(1) && output.stderr.contains("raise the limit"), "{output:?}");
    Ok(())
}
