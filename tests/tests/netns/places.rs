//! The directories that the daemon needs cannot be used, or hold what is not its own: one clear line, and what forwards
//! goes on.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::names::{LAYOUT_VERSION, MAP_ENDPOINTS, MAP_FLOW_RECORDS};
use tests::harness::{Stream, daemon::binary, traffic};

use super::{
    network::{Network, PATIENCE, await_endpoint},
    require_root,
};

/// The daemon of the first node, in a mount namespace of its own where that script was run before.
fn command(network: &Network, before: &str) -> Result<Vec<String>> {
    let binary = binary()?.to_string_lossy().into_owned();
    let file = network.daemon1.config_file().to_string_lossy().into_owned();
    let script = format!("{before} && exec \"$@\"");
    let words = ["unshare", "--mount", "sh", "-c", &script, "sh", &binary, "run", "--config", &file];
    Ok(words.map(str::to_owned).to_vec())
}

/// It does not start, says that, and BPF goes on forwarding.
fn is_refused(network: &Network, before: &str, says: &[&str]) -> Result<()> {
    let mut words = command(network, before)?;
    words.splice(0..0, ["timeout".to_owned(), "20".to_owned()]);
    let output = network.node1.run(words);
    ensure!(output.code() == Some(1), "{output:?}");
    let complaints: Vec<&str> =
        output.stderr.lines().filter(|line| line.starts_with("dataplane: ")).collect();
    ensure!(complaints.len() == 1 && says.iter().all(|word| complaints[0].contains(word)), "{output:?}");
    forwards(network)
}

/// Without a daemon to ask.
fn forwards(network: &Network) -> Result<()> {
    let Network { c1, c3, node1, .. } = network;
    let before = traffic::ip_forw_datagrams(node1)?;
    traffic::ping(c1, c3.address, 3)?.all_answered()?;
    ensure!(traffic::ip_forw_datagrams(node1)? == before, "the kernel forwarded packets");
    Ok(())
}

#[test]
fn a_state_directory_that_cannot_be_written() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.kill()?;
    let directory = network.daemon1.state_dir().display().to_string();
    let says = |what| [directory.as_str(), what, "`node.state-dir`"].map(str::to_owned);
    let read_only = format!("mount -t tmpfs -o ro tmpfs {directory}");
    is_refused(&network, &read_only, &says("Read-only file system").each_ref().map(|word| word.as_str()))?;
    // One inode is the directory's own.
    let no_inode = format!("mount -t tmpfs -o nr_inodes=1 tmpfs {directory}");
    is_refused(&network, &no_inode, &says("No space left").each_ref().map(|word| word.as_str()))?;
    network.daemon1.launch()?;
    network.ping_by_bpf(&network.c1, network.c3.address)
}

/// Nothing of what it must write there takes room.
#[test]
fn a_full_disk_keeps_nobody_from_forwarding() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.kill()?;
    let directory = network.daemon1.state_dir().display().to_string();
    let fill =
        format!("mount -t tmpfs -o size=4k tmpfs {directory} && head -c 4096 /dev/zero > {directory}/full");
    let process = network.node1.spawn(command(&network, &fill)?)?;
    process.wait_for_line(Stream::Stdout, |line| line == "ready", PATIENCE)?;
    let log = process.output(Stream::Stderr);
    let warned = ["cannot note the process id", "No space left", "make room"];
    ensure!(warned.iter().all(|words| log.contains(words)), "{log}");
    forwards(&network)?;
    process.signal(libc::SIGTERM)?;
    ensure!(process.wait(PATIENCE)?.success(), "{}", process.output(Stream::Stderr));
    forwards(&network)?;
    network.daemon1.launch()?;
    network.ping_by_bpf(&network.c1, network.c3.address)
}

#[test]
fn no_bpf_file_system() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    let unmount = "umount -l /sys/fs/bpf";
    let unable = format!("{unmount} && set -- setpriv --bounding-set=-sys_admin --inh-caps=-all \"$@\"");
    is_refused(&network, &unable, &["no BPF file system at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"])?;
    // One that may mounts it; here it is another one than the first run's, whose hooks are in the way.
    network.daemon1.detach()?;
    let process = network.node1.spawn(command(&network, unmount)?)?;
    process.wait_for_line(Stream::Stdout, |line| line == "ready", PATIENCE)?;
    let log = process.output(Stream::Stderr);
    ensure!(log.contains("mounted one"), "{log}");
    await_endpoint(&network.daemon1, network.c2.address)?;
    network.ping_by_bpf(&network.c1, network.c3.address)?;
    network.daemon1.detach()?;
    ensure!(process.wait(PATIENCE)?.success(), "{}", process.output(Stream::Stderr));
    Ok(())
}

/// Makes the pin one of a map of somebody else's.
fn put_foreign_map(network: &Network, pin: &Path) -> Result<()> {
    fs::remove_file(pin).with_context(|| format!("no pin {}", pin.display()))?;
    let pin = pin.to_string_lossy();
    let shape = ["type", "hash", "key", "8", "value", "8", "entries", "4096", "name", "somebody_s"];
    network.node1.run([&["bpftool", "map", "create", &*pin], &shape[..]].concat()).ok().map(drop)
}

#[test]
fn a_map_of_somebody_else_is_not_used() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    for name in [MAP_ENDPOINTS, MAP_FLOW_RECORDS] {
        network.daemon1.stop()?;
        let pin = network.daemon1.bpf_dir().join(format!("v{LAYOUT_VERSION}/maps/{name}"));
        put_foreign_map(&network, &pin)?;
        forwards(&network)?;
        network.daemon1.launch()?;
        let process = network.daemon1.process().context("no daemon")?;
        let log = process.output(Stream::Stderr);
        let says = format!("{} is no map that this program makes: the tables are rebuilt", pin.display());
        ensure!(log.contains(&says), "{log}");
        await_endpoint(&network.daemon1, network.c2.address)?;
        network.ping_by_bpf(&network.c1, network.c3.address)?;
    }
    Ok(())
}

#[test]
fn a_link_that_is_none_is_named() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    network.daemon1.detach()?;
    let links = network.daemon1.bpf_dir().join(format!("v{LAYOUT_VERSION}/links"));
    fs::create_dir_all(&links)?;
    let pin = links.join(format!("from-uplink-{}", network.node1.ifindex("eth0")?));
    let shape = ["type", "hash", "key", "8", "value", "8", "entries", "1", "name", "somebody_s"];
    let path = pin.to_string_lossy();
    network.node1.run([&["bpftool", "map", "create", &*path], &shape[..]].concat()).ok()?;
    let refused = format!("{:#}", network.daemon1.launch().err().context("it started")?);
    ensure!(refused.contains(&format!("{path} is no link of this program's: remove it")), "{refused}");
    fs::remove_file(&pin)?;
    network.daemon1.launch()?;
    await_endpoint(&network.daemon1, network.c2.address)?;
    network.ping_by_bpf(&network.c1, network.c3.address)
}
