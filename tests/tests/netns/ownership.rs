//! The directories belong to one daemon, which relies on nothing that another user could change there, and takes away what
//! it made and nothing else.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::names::LAYOUT_VERSION;
use tests::harness::{Daemon, Fabric, Node, Output, Stream, daemon::place};

use super::{
    network::{Network, PATIENCE, base, config1},
    require_root,
};

/// A user that owns nothing of the daemon's.
const NOBODY: u32 = 65_534;

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.permissions().mode() & 0o777)
}

/// Pins a map of somebody else's.
fn pin_foreign(node: &Node, pin: &Path) -> Result<()> {
    let pin = pin.to_string_lossy();
    let shape = ["type", "hash", "key", "8", "value", "8", "entries", "4", "name", "somebody_s"];
    node.run([&["bpftool", "map", "create", &*pin], &shape[..]].concat()).ok().map(drop)
}

/// `dataplane detach` of a data path without a file.
fn detach(node: &Node, bpf_dir: &Path, state_dir: &Path) -> Result<Output> {
    let (binary, bpf_dir) = (place::binary()?, bpf_dir.to_string_lossy());
    let (binary, state_dir) = (binary.to_string_lossy(), state_dir.to_string_lossy());
    let places = ["--bpf-dir", &*bpf_dir, "--state-dir", &*state_dir];
    Ok(node.run([&[&*binary, "detach", "--from-kernel"], &places[..]].concat()))
}

fn refused(output: &Output, says: &str) -> Result<()> {
    ensure!(output.code() == Some(1) && output.stderr.contains(says), "not {says:?}: {output:?}");
    Ok(())
}

#[test]
fn pins_of_others_stay_where_they_are() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, .. } = &network;
    let bpf_dir = daemon1.bpf_dir();
    fs::create_dir(bpf_dir.join("others"))?;
    let foreign = [
        bpf_dir.join("theirs"),
        bpf_dir.join("others/map"),
        bpf_dir.join(format!("v{LAYOUT_VERSION}/maps/theirs")),
    ];
    for pin in &foreign {
        pin_foreign(node1, pin)?;
    }
    let file = daemon1.config_file().to_string_lossy().into_owned();
    // By the daemon, and again without one.
    for _ in 0..2 {
        let output = daemon1.cli_output(&["detach", "--config", &file]);
        for pin in [&foreign[0], &foreign[2], &bpf_dir.join("others")] {
            ensure!(
                output.stdout.contains(&format!(
                    "left alone, since it is none of this program's: {}\n",
                    pin.display()
                )),
                "{output:?}"
            );
        }
        ensure!(output.success() && output.stdout.ends_with("detached\n"), "{output:?}");
        ensure!(foreign.iter().all(|pin| pin.exists()), "a pin of somebody else's is gone");
    }
    let left = daemon1.leftovers()?;
    ensure!(left.iter().all(|line| line.starts_with("pin ")) && left.len() == 3, "{left:?}");
    foreign.iter().try_for_each(fs::remove_file)?;
    fs::remove_dir(bpf_dir.join("others"))?;
    daemon1.detach()?;
    ensure!(!bpf_dir.exists());
    Ok(())
}

#[test]
fn what_is_no_directory_of_pins_is_refused() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let place = tempfile::tempdir()?;
    let (ordinary, state_dir) = (place.path().join("files"), place.path().join("state"));
    fs::create_dir_all(ordinary.join("v1/maps"))?;
    let file = ordinary.join("v1/maps/ENDPOINTS");
    fs::write(&file, "precious")?;
    refused(&detach(&node, &ordinary, &state_dir)?, "is on no BPF file system")?;
    symlink(place::BPF_ROOT, place.path().join("link"))?;
    refused(&detach(&node, &place.path().join("link"), &state_dir)?, "links are not followed")?;
    // Nor is a file system mounted over somebody's files.
    let daemon = Daemon::prepare_at(&node, &base(), place::binary()?, &state_dir_for(&place)?, &ordinary)?;
    let run = daemon.cli_output(&["run", "--config", &daemon.config_file().to_string_lossy()]);
    refused(&run, "holds files and is on no BPF file system")?;
    assert_eq!(fs::read_to_string(&file)?, "precious");
    ensure!(!state_dir.exists(), "the state directory of a refused detach is left");
    // What was never there is no error.
    detach(&node, &Path::new(place::BPF_ROOT).join("dataplane-test-never"), &state_dir)?.ok()?;
    daemon.write_config(&base())?;
    std::mem::forget(daemon.finish());
    Ok(())
}

fn state_dir_for(place: &tempfile::TempDir) -> Result<std::path::PathBuf> {
    let directory = place.path().join("daemon");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The mount point of the file system itself, in a mount namespace with one of its own.
#[test]
fn the_file_system_s_own_root_stays_mounted() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let place = tempfile::tempdir()?;
    let script = "mount -t bpf bpf /sys/fs/bpf && bpftool map create /sys/fs/bpf/theirs type hash key 8 value 8 entries 4 \
                  name theirs && \"$@\"; echo status $?; ls /sys/fs/bpf; stat -f -c %T /sys/fs/bpf";
    let (binary, state_dir) = (place::binary()?, place.path().join("state"));
    let (binary, state_dir) = (binary.to_string_lossy(), state_dir.to_string_lossy());
    let shell = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let command =
        [&*binary, "detach", "--from-kernel", "--bpf-dir", "/sys/fs/bpf", "--state-dir", &*state_dir];
    let said = node.run([&shell[..], &command].concat()).ok()?;
    let detached = "left alone, since it is none of this program's: /sys/fs/bpf/theirs\ndetached\nstatus 0\n";
    ensure!(said.starts_with(detached) && said.ends_with("theirs\nbpf_fs\n"), "{said}");
    Ok(())
}

