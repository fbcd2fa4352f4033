//! The lists are read from the pinned maps: without a daemon, past one that hangs, and in the same memory for any table.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::harness::{Daemon, Node, daemon::place, eventually, process::run, topology::Fabric, traffic};

use super::{
    network::{Network, PATIENCE, base, used},
    require_root,
};

/// What each command answers, without what only the daemon knows.
fn answers(daemon: &Daemon, sources: bool) -> Result<Vec<Value>> {
    let commands: [&[&str]; 5] = [
        &["route", "list"],
        &["route", "get", "172.19.36.2"],
        &["endpoint", "list"],
        &["drops"],
        &["trace", "--in", "cali1", "icmp", "172.19.35.2", "172.19.36.2"],
    ];
    let answer = |command: &&[&str]| {
        let output = daemon.cli_output(&[command, &["--json"][..]].concat());
        let asks = ["route", "endpoint"].contains(&command[0]);
        ensure!(output.stderr.contains("are missing") == (asks && !sources), "{output:?}");
        let mut answer: Value = serde_json::from_str(&output.ok()?).context("no JSON")?;
        check_sources(&mut answer, sources)?;
        Ok(answer)
    };
    commands.iter().map(answer).collect()
}

/// Sees that each source is there or not, and takes it out.
fn check_sources(answer: &mut Value, there: bool) -> Result<()> {
    match answer {
        Value::Array(items) => items.iter_mut().try_for_each(|item| check_sources(item, there)),
        Value::Object(members) => {
            if let Some(source) = members.remove("source") {
                ensure!(source.is_string() == there, "source {source} in {members:?}");
            }
            members.values_mut().try_for_each(|member| check_sources(member, there))
        }
        _ => Ok(()),
    }
}

#[test]
fn a_killed_daemon_is_not_missed() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    traffic::ping_with(&network.c1, "172.19.35.200", 2, &["-W", "0.2"])?.none_answered()?;
    let before = answers(&network.daemon1, true)?;
    network.daemon1.kill()?;
    assert_eq!(answers(&network.daemon1, false)?, before);
    let text = network.daemon1.cli_output(&["endpoint", "list"]).ok()?;
    ensure!(text.lines().any(|line| line.contains("172.19.35.2 ") && line.ends_with('-')), "{text}");
    Ok(())
}

#[test]
fn a_daemon_that_hangs_holds_nobody_up() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, .. } = &network;
    let before = answers(daemon1, true)?;
    let process = daemon1.process().context("no daemon")?;
    process.signal(libc::SIGSTOP)?;
    let meanwhile = answers(daemon1, false);
    let status = daemon1.cli_output(&["status"]);
    process.signal(libc::SIGCONT)?;
    assert_eq!(meanwhile?, before);
    ensure!(status.code() == Some(1) && status.stderr.contains("did not answer within 2 s"), "{status:?}");
    Ok(())
}

#[test]
fn without_a_data_path_the_commands_say_so() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let daemon = Daemon::prepare(&node, &base())?;
    for command in
        [&["route", "list"][..], &["drops"], &["trace", "--in", "lo", "icmp", "127.0.0.1", "127.0.0.1"]]
    {
        let output = daemon.cli_output(command);
        ensure!(output.code() == Some(1) && output.stderr.contains("start `dataplane run`"), "{output:?}");
        ensure!(output.stdout.is_empty(), "{output:?}");
    }
    Ok(())
}

/// Ten thousand routes by the kernel.
struct Many {
    daemon: Daemon,
    node: Node,
    _fabric: Fabric,
}

const MANY: u64 = 20_000;

impl Many {
    fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let node = Node::new(&fabric, "node1", "10.141.0.1")?;
        let anything = tests::harness::Config::new().node("uplinks", r#"["eth0"]"#);
        let daemon = Daemon::start(&node, &anything.table("[kernel]\nimport = true"))?;
        let before = used(&daemon, "routes")?;
        let prefix =
            |number: u64| format!("{}.{}.{}.0/24", 60 + (number >> 16), number >> 8 & 255, number & 255);
        let lines: String =
            (0..MANY).map(|number| format!("route add {} via 10.141.0.2\n", prefix(number))).collect();
        node.ip_batch(&lines)?;
        eventually(PATIENCE, || {
            let now = used(&daemon, "routes")?;
            ensure!(now == before + MANY, "{now} routes, {before} before");
            Ok(())
        })?;
        Ok(Self { daemon, node, _fabric: fabric })
    }

    /// A command that may take that much memory of its own.
    fn limited(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.node.command(["prlimit", "--data=12582912"]);
        command.arg(place::binary()?).args(arguments).arg("--state-dir").arg(self.daemon.state_dir());
        Ok(command)
    }
}

#[test]
fn a_long_list_is_sorted_complete_and_takes_little_memory() -> Result<()> {
    require_root!();
    let many = Many::new()?;
    let text = run(many.limited(&["route", "list", "--json"])?, "").ok()?;
    let routes: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(routes.len() as u64 == used(&many.daemon, "routes")?, "{} routes", routes.len());
    let sources = routes.iter().filter(|route| route["source"] == "kernel").count();
    ensure!(sources == routes.len(), "only {sources} of {} have a source", routes.len());
    let key = |route: &Value| -> Result<([u8; 4], u8)> {
        let (address, length) =
            route["prefix"].as_str().and_then(|text| text.split_once('/')).context("no prefix")?;
        Ok((address.parse::<std::net::Ipv4Addr>()?.octets(), length.parse()?))
    };
    let keys = routes.iter().map(key).collect::<Result<Vec<_>>>()?;
    ensure!(keys.is_sorted_by(|one, other| one < other), "not in order");
    let lines = run(many.limited(&["route", "list"])?, "").ok()?.lines().count();
    ensure!(lines == routes.len() + 1, "{lines} lines");
    Ok(())
}

#[test]
fn a_reader_that_has_enough_is_no_error() -> Result<()> {
    require_root!();
    let many = Many::new()?;
    for json in [&[][..], &["--json"]] {
        let mut command = many.limited(&[&["route", "list"][..], json].concat())?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    }
    Ok(())
}
