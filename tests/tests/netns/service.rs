//! The daemon as the unit file starts it: with its capabilities and no others, and told of by `sd_notify`.

use std::{
    ffi::OsString,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{
    Process, Stream,
    daemon::{Daemon, place},
    eventually,
};

use super::{
    network::{Network, PATIENCE, await_endpoint, config1, forwarded},
    require_root,
};

const UNIT: &str = include_str!("../../../packaging/systemd/dataplane.service");

/// What the unit lets the daemon do.
fn capabilities() -> Vec<String> {
    let values = UNIT.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = values.flat_map(str::split_whitespace);
    names.filter_map(|name| name.strip_prefix("CAP_")).map(str::to_lowercase).collect()
}

/// Whether the manager starts the daemon again after such an end (systemd.service(5), "Exit causes and the effect of the
/// Restart= settings").
fn is_restarted(status: std::process::ExitStatus) -> Result<bool> {
    let value =
        |key: &str| UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).next_back();
    let prevented = value("RestartPreventExitStatus").unwrap_or_default();
    if status.code().is_some_and(|code| prevented.split(' ').any(|word| word == code.to_string())) {
        return Ok(false);
    }
    match value("Restart") {
        Some("always") => Ok(true),
        Some("on-failure") => Ok(!status.success()),
        other => anyhow::bail!("Restart={other:?} is not known here"),
    }
}

#[test]
fn a_detached_service_stays_detached() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    let process = start(&network, &capabilities(), None)?;
    await_ready(&process)?;
    // A crash is another matter.
    process.kill();
    ensure!(is_restarted(process.exit_status()?.context("it runs")?)?);
    let process = start(&network, &capabilities(), None)?;
    await_ready(&process)?;
    network.daemon1.detach()?;
    let status = process.wait(PATIENCE)?;
    ensure!(!is_restarted(status)?, "the manager would start it again after {status}");
    ensure!(network.daemon1.leftovers()?.is_empty(), "{:?}", network.daemon1.leftovers()?);
    Ok(())
}

/// What `ProtectKernelTunables` would do, which takes the BPF file system along.
#[test]
fn the_unit_keeps_the_kernel_s_switches_and_memory_to_itself() {
    for line in ["LimitCORE=0", "ReadWritePaths=/sys/fs/bpf /proc/sys/net"] {
        assert!(UNIT.lines().any(|found| found == line), "no {line} in the unit");
    }
    let read_only: Vec<&str> = UNIT.lines().filter_map(|line| line.strip_prefix("ReadOnlyPaths=")).collect();
    for path in ["/sys", "/proc/sys", "-/proc/irq", "-/proc/sysrq-trigger"] {
        assert!(read_only.iter().any(|paths| paths.split(' ').any(|found| found == path)), "no {path}");
    }
}

/// The manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(directory: &Path) -> Result<Self> {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path })
    }

    /// The next message that is no sign of life.
    fn next(&self) -> Result<String> {
        loop {
            let message = self.any()?;
            if message.trim() != "WATCHDOG=1" {
                return Ok(message);
            }
        }
    }

    fn any(&self) -> Result<String> {
        let mut buffer = [0; 1024];
        let length = self.socket.recv(&mut buffer).context("the daemon tells nothing")?;
        Ok(String::from_utf8(buffer[..length].to_vec())?)
    }
}

/// Starts a node's daemon with those capabilities, as the service manager does.
fn start(network: &Network, capabilities: &[String], manager: Option<&Manager>) -> Result<Process> {
    let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let mut words: Vec<OsString> =
        ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set"].map(Into::into).to_vec();
    words.push(format!("-all{set}").into());
    if let Some(manager) = manager {
        let mut socket = OsString::from("NOTIFY_SOCKET=");
        socket.push(&manager.path);
        words.extend(["env".into(), socket, "WATCHDOG_USEC=100000".into()]);
    }
    words.extend([place::binary()?.into(), "run".into(), "--config".into()]);
    words.push(network.daemon1.config_file().into());
    network.node1.spawn(words)
}

fn await_ready(process: &Process) -> Result<()> {
    process.wait_for_line(Stream::Stdout, |line| line == "ready", PATIENCE).map(drop)
}

fn fails(network: &Network, capabilities: &[String]) -> Result<String> {
    let process = start(network, capabilities, None)?;
    let status = process.wait(PATIENCE)?;
    ensure!(status.code() == Some(1), "{status}");
    Ok(process.output(Stream::Stderr))
}