#[test]
fn a_second_daemon_with_the_same_pins_is_refused() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, .. } = &network;
    let place = tempfile::tempdir()?;
    let second = Daemon::prepare_at(node1, &config1(), place::binary()?, place.path(), daemon1.bpf_dir())?;
    let file = second.config_file().to_string_lossy().into_owned();
    let pid = daemon1.process().context("no daemon")?.pid();
    let says =
        format!("the pins in {} are in use by another daemon (pid {pid})", daemon1.bpf_dir().display());
    for command in ["run", "detach"] {
        refused(&second.cli_output(&[command, "--config", &file]), &says)?;
    }
    ensure!(!place.path().join("lock").exists(), "a refused detach leaves a lock");
    network.ping_by_bpf(&network.c1, network.c3.address)?;
    ensure!(daemon1.cli(&["status", "--json"])?["health"] == "ok");
    // Where the first is gone, the second may have its tables.
    let Network { mut daemon1, .. } = network;
    daemon1.stop()?;
    second.detach()?;
    ensure!(daemon1.leftovers()?.is_empty(), "{:?}", daemon1.leftovers()?);
    second.finish()
}

#[test]
fn nobody_else_can_hold_the_locks_or_read_the_pins() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    let daemon = &network.daemon1;
    let lock = daemon.state_dir().join("lock");
    ensure!((mode(&daemon.state_dir())?, mode(&lock)?, mode(daemon.bpf_dir())?) == (0o700, 0o600, 0o700));
    // As older versions left them.
    network.daemon1.stop()?;
    let bpf_dir = network.daemon1.bpf_dir().to_owned();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644))?;
    fs::set_permissions(&bpf_dir, fs::Permissions::from_mode(0o755))?;
    network.daemon1.launch()?;
    ensure!((mode(&lock)?, mode(&bpf_dir)?) == (0o600, 0o700));
    Ok(())
}

#[test]
fn what_another_user_owns_is_refused() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    let daemon = &mut network.daemon1;
    let (state_dir, bpf_dir) = (daemon.state_dir(), daemon.bpf_dir().to_owned());
    for directory in [&state_dir, &bpf_dir, &state_dir.join("lock")] {
        chown(directory, Some(NOBODY), None)?;
        let error = format!("{:#}", daemon.launch().err().context("it started")?);
        let says = format!("{} belongs to user {NOBODY}", directory.display());
        ensure!(error.contains(&says), "{error}");
        chown(directory, Some(0), None)?;
    }
    // A file of root's behind a link stays as it is.
    let precious = state_dir.join("precious");
    fs::write(&precious, "precious")?;
    fs::remove_file(state_dir.join("lock"))?;
    symlink(&precious, state_dir.join("lock"))?;
    let error = format!("{:#}", daemon.launch().err().context("it started")?);
    ensure!(error.contains("symbolic link"), "{error}");
    assert_eq!((fs::read_to_string(&precious)?.as_str(), fs::metadata(&precious)?.uid()), ("precious", 0));
    fs::remove_file(state_dir.join("lock"))?;
    fs::remove_file(precious)?;
    daemon.launch()?;
    network.ping_by_bpf(&network.c1, network.c3.address)
}

#[test]
fn a_file_system_that_is_mounted_is_for_root_alone() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { mut daemon1, node1, .. } = network;
    daemon1.stop()?;
    daemon1.detach()?;
    let (binary, file) = (place::binary()?, daemon1.config_file());
    let (binary, file) = (binary.to_string_lossy(), file.to_string_lossy());
    let script = "umount -l /sys/fs/bpf && exec \"$@\"";
    let process =
        node1.spawn(["unshare", "--mount", "sh", "-c", script, "sh", &*binary, "run", "--config", &*file])?;
    process.wait_for_line(Stream::Stdout, |line| line == "ready", PATIENCE)?;
    // Nor does it outlive the process, which is no good end of a data path.
    let log = process.output(Stream::Stderr);
    ensure!(log.contains("a mount namespace of its own"), "{log}");
    ensure!(mode(&Path::new("/proc").join(process.pid().to_string()).join("root/sys/fs/bpf"))? == 0o700);
    daemon1.detach()?;
    ensure!(process.wait(PATIENCE)?.success());
    Ok(())
}

#[test]
fn a_file_system_that_was_mounted_for_the_pins_goes_with_them() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, .. } = &network;
    daemon1.detach()?;
    let place = tempfile::tempdir()?;
    let (state_dir, bpf_dir) = (state_dir_for(&place)?, place.path().join("a place"));
    let mut daemon = Daemon::prepare_at(node1, &config1(), place::binary()?, &state_dir, &bpf_dir)?;
    daemon.launch()?;
    ensure!(mode(&bpf_dir)? == 0o700 && bpf_dir.join(format!("v{LAYOUT_VERSION}/maps")).exists());
    daemon.stop()?;
    daemon.detach()?;
    ensure!(!bpf_dir.exists(), "{} is left", bpf_dir.display());
    daemon.finish()
}
