//! Ports of MASQUERADE beside those of the host.

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
};

use super::*;

const RANGE: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

/// What is reserved where the host has its usual range, and keeps 8,192 ports of it.
const ALL: &str = "40960-60999";

/// The value of a sysctl of the node.
fn value(node: &Node, key: &str) -> Result<String> {
    Ok(node.run(["sysctl", "-n", key]).ok()?.trim().to_owned())
}

fn await_reserved(node: &Node, wanted: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let found = value(node, RESERVED)?;
        ensure!(found == wanted, "reserved: {found:?}");
        Ok(())
    })
}

fn complaints(daemon: &Daemon) -> Result<Vec<String>> {
    let status = daemon.cli(&["status", "--json"])?;
    let complaints = status["complaints"].as_array().context("no complaints")?;
    Ok(complaints.iter().filter_map(|complaint| Some(complaint.as_str()?.to_owned())).collect())
}

fn await_complaint(daemon: &Daemon, part: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let found = complaints(daemon)?;
        ensure!(found.iter().any(|complaint| complaint.contains(part)), "no {part:?}: {found:?}");
        Ok(())
    })
}

#[test]
fn the_host_s_are_reserved_and_put_back() -> Result<()> {
    require_root!();
    let mut net = Egress::build(config().table(RULE), |node| node.sysctl(RESERVED, "8080,50000"))?;
    // What others have reserved is theirs.
    let with = |others: &str| format!("{others},40960-60999");
    ensure!(value(&net.node, RESERVED)? == with("8080"), "{}", value(&net.node, RESERVED)?);
    ensure!(complaints(&net.daemon)?.is_empty(), "{:?}", complaints(&net.daemon)?);

    // It outlives the daemon, which another one knows for its own.
    net.daemon.kill()?;
    net.daemon.launch()?;
    ensure!(value(&net.node, RESERVED)? == with("8080"));
    // Others add to the list, or set another one: it is theirs, and ours comes again.
    net.node.sysctl(RESERVED, &with("8080,9000"))?;
    net.daemon.reload()?;
    net.node.sysctl(RESERVED, "8081")?;
    await_reserved(&net.node, &with("8081"))?;
    net.node.sysctl(RESERVED, &with("8081,9000"))?;
    net.daemon.detach()?;
    ensure!(value(&net.node, RESERVED)? == "8081,9000", "{}", value(&net.node, RESERVED)?);
    ensure!(!fs::exists(net.daemon.state_dir().join("reserved-ports"))?);
    Ok(())
}

#[test]
fn they_are_put_back_without_a_daemon_and_without_a_rule() -> Result<()> {
    require_root!();
    let mut net = Egress::build(config().table(RULE), |node| node.sysctl(RESERVED, "50000"))?;
    ensure!(value(&net.node, RESERVED)? == ALL);
    net.daemon.kill()?;
    ensure!(value(&net.node, RESERVED)? == ALL);
    net.daemon.detach()?;
    ensure!(value(&net.node, RESERVED)? == "50000");

    net.daemon.launch()?;
    ensure!(value(&net.node, RESERVED)? == ALL);
    net.daemon.stop()?;
    net.daemon.write_config(&config())?;
    net.daemon.launch()?;
    ensure!(value(&net.node, RESERVED)? == "50000");
    Ok(())
}

#[test]
fn a_key_leaves_them_to_the_host() -> Result<()> {
    require_root!();
    let net = Egress::with(config().table(RULE))?;
    ensure!(value(&net.node, RESERVED)? == ALL);
    net.daemon.write_config(&config().datapath("host-ports", "\"leave\"").table(RULE))?;
    net.daemon.reload()?;
    ensure!(value(&net.node, RESERVED)?.is_empty());
    ensure!(complaints(&net.daemon)?.is_empty(), "{:?}", complaints(&net.daemon)?);
    net.daemon.write_config(&config().table(RULE))?;
    net.daemon.reload()?;
    ensure!(value(&net.node, RESERVED)? == ALL);
    Ok(())
}

