//! What goes wrong around the daemon does not end it or hold it up, and what nobody waits for any more is not done.

use std::{
    fs::{self, File},
    io::{PipeReader, Read as _, Write as _, pipe},
    os::unix::net::UnixStream,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Daemon, Fabric, Node, Process, Stream, daemon::place, eventually};

use super::{
    metrics::{ADDRESS, sample, scrape, with_metrics},
    network::{Network, PATIENCE, base, config1},
    require_root,
};

fn is_well(daemon: &Daemon) -> Result<()> {
    let status = daemon.cli(&["status", "--json"])?;
    ensure!(status["health"] == "ok", "{status}");
    Ok(())
}

/// A node with containers and many interfaces that a start takes its time for, and no daemon yet.
fn prepared() -> Result<(Network, Daemon)> {
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    network.daemon1.detach()?;
    let daemon = Daemon::prepare(&network.node1, &config1())?;
    Ok((network, daemon))
}

#[test]
fn a_sighup_before_it_is_ready_is_kept() -> Result<()> {
    require_root!();
    let (_network, daemon) = prepared()?;
    let file = daemon.config_file().to_string_lossy().into_owned();
    let process = daemon.spawn(&["run", "--config", &file])?;
    process.wait_for_line(Stream::Stderr, |line| line.contains("attached"), PATIENCE)?;
    process.signal(libc::SIGSTOP)?;
    process.signal(libc::SIGHUP)?;
    process.signal(libc::SIGCONT)?;
    process.wait_for_line(Stream::Stdout, |line| line == "ready", PATIENCE)?;
    process.wait_for_line(Stream::Stderr, |line| line.contains(&format!("read {file} again")), PATIENCE)?;
    is_well(&daemon)?;
    daemon.detach()?;
    ensure!(process.wait(PATIENCE)?.success());
    Ok(())
}

fn limit_descriptors(node: &Node, process: &Process, limit: &str) -> Result<()> {
    let pid = process.pid().to_string();
    node.run(["prlimit", "--pid", &pid, &format!("--nofile={limit}:")]).ok().map(drop)
}

#[test]
fn commands_are_answered_after_descriptors_were_scarce() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, .. } = &network;
    let process = daemon1.process().context("no daemon")?;
    // The limit is the number of the first descriptor that cannot be had.
    let open = || -> Result<Vec<usize>> {
        let directory = format!("/proc/{}/fd", process.pid());
        let mut open = Vec::new();
        for entry in fs::read_dir(directory)? {
            open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<usize>().ok()));
        }
        open.sort_unstable();
        Ok(open)
    };
    let open = open()?;
    let free = (0..).find(|number| !open.contains(number)).context("no free descriptor")?;
    limit_descriptors(node1, process, &free.to_string())?;
    let waiting = UnixStream::connect(daemon1.state_dir().join("control.sock"))?;
    process.wait_for_line(Stream::Stderr, |line| line.contains("cannot take connections"), PATIENCE)?;
    limit_descriptors(node1, process, "1024")?;
    drop(waiting);
    is_well(daemon1)
}

/// A daemon that is killed where the test does not end it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the daemon with these outputs.
fn start(daemon: &Daemon, network: &Network, level: &str, outputs: (Stdio, Stdio)) -> Result<Running> {
    let file = daemon.config_file();
    let mut command = network.node1.command(["env", &format!("RUST_LOG={level}")]);
    command.arg(place::binary()?).args(["run", "--config"]).arg(&file).stdout(outputs.0).stderr(outputs.1);
    Ok(Running(command.spawn()?))
}

fn await_well(daemon: &Daemon) -> Result<()> {
    eventually(PATIENCE, || is_well(daemon))
}

