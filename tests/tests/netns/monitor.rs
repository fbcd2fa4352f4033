//! `dataplane monitor`: what is dropped or passed shows, as it happens.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use dataplane_common::{monitor::Monitors, names::MAP_MONITORS, stats::Hook};
use serde_json::Value;
use tests::harness::{Daemon, Process, Stream, eventually, traffic};

use super::{
    network::{Network, PATIENCE},
    require_root,
};

/// An address of node1's block that no container has.
const NOBODY: &str = "172.19.35.200";

/// Starts a monitor, and waits until it listens.
fn listen(daemon: &Daemon, options: &[&str]) -> Result<Process> {
    let monitor = daemon.spawn(&[&["monitor"], options].concat())?;
    monitor.wait_for_line(Stream::Stderr, |line| line.starts_with("listening"), PATIENCE)?;
    Ok(monitor)
}

/// Waits for a line of JSON that the predicate accepts.
fn shown(monitor: &Process, accepts: impl Fn(&Value) -> bool) -> Result<Value> {
    let parsed = |line: &str| serde_json::from_str::<Value>(line).ok();
    let line = monitor.wait_for_line(
        Stream::Stdout,
        |line| parsed(line).is_some_and(|value| accepts(&value)),
        PATIENCE,
    )?;
    parsed(&line).context("no JSON")
}

/// Whether the programs look for somebody to show packets to.
fn is_on(daemon: &Daemon) -> Result<bool> {
    let versions = std::fs::read_dir(daemon.bpf_dir())?.collect::<std::io::Result<Vec<_>>>()?;
    let [version] = &versions[..] else { anyhow::bail!("not one layout version: {versions:?}") };
    let map = Map::from_map_data(MapData::from_pin(version.path().join("maps").join(MAP_MONITORS))?)?;
    let monitors: Array<_, [u32; size_of::<Monitors>() / 4]> = map.try_into()?;
    // The first word is `until`.
    Ok(monitors.get(&0, 0)?[0] != 0)
}

/// Waits until the programs have found out that nobody listens, while packets are dropped.
fn await_off(network: &Network) -> Result<()> {
    eventually(PATIENCE, || {
        drop_one(network)?;
        ensure!(!is_on(&network.daemon1)?, "the switch is on");
        Ok(())
    })
}

fn drop_one(network: &Network) -> Result<()> {
    traffic::ping_with(&network.c1, NOBODY, 1, &["-W", "0.01"])?.none_answered()
}

#[test]
fn drops_and_passes_are_shown() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    assert!(!is_on(daemon1)?);
    let all = listen(daemon1, &["--json"])?;
    let drops = listen(daemon1, &["--drops"])?;
    let passes = listen(daemon1, &["--json", "--reason", "to-host", "--interface", "cali1"])?;
    traffic::ping(c1, c3.address, 1)?.all_answered()?;
    traffic::ping(c1, node1.address, 1)?.all_answered()?;
    drop_one(&network)?;

    let dropped = shown(&all, |line| line["reason"] == "no-endpoint")?;
    let expected = serde_json::json!({
        "event": "packet", "time": dropped["time"], "class": "drop", "reason": "no-endpoint",
        "hook": Hook::FromContainer.name(), "interface": "cali1", "length_bytes": 98, "segment_bytes": 0,
        "protocol": "icmp", "source": "172.19.35.2", "source_port": null, "destination": NOBODY,
        "destination_port": null, "detail": "echo request",
    });
    assert_eq!(dropped, expected);
    let time = dropped["time"].as_str().context("no time")?;
    ensure!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    let passed = shown(&all, |line| line["reason"] == "to-host")?;
    assert_eq!(
        (&passed["class"], &passed["destination"]),
        (&"pass".into(), &node1.address.to_string().into())
    );
    let mut same = shown(&passes, |_| true)?;
    same["time"] = passed["time"].clone(); // which each of them works out, to about a microsecond
    assert_eq!(same, passed);

    let line = drops.wait_for_line(Stream::Stdout, |_| true, PATIENCE)?;
    let text =
        "drop no-endpoint from-container cali1 icmp 172.19.35.2 > 172.19.35.200 (echo request), 98 bytes";
    ensure!(line.ends_with(text), "{line}");
    for monitor in [&all, &drops, &passes] {
        monitor.signal(libc::SIGINT)?;
        ensure!(monitor.wait(PATIENCE)?.success(), "{}", monitor.output(Stream::Stderr));
        ensure!(!monitor.output(Stream::Stdout).contains("172.19.36.2"), "what was forwarded is shown");
    }
    // They gave their places back: nothing has to be found out.
    assert!(!is_on(daemon1)?);
    Ok(())
}

