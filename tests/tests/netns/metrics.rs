//! What Prometheus is told, asked over TCP on the node.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Namespace, eventually, traffic};

use super::{
    network::{Network, PATIENCE, config1},
    require_root,
};

pub(super) const ADDRESS: &str = "127.0.0.1:9477";

pub(super) fn with_metrics(address: &str) -> tests::harness::Config {
    config1().table(&format!("[metrics]\nlisten = \"{address}\"\n"))
}

/// Asks, and gives the whole answer.
fn ask(node: &Namespace, request: &str) -> Result<String> {
    node.enter(|| {
        let address: SocketAddrV4 = ADDRESS.parse()?;
        let mut stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{request} HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("no answer")?;
        Ok(answer)
    })
}

pub(super) fn scrape(node: &Namespace) -> Result<String> {
    let answer = ask(node, "GET /metrics")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    ensure!(
        head.to_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    ensure!(body.ends_with("# EOF\n"), "{body}");
    Ok(body.to_owned())
}

/// The value of a sample, by its name and labels.
pub(super) fn sample(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in\n{text}"))?.parse()?)
}

#[test]
fn what_was_counted_is_told() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    ensure!(scrape(&network.node1).is_err(), "there are metrics that nobody asked for");
    network.daemon1.write_config(&with_metrics(ADDRESS))?;
    network.daemon1.reload()?;
    let before = scrape(&network.node1)?;
    let Network { c1, c3, node1, .. } = &network;
    traffic::ping(c1, c3.address, 5)?.all_answered()?;
    traffic::ping_with(c1, "172.19.35.200", 3, &["-W", "0.2"])?.none_answered()?;
    let after = scrape(node1)?;
    let packets = |hook: &str, reason: &str, class: &str| {
        format!("dataplane_packets_total{{hook=\"{hook}\",reason=\"{reason}\",class=\"{class}\"}}")
    };
    let dropped = packets("from-container", "no-endpoint", "drop");
    assert_eq!(sample(&after, &dropped)? - sample(&before, &dropped)?, 3.0);
    let forwarded = packets("from-container", "forwarded", "forward");
    assert_eq!(sample(&after, &forwarded)? - sample(&before, &forwarded)?, 5.0);
    assert_eq!(sample(&after, "dataplane_table_entries{table=\"endpoints\"}")?, 2.0);
    assert_eq!(sample(&after, "dataplane_attached_interfaces{hook=\"from-container\"}")?, 2.0);
    assert_eq!(sample(&after, "dataplane_complaints")?, 0.0);

    // The counters are the data path's: they go on with the next daemon.
    network.daemon1.kill()?;
    network.daemon1.launch()?;
    ensure!(sample(&scrape(&network.node1)?, &dropped)? >= sample(&after, &dropped)?);

    // A file that is refused is told, and the metrics stay.
    std::fs::write(network.daemon1.config_file(), "[metrics]\nlisten = \"localhost:9477\"\n")?;
    let refused = network.daemon1.cli_output(&["reload"]);
    ensure!(refused.code() == Some(2) && refused.stderr.contains(":2:10: "), "{refused:?}");
    assert_eq!(sample(&scrape(&network.node1)?, "dataplane_config_last_read_successful")?, 0.0);
    network.daemon1.write_config(&config1())?;
    network.daemon1.reload()?;
    ensure!(scrape(&network.node1).is_err(), "it listens though the file does not say so");
    Ok(())
}

#[test]
fn odd_clients_harm_nobody() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, c1, c3, .. } = &network;
    daemon1.write_config(&with_metrics(ADDRESS))?;
    daemon1.reload()?;
    for (request, status) in [("GET /", "404"), ("GET /metrics/", "404"), ("POST /metrics", "405")] {
        let answer = ask(node1, request)?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    // As many as are served at a time, none of whom asks: one more is turned away, and nothing else suffers.
    let silent = node1.enter(|| {
        let address: SocketAddrV4 = ADDRESS.parse()?;
        let connect = |_| Ok(TcpStream::connect_timeout(&address.into(), PATIENCE)?);
        (0..16).map(connect).collect::<Result<Vec<TcpStream>>>()
    })?;
    eventually(PATIENCE, || {
        ensure!(scrape(node1).is_err(), "there is room for one more");
        Ok(())
    })?;
    network.ping_by_bpf(c1, c3.address)?;
    drop(silent);
    eventually(PATIENCE, || scrape(node1).map(drop))
}

#[test]
fn an_address_that_is_taken_is_a_complaint() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, c1, c3, .. } = &network;
    let holder = node1.enter(|| Ok(TcpListener::bind(ADDRESS)?))?;
    daemon1.write_config(&with_metrics(ADDRESS))?;
    daemon1.reload()?;
    let status = daemon1.cli(&["status", "--json"])?;
    let said = status["complaints"][0].as_str().context("no complaint")?;
    ensure!(
        said.contains("[metrics] cannot listen on 127.0.0.1:9477") && status["health"] == "degraded",
        "{said}"
    );
    network.ping_by_bpf(c1, c3.address)?;
    drop(holder);
    eventually(Duration::from_secs(10), || {
        daemon1.reload()?;
        scrape(node1).map(drop)
    })
}

/// Asked without end, the daemon goes on with its work, and no packet is late for it.
#[test]
fn scrapes_under_load_disturb_nothing() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, c1, c3, .. } = &network;
    daemon1.write_config(&with_metrics(ADDRESS))?;
    daemon1.reload()?;
    let steady = super::network::SteadyPing::start(c1, c3.address)?;
    for _ in 0..200 {
        scrape(node1)?;
    }
    daemon1.reload()?;
    steady.nothing_lost()
}

#[test]
fn an_address_that_comes_later_is_listened_on_then() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, .. } = &network;
    let later = "10.77.0.1:9477";
    daemon1.write_config(&with_metrics(later))?;
    daemon1.reload()?;
    let status = daemon1.cli(&["status", "--json"])?;
    ensure!(status["complaints"][0].as_str().is_some_and(|text| text.contains(later)), "{status}");
    node1.ip("address add 10.77.0.1/32 dev lo")?;
    eventually(PATIENCE, || {
        let status = daemon1.cli(&["status", "--json"])?;
        ensure!(status["health"] == "ok", "{status}");
        Ok(())
    })?;
    node1.enter(|| {
        let address: SocketAddrV4 = later.parse()?;
        TcpStream::connect_timeout(&address.into(), PATIENCE).map(drop)?;
        Ok(())
    })
}

#[test]
fn a_client_that_has_said_all_is_answered() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    network.daemon1.write_config(&with_metrics(ADDRESS))?;
    network.daemon1.reload()?;
    let answer = network.node1.enter(|| {
        let address: SocketAddrV4 = ADDRESS.parse()?;
        let mut stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    ensure!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("# EOF\n"), "{answer}");
    Ok(())
}