fn hooks_are_known(daemon: &Daemon) -> Result<()> {
    let status = daemon.cli(&["status", "--json"])?;
    let hooks = status["hooks"].as_array().context("no hooks")?;
    ensure!(!hooks.is_empty() && hooks.iter().all(|hook| hook["program_id"].is_u64()), "{status}");
    ensure!(status["health"] == "ok", "{status}");
    Ok(())
}

#[test]
fn the_unit_s_capabilities_suffice() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    network.daemon1.detach()?;
    for hook in ["tc", "xdp"] {
        network.daemon1.write_config(&config1().datapath("uplink-hook", format!("\"{hook}\"")))?;
        let process = start(&network, &capabilities(), None)?;
        await_ready(&process)?;
        let Network { daemon1, c1, c2, c3, .. } = &network;
        await_endpoint(daemon1, c2.address)?;
        network.ping_by_bpf(c1, c3.address)?;
        network.ping_by_bpf(c1, c2.address)?;
        hooks_are_known(daemon1)?;
        daemon1.reload()?;
        process.kill();
        let log = process.output(Stream::Stderr);
        ensure!(!log.contains("rebuilt") && !log.contains("cannot"), "with {hook}: {log}");
    }
    let process = start(&network, &capabilities(), None)?;
    await_ready(&process)?;
    let before = forwarded(&network.daemon1)?;
    ensure!(before > 0, "the counters of the earlier runs are gone");
    network.daemon1.detach()?;
    ensure!(process.wait(PATIENCE)?.success(), "{}", process.output(Stream::Stderr));
    ensure!(network.daemon1.leftovers()?.is_empty(), "{:?}", network.daemon1.leftovers()?);
    Ok(())
}

#[test]
fn each_capability_of_the_unit_is_needed() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    let all = capabilities();
    ensure!(all.len() >= 4, "{all:?}");
    for missing in &all {
        let rest: Vec<String> = all.iter().filter(|name| *name != missing).cloned().collect();
        let name = format!("CAP_{}", missing.to_uppercase());
        if missing == "net_bind_service" {
            let bgp = "[bgp]\nasn = 64512\nrouter-id = \"10.141.0.1\"\nlisten = \"10.141.0.1:179\"\n";
            network.daemon1.write_config(&config1().table(bgp))?;
            let process = start(&network, &rest, None)?;
            await_ready(&process)?;
            process.wait_for_line(Stream::Stderr, |line| line.contains(&name), PATIENCE)?;
            continue;
        }
        let said = fails(&network, &rest)?;
        ensure!(said.contains(&format!("lacks {name} (")), "without {name}: {said}");
    }
    let said = fails(&network, &[])?;
    ensure!(said.contains("CAP_BPF") && said.contains("CAP_NET_ADMIN"), "{said}");
    Ok(())
}

#[test]
fn the_service_manager_is_told() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    let directory = tempfile::tempdir()?;
    let manager = Manager::new(directory.path())?;
    let process = start(&network, &capabilities(), Some(&manager))?;
    assert_eq!(manager.next()?.trim(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.any()?.trim(), "WATCHDOG=1");
    }
    let daemon = &network.daemon1;
    daemon.reload()?;
    let reloading = manager.next()?;
    ensure!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.next()?.trim(), "READY=1");
    // A file that is refused is no end of the service.
    std::fs::write(daemon.config_file(), "nonsense")?;
    ensure!(daemon.cli_output(&["reload"]).code() == Some(2));
    ensure!(manager.next()?.contains("RELOADING=1"));
    assert_eq!(manager.next()?.trim(), "READY=1");
    daemon.write_config(&config1())?;
    // No sign of life comes from a loop that stands still.
    process.signal(libc::SIGSTOP)?;
    manager.socket.set_nonblocking(true)?;
    eventually(PATIENCE, || {
        while manager.any().is_ok() {}
        manager.socket.set_nonblocking(false)?;
        manager.socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        ensure!(manager.any().is_err(), "it still gives signs of life");
        Ok(())
    })?;
    manager.socket.set_read_timeout(Some(PATIENCE))?;
    process.signal(libc::SIGCONT)?;
    process.signal(libc::SIGTERM)?;
    assert_eq!(manager.next()?.trim(), "STOPPING=1");
    ensure!(process.wait(PATIENCE)?.success(), "{}", process.output(Stream::Stderr));
    Ok(())
}