#[test]
fn another_range_of_the_host_is_noticed() -> Result<()> {
    require_root!();
    let net = Egress::with(config().table(RULE))?;
    net.node.sysctl(RANGE, "20000 40000")?;
    await_reserved(&net.node, "28192-40000")?;
    ensure!(complaints(&net.daemon)?.is_empty(), "{:?}", complaints(&net.daemon)?);
    // Too few to take any of them.
    net.node.sysctl(RANGE, "40000 42000")?;
    await_reserved(&net.node, "")?;
    await_complaint(&net.daemon, "leave the host 2001 ephemeral ports")
}

#[test]
fn where_nothing_can_be_reserved_that_is_said() -> Result<()> {
    require_root!();
    let mut net = Egress::with(config().table(RULE))?;
    net.daemon.stop()?;
    net.daemon.detach()?;
    // As in a container: /proc/sys can be read alone.
    let directory = tempfile::tempdir()?;
    let wrapper = directory.path().join("dataplane");
    let binary = tests::harness::daemon::place::binary()?;
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nexec unshare --mount --propagation private sh -c \
             'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$0\" \"$@\"' {} \"$@\"\n",
            binary.display()
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    net.daemon.use_binary(wrapper);
    net.daemon.launch()?;
    await_complaint(
        &net.daemon,
        "only the 20920 ports outside of net.ipv4.ip_local_port_range (32768-60999)",
    )?;
    ensure!(value(&net.node, RESERVED)?.is_empty());
    ensure!(!fs::exists(net.daemon.state_dir().join("reserved-ports"))?);
    net.daemon.use_binary(binary);
    Ok(())
}

#[test]
fn ports_of_the_host_s_sockets_are_left_out() -> Result<()> {
    require_root!();
    let config = config().table(&format!("{RULE}\nports = \"20000-20003\""));
    let mut held = Vec::new();
    // One for any address and one for that of the rule; and some that no reply to a container could reach.
    let net = Egress::build(config, |node| {
        held = node.enter(|| {
            let bind = |address: [u8; 4], port| UdpSocket::bind((Ipv4Addr::from(address), port));
            Ok(vec![bind([0, 0, 0, 0], 20_000)?, bind(NODE.octets(), 20_001)?, bind([127, 0, 0, 1], 20_002)?])
        })?;
        Ok(())
    })?;
    let server = net.outside.enter(|| Ok(UdpSocket::bind((FAR, 0))?))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let clients =
        net.c1.enter(|| (0..2).map(|_| Ok(UdpSocket::bind("0.0.0.0:0")?)).collect::<Result<Vec<_>>>())?;
    let mut ports = Vec::new();
    for client in &clients {
        client.send_to(b"question", server.local_addr()?)?;
        ports.push(server.recv_from(&mut [0; 8])?.1.port());
    }
    ports.sort_unstable();
    ensure!(ports == [20_002, 20_003], "{ports:?}");
    // TCP has ports of its own.
    let listener = net.outside.enter(|| Ok(TcpListener::bind((FAR, 0))?))?;
    let to = listener.local_addr()?;
    let connect = |_| Ok(TcpStream::connect_timeout(&to, PATIENCE)?);
    let connected = net.c1.enter(|| (0..4).map(connect).collect::<Result<Vec<_>>>())?;
    let accepted =
        connected.iter().map(|_| Ok(listener.accept()?.1.port())).collect::<Result<BTreeSet<_>>>()?;
    ensure!(accepted == BTreeSet::from([20_000, 20_001, 20_002, 20_003]), "{accepted:?}");

    // A port that the host takes for itself ends the flow that has it.
    held.push(net.node.enter(|| Ok(UdpSocket::bind((NODE, 20_003))?))?);
    eventually(PATIENCE, || {
        let flows = net.flows("udp", server.local_addr()?)?;
        ensure!(flows.len() == 1 && translated_port(&flows[0])? == 20_002, "{flows:?}");
        Ok(())
    })
}
