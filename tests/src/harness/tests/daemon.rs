//! The daemon's guard, on a shell script in the daemon's place.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use dataplane_common::{reason::Reason, stats::Hook};
use tempfile::TempDir;

use super::*;

/// Runs until SIGTERM, makes its bpf-dir, writes a route and a rule of the data path's protocol, and
/// removes all three at `detach`, if `CLEANS` says so.
const STAND_IN: &str = r#"#!/bin/sh
config() { sed -n "s/^$1 = '\(.*\)'/\1/p" "$config"; }
case "$1" in
run) config=$3
     grep -q refuse "$config" && { echo "the file says refuse" >&2; exit 2; }
     mkdir -p "$(config bpf-dir)"
     ip route replace 198.51.100.0/24 dev eth0 proto 171
     ip rule show | grep -q 198.51.100.0 || ip rule add from 198.51.100.0/24 lookup 100 proto 171
     trap 'exit 0' TERM
     echo starting; echo ready
     while :; do sleep 0.01; done ;;
detach) config=$3
     CLEANS || exit 0
     rmdir "$(config bpf-dir)"; ip route flush proto 171; ip rule delete from 198.51.100.0/24 ;;
status) echo "{\"arguments\": \"$*\"}" ;;
drops) echo '[{"hook": "from-uplink", "reason": "no-endpoint", "packets": 3}]' ;;
*) echo "no command $1" >&2; exit 2 ;;
esac
"#;

fn stand_in(cleans: bool) -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("dataplane");
    fs::write(&path, STAND_IN.replace("CLEANS", if cleans { "true" } else { "false" }))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok((directory, path))
}

#[test]
fn a_daemon_is_started_asked_and_gone() -> Result<()> {
    if skip_without_root("a_daemon_is_started_asked_and_gone") {
        return Ok(());
    }
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let (_directory, binary) = stand_in(true)?;
    let mut daemon = Daemon::prepare_binary(&node, &Config::new().block("172.19.35.0/24"), binary)?;
    daemon.launch()?;
    let bpf_dir = daemon.bpf_dir().to_owned();
    assert!(bpf_dir.starts_with("/sys/fs/bpf/") && bpf_dir.is_dir());
    let status = daemon.cli(&["status", "--json"])?;
    let expected = format!("status --json --state-dir {}", daemon.state_dir().display());
    assert_eq!(status["arguments"], expected);
    assert_eq!(daemon.drops(Hook::FromUplink, Reason::NoEndpoint)?, 3);
    assert_eq!(daemon.drops(Hook::FromContainer, Reason::NoEndpoint)?, 0);
    assert!(daemon.reload().unwrap_err().to_string().contains("no command reload"));
    daemon.launch().unwrap_err();
    daemon.stop()?;
    daemon.stop().unwrap_err();
    daemon.launch()?;
    daemon.kill()?;
    let left = daemon.leftovers()?;
    assert!(left.contains(&"route 198.51.100.0/24 dev eth0 scope link".to_owned()), "{left:?}");
    assert!(left.len() == 2 && left.iter().any(|what| what.starts_with("rule {")), "{left:?}");
    daemon.write_config(&Config::from_text("# refuse\n"))?;
    let error = format!("{:#}", daemon.launch().unwrap_err());
    assert!(error.contains("the file says refuse"), "{error}");
    daemon.write_config(&Config::new())?;
    daemon.kill().unwrap_err();
    daemon.finish()?;
    assert!(!bpf_dir.exists());
    Ok(())
}

#[test]
fn what_a_daemon_leaves_behind_is_a_failure() -> Result<()> {
    if skip_without_root("what_a_daemon_leaves_behind_is_a_failure") {
        return Ok(());
    }
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let (_directory, binary) = stand_in(false)?;
    let mut daemon = Daemon::prepare_binary(&node, &Config::new(), binary)?;
    daemon.launch()?;
    let bpf_dir = daemon.bpf_dir().to_owned();
    let panic = panic::catch_unwind(AssertUnwindSafe(|| drop(daemon))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("left behind: route 198.51.100.0/24"), "{message}");
    assert!(!bpf_dir.exists());
    Ok(())
}