/// Detaches it, and sees that it ended by itself.
fn ends_well(daemon: &Daemon, mut child: Running) -> Result<()> {
    daemon.detach()?;
    let status = eventually(PATIENCE, || child.0.try_wait()?.context("it runs"))?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn a_full_disk_and_a_reader_that_has_gone_end_nothing() -> Result<()> {
    require_root!();
    let (network, daemon) = prepared()?;
    let full = || -> Result<Stdio> { Ok(File::options().write(true).open("/dev/full")?.into()) };
    let gone = || -> Result<Stdio> { Ok(pipe()?.1.into()) };
    for outputs in [(full()?, full()?), (gone()?, gone()?)] {
        let child = start(&daemon, &network, "trace", outputs)?;
        await_well(&daemon)?;
        daemon.reload()?;
        ends_well(&daemon, child)?;
    }
    Ok(())
}

#[test]
fn a_reader_that_is_stuck_holds_nothing_up() -> Result<()> {
    require_root!();
    let (network, daemon) = prepared()?;
    daemon.write_config(&with_metrics(ADDRESS))?;
    let (mut reader, mut writer): (PipeReader, _) = pipe()?;
    // As much as a pipe holds (pipe(7)).
    writer.write_all(&[b'-'; 65_536])?;
    let child = start(&daemon, &network, "trace", (writer.try_clone()?.into(), writer.into()))?;
    await_well(&daemon)?;
    daemon.reload()?;
    is_well(&daemon)?;
    // What waits is not lost yet.
    assert_eq!(sample(&scrape(&network.node1)?, "dataplane_log_lines_lost_total")?, 0.0);
    ends_well(&daemon, child)?;
    let mut log = String::new();
    reader.read_to_string(&mut log)?;
    ensure!(log.trim_start_matches('-').is_empty(), "a pipe that was full has taken {log}");
    Ok(())
}

#[test]
fn commands_whose_reader_has_gone_do_not_panic() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, .. } = &network;
    let file = daemon1.config_file().to_string_lossy().into_owned();
    for (arguments, code) in [
        (&["check", "--config", &file][..], 0),
        (&["check", "--json", "--config", &file], 0),
        (&["check", "--config", "/nonexistent"], 2),
        (&["status"], 0),
        (&["completions", "bash"], 0),
        (&["route", "get", "nowhere"], 2),
    ] {
        let mut command = network.node1.command([place::binary()?]);
        command.args(arguments).arg("--state-dir").arg(daemon1.state_dir());
        let status = command.stdout(pipe()?.1).stderr(pipe()?.1).status()?;
        ensure!(status.code() == Some(code), "{arguments:?}: {status}");
    }
    Ok(())
}

#[test]
fn what_nobody_waits_for_is_not_done() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, .. } = &network;
    let process = daemon1.process().context("no daemon")?;
    process.signal(libc::SIGSTOP)?;
    // As a client that was interrupted, and one that gave up by itself.
    let mut client = UnixStream::connect(daemon1.state_dir().join("control.sock"))?;
    client.write_all(b"{\"ask\":\"detach\"}\n")?;
    drop(client);
    let file = daemon1.config_file().to_string_lossy().into_owned();
    let output = daemon1.cli_output(&["detach", "--config", &file, "--timeout", "0.5"]);
    process.signal(libc::SIGCONT)?;
    ensure!(output.code() == Some(1) && output.stderr.contains("did not answer within 0.5 s"), "{output:?}");
    is_well(daemon1)?;
    network.ping_by_bpf(c1, c3.address)?;
    // One that has said all it has to say waits for the answer all the same.
    let mut client = UnixStream::connect(daemon1.state_dir().join("control.sock"))?;
    client.write_all(b"{\"ask\":\"status\"}\n")?;
    client.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    ensure!(answer.contains("\"health\""), "{answer}");
    Ok(())
}

#[test]
fn warnings_have_their_priority_in_the_journal() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let daemon =
        Daemon::prepare(&node, &base().block("172.19.35.0/24").route("172.19.36.0/24", "10.99.0.1"))?;
    let file = daemon.config_file().to_string_lossy().into_owned();
    // The shell knows which file its standard error is.
    let script = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";
    let binary = place::binary()?.to_string_lossy().into_owned();
    let process = node.spawn(["sh", "-c", script, "sh", &binary, "run", "--config", &file])?;
    process.wait_for_line(Stream::Stdout, |line| line == "ready", PATIENCE)?;
    let log = process.output(Stream::Stderr);
    ensure!(log.lines().any(|line| line.starts_with("<4>") && line.contains("10.99.0.1")), "{log}");
    ensure!(
        log.lines().any(|line| line.starts_with("<6>")) && log.lines().all(|line| line.starts_with('<')),
        "{log}"
    );
    daemon.detach()?;
    ensure!(process.wait(PATIENCE)?.success());
    Ok(())
}