#[test]
fn what_is_not_shown_is_said() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let monitor = listen(&network.daemon1, &["--json", "--limit", "1"])?;
    let text = listen(&network.daemon1, &["--limit", "1"])?;
    traffic::ping_with(&network.c1, NOBODY, 100, &["-i", "0", "-W", "0.01"])?.none_answered()?;
    let suppressed = shown(&monitor, |line| line["event"] == "suppressed")?;
    assert_eq!((&suppressed["class"], &suppressed["reason"]), (&"drop".into(), &"no-endpoint".into()));
    // Every packet is shown or counted, once each.
    eventually(PATIENCE, || {
        let output = monitor.output(Stream::Stdout);
        let lines = output.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let of_reason = lines.iter().filter(|line| line["reason"] == "no-endpoint");
        let count: u64 = of_reason.map(|line| line["packets"].as_u64().unwrap_or(1)).sum();
        ensure!(count == 100, "{count} of 100 packets: {output}");
        Ok(())
    })?;
    text.wait_for_line(Stream::Stdout, |line| line.ends_with("more, not shown"), PATIENCE)?;
    Ok(())
}

#[test]
fn a_killed_monitor_leaves_the_switch_off() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let monitor = listen(&network.daemon1, &["--drops"])?;
    assert!(is_on(&network.daemon1)?);
    monitor.kill();
    await_off(&network)?;
    // And the next one is served.
    let monitor = listen(&network.daemon1, &["--drops"])?;
    drop_one(&network)?;
    monitor.wait_for_line(Stream::Stdout, |line| line.contains(NOBODY), PATIENCE)?;
    Ok(())
}

#[test]
fn it_needs_no_daemon_and_outlives_one() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.kill()?;
    let monitor = listen(&network.daemon1, &["--drops"])?;
    drop_one(&network)?;
    monitor.wait_for_line(Stream::Stdout, |line| line.contains(NOBODY), PATIENCE)?;
    network.daemon1.launch()?;
    let before = monitor.output(Stream::Stdout).lines().count();
    drop_one(&network)?;
    eventually(PATIENCE, || {
        ensure!(
            monitor.output(Stream::Stdout).lines().count() > before,
            "nothing from the next daemon's programs"
        );
        Ok(())
    })?;
    network.daemon1.stop()?;
    network.daemon1.detach()?;
    let ended = monitor.wait(PATIENCE)?;
    let complaint = monitor.output(Stream::Stderr);
    ensure!(
        ended.code() == Some(1) && complaint.contains("the data path was detached"),
        "{ended}: {complaint}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_shown_is_refused() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let daemon = &network.daemon1;
    // Options, exit status, and what is said.
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--reason", "no-endpiont"], 2, "no-endpoint, malformed"),
        (&["--reason", "forwarded"], 2, "possible values"),
        (&["--interface", "cali9"], 1, "there is no interface cali9"),
        (&["--limit", "0"], 2, "--limit"),
        (&["--bpf-dir", "/sys/fs/bpf/no-such-one"], 1, "is pinned in /sys/fs/bpf/no-such-one"),
    ];
    for (options, code, said) in cases {
        let output = daemon.cli_output(&[&["monitor"], options].concat());
        ensure!(output.code() == Some(code) && output.stderr.contains(said), "{output:?}");
    }
    let monitors = (0..4).map(|_| listen(daemon, &[])).collect::<Result<Vec<_>>>()?;
    let output = daemon.cli_output(&["monitor"]);
    ensure!(output.code() == Some(1) && output.stderr.contains("end one of them"), "{output:?}");
    drop(monitors);
    // Killed, all four: their places are free when their leases have ended.
    eventually(Duration::from_secs(20), || listen(daemon, &[]).map(drop))
}
