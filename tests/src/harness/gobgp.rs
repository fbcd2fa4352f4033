//! GoBGP, the routing daemon of kube-router: it speaks BGP, and leaves the kernel's routes to others.

use std::{fmt::Write as _, fs, net::Ipv4Addr, net::TcpStream, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Namespace, Node, Process, Stream, eventually,
    routing::{Neighbour, RoutingDaemon, Speaker},
};

/// How long it may take to answer, or to end.
const LIMIT: Duration = Duration::from_secs(10);

/// Where it answers, in its own namespace.
const API: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 50051);

/// `ESTABLISHED` of GoBGP's `PeerState.SessionState`.
const ESTABLISHED: u64 = 6;

/// A GoBGP with its own configuration file.
#[derive(Debug)]
pub struct GoBgp {
    namespace: Arc<Namespace>,
    directory: TempDir,
    speaker: Speaker,
    process: Option<Process>,
}

impl GoBgp {
    /// Runs `gobgp COMMAND` and gives what it says: `gobgp("global rib")`.
    ///
    /// # Errors
    /// If GoBGP does not answer, or refuses.
    pub fn gobgp(&self, command: &str) -> Result<String> {
        self.namespace.run(["gobgp"].into_iter().chain(command.split_whitespace())).ok()
    }

    fn config_file(&self) -> PathBuf {
        self.directory.path().join("gobgpd.toml")
    }

    fn write(&self) -> Result<()> {
        let path = self.config_file();
        fs::write(&path, config(&self.speaker)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Announces blocks (`add`) or gives them up (`del`).
    fn tell(&self, what: &str, blocks: &[String]) -> Result<()> {
        let next_hop = self.speaker.address;
        blocks.iter().try_for_each(|block| {
            self.gobgp(&format!("global rib {what} {block} nexthop {next_hop}")).map(drop)
        })
    }

    /// No peer gets through to it, or all do again. What it announces is told by its command line, so it would close a
    /// restart with an empty End-of-RIB.
    fn hold(&self, on: bool) -> Result<()> {
        let rules = if on {
            "table ip hold {\n chain input { type filter hook input priority 0; tcp dport 179 drop; }\n \
             chain output { type filter hook output priority 0; tcp dport 179 drop; }\n}\n"
        } else {
            "delete table ip hold\n"
        };
        self.namespace.run_with_input(["nft", "-f", "-"], rules).ok().map(drop)
    }

    fn await_answer(&self, process: &Process) -> Result<()> {
        eventually(LIMIT, || {
            let ended = process.exit_status()?;
            ensure!(ended.is_none(), "GoBGP ended: {ended:?}");
            self.namespace.enter(|| Ok(TcpStream::connect(API).map(drop)?))
        })
        .with_context(|| [Stream::Stdout, Stream::Stderr].map(|stream| process.output(stream)).concat())
    }
}

impl RoutingDaemon for GoBgp {
    const PROTOCOLS: &[&str] = &[];

    fn start(node: &Node, speaker: &Speaker) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("dataplane-gobgp-").tempdir()?;
        let speaker = speaker.clone();
        let mut gobgp = Self { namespace: node.namespace(), directory, speaker, process: None };
        gobgp.launch()?;
        Ok(gobgp)
    }

    fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "GoBGP runs");
        self.write()?;
        self.hold(true)?;
        let (config, api) = (self.config_file(), format!("{}:{}", API.0, API.1));
        let start = ["gobgpd", "--log-plain", "--pprof-disable", "--graceful-restart", "--api-hosts", &api];
        let file = ["--config-file".as_ref(), config.as_os_str()];
        let process = self.namespace.spawn(start.iter().map(AsRef::as_ref).chain(file))?;
        self.await_answer(&process)?;
        eventually(LIMIT, || self.tell("add", &self.speaker.blocks))?;
        self.hold(false)?;
        self.process = Some(process);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { bail!("GoBGP does not run") };
        process.signal(libc::SIGTERM)?;
        let status = process.wait(LIMIT)?;
        ensure!(status.success(), "GoBGP ended with {status}: {}", process.output(Stream::Stdout));
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { bail!("GoBGP does not run") };
        process.kill();
        Ok(())
    }

    fn change(&mut self, speaker: &Speaker) -> Result<()> {
        let before = std::mem::replace(&mut self.speaker, speaker.clone());
        if before.asn != speaker.asn {
            self.stop()?;
            return self.launch();
        }
        self.tell("del", &speaker.lacks(&before))?;
        self.tell("add", &before.lacks(speaker))?;
        self.write()?;
        self.process.as_ref().context("GoBGP does not run")?.signal(libc::SIGHUP)
    }

    fn disable(&mut self, neighbour: Ipv4Addr) -> Result<()> {
        self.gobgp(&format!("neighbor {neighbour} disable")).map(drop)
    }

    fn enable(&mut self, neighbour: Ipv4Addr) -> Result<()> {
        self.gobgp(&format!("neighbor {neighbour} enable")).map(drop)
    }

    fn next_hop(&self, prefix: &str) -> Result<Option<Ipv4Addr>> {
        let text = self.gobgp(&format!("-j global rib {prefix}"))?;
        let Ok(paths) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        let best = &paths[prefix][0];
        // Its own blocks have no peer.
        let hop = best["attrs"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|attribute| attribute["nexthop"].as_str());
        Ok(hop.map(str::parse).transpose()?)
    }

    fn is_established(&self, neighbour: Ipv4Addr) -> Result<bool> {
        let text = self.gobgp(&format!("-j neighbor {neighbour}"))?;
        let peer: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        Ok(peer["state"]["session_state"] == ESTABLISHED)
    }
}

/// The file for a speaker, but for its blocks.
fn config(speaker: &Speaker) -> String {
    let Speaker { address, asn, neighbours, .. } = speaker;
    let mut text = format!("[global.config]\nas = {asn}\nrouter-id = \"{address}\"\n");
    for neighbour in neighbours {
        let Neighbour { address: peer, asn, port, password, passive, ttl_security, graceful_restart, .. } =
            neighbour;
        let password = password.as_deref().unwrap_or_default();
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{peer}\"\npeer-as = {asn}\n\
             auth-password = \"{password}\"\n\
             [neighbors.transport.config]\nremote-port = {port}\npassive-mode = {passive}\n\
             [neighbors.ttl-security.config]\nenabled = {ttl_security}\nttl-min = 255\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n\
             [neighbors.route-reflector.config]\nroute-reflector-client = {}\n\
             route-reflector-cluster-id = \"{address}\"\n\
             [neighbors.graceful-restart.config]\nenabled = {graceful_restart}\nrestart-time = 60\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = {graceful_restart}\n",
            neighbour.reflector_client
        );
    }
    text
}
