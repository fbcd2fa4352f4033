//! BIRD 2, the routing daemon of Calico.

use std::{
    fmt::Write as _, fs, net::Ipv4Addr, os::unix::net::UnixStream, path::PathBuf, sync::Arc, time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{
    Namespace, Node, Process, Stream, eventually,
    routing::{Neighbour, RoutingDaemon, Speaker, kernel_next_hop},
};

/// How long it may take to answer on its socket, or to end.
const LIMIT: Duration = Duration::from_secs(10);

/// A BIRD with its own configuration file and control socket.
#[derive(Debug)]
pub struct Bird {
    namespace: Arc<Namespace>,
    directory: TempDir,
    process: Option<Process>,
}

impl Bird {
    /// Starts it with a configuration file of the caller's: for what a [`Speaker`] cannot say.
    ///
    /// # Errors
    /// As [`RoutingDaemon::start`].
    pub fn with_config(node: &Node, config: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("dataplane-bird-").tempdir()?;
        let mut bird = Self { namespace: node.namespace(), directory, process: None };
        bird.write(config)?;
        bird.launch()?;
        Ok(bird)
    }

    /// Runs `birdc COMMAND` and gives what it says: `birdc("show route count")`.
    ///
    /// # Errors
    /// If BIRD does not answer.
    pub fn birdc(&self, command: &str) -> Result<String> {
        let socket = self.socket().to_string_lossy().into_owned();
        let arguments = ["birdc", "-s", &socket].into_iter().chain(command.split_whitespace());
        let text = self.namespace.run(arguments).ok()?;
        ensure!(!text.contains("syntax error"), "BIRD does not understand `{command}`: {text}");
        Ok(text)
    }

    /// The state of a protocol as `birdc show protocols` has it: `up` or `start`, and BGP's own state.
    ///
    /// # Errors
    /// If there is no such protocol.
    pub fn protocol(&self, name: &str) -> Result<(String, String)> {
        let text = self.birdc(&format!("show protocols {name}"))?;
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        let line = line.with_context(|| format!("BIRD has no protocol {name}: {text}"))?;
        // Name, kind, table, state, since (time, or date and time), and what BGP adds.
        let words: Vec<&str> = line.split_whitespace().collect();
        let state = words.get(3).context("a protocol without a state")?;
        let info = words.iter().skip(4).find(|word| !word.starts_with(|first: char| first.is_ascii_digit()));
        Ok(((*state).to_owned(), info.copied().unwrap_or_default().to_owned()))
    }

    /// Reads another configuration file.
    ///
    /// # Errors
    /// If BIRD refuses it, with what it says.
    pub fn configure(&mut self, config: &str) -> Result<()> {
        self.write(config)?;
        let said = self.birdc("configure")?;
        ensure!(said.contains("Reconfigur"), "BIRD refused its configuration: {said}");
        Ok(())
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(|process| process.output(Stream::Stderr)).unwrap_or_default()
    }

    fn write(&self, config: &str) -> Result<()> {
        let path = self.config_file();
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))
    }

    fn config_file(&self) -> PathBuf {
        self.directory.path().join("bird.conf")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("bird.ctl")
    }
}

impl RoutingDaemon for Bird {
    const PROTOCOLS: &[&str] = &["bird"];

    fn start(node: &Node, speaker: &Speaker) -> Result<Self> {
        Self::with_config(node, &config(speaker))
    }

    fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "BIRD runs");
        let (config, socket) = (self.config_file(), self.socket());
        // -R: a restart is a graceful one (RFC 4724), where the peer agreed to it.
        let process = self.namespace.spawn([
            "bird".as_ref(),
            "-f".as_ref(),
            "-R".as_ref(),
            "-c".as_ref(),
            config.as_os_str(),
            "-s".as_ref(),
            socket.as_os_str(),
        ])?;
        eventually(LIMIT, || {
            let ended = process.exit_status()?;
            match UnixStream::connect(&socket) {
                Ok(_) => Ok(()),
                Err(error) => bail!("BIRD does not answer ({error}, ended: {ended:?})"),
            }
        })
        .with_context(|| process.output(Stream::Stderr))?;
        self.process = Some(process);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { bail!("BIRD does not run") };
        process.signal(libc::SIGTERM)?;
        let status = process.wait(LIMIT)?;
        ensure!(status.success(), "BIRD ended with {status}: {}", process.output(Stream::Stderr));
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { bail!("BIRD does not run") };
        process.kill();
        // It stays behind where BIRD could not remove it, and the next one is not to be taken for the old one.
        fs::remove_file(self.socket()).context("BIRD had no socket")
    }

    fn change(&mut self, speaker: &Speaker) -> Result<()> {
        self.configure(&config(speaker))
    }

    fn disable(&mut self, neighbour: Ipv4Addr) -> Result<()> {
        self.birdc(&format!("disable {}", name(neighbour))).map(drop)
    }

    fn enable(&mut self, neighbour: Ipv4Addr) -> Result<()> {
        self.birdc(&format!("enable {}", name(neighbour))).map(drop)
    }

    fn next_hop(&self, prefix: &str) -> Result<Option<Ipv4Addr>> {
        kernel_next_hop(&self.namespace, prefix)
    }

    fn is_established(&self, neighbour: Ipv4Addr) -> Result<bool> {
        Ok(self.protocol(&name(neighbour))?.1 == "Established")
    }
}

/// The name of the protocol that speaks to that peer.
pub fn name(neighbour: Ipv4Addr) -> String {
    format!("peer_{}", neighbour.to_string().replace('.', "_"))
}

/// The file for a speaker, much like Calico's: next hops are found by the connected networks, which are told
/// to nobody. The times are shorter than BIRD's own (5 s and more), which would be most of a test.
pub fn config(speaker: &Speaker) -> String {
    let Speaker { address, blocks, kernel_table, .. } = speaker;
    let mut text = format!(
        "log stderr all;\nrouter id {address};\nprotocol device {{ scan time 1; }}\n\
         protocol direct {{ ipv4; interface -\"cali*\", \"*\"; }}\n\
         protocol static blocks {{\n ipv4;\n"
    );
    for block in blocks {
        let _ = writeln!(text, " route {block} blackhole;");
    }
    text += "}\n";
    if let Some(table) = kernel_table {
        let _ = writeln!(
            text,
            "protocol kernel {{\n scan time 1;\n kernel table {table};\n graceful restart on;\n \
             ipv4 {{ import none; export where source != RTS_DEVICE; }};\n}}"
        );
    }
    speaker.neighbours.iter().for_each(|neighbour| text += &peer(speaker, neighbour));
    text
}

fn peer(speaker: &Speaker, neighbour: &Neighbour) -> String {
    let Speaker { address, asn, .. } = speaker;
    let Neighbour { address: peer, asn: peer_asn, port, .. } = neighbour;
    let mut text = format!(
        "protocol bgp {} {{\n local {address} as {asn};\n neighbor {peer} port {port} as {peer_asn};\n \
         connect delay time 1;\n connect retry time 1;\n error wait time 1, 2;\n",
        name(*peer)
    );
    if let Some(password) = &neighbour.password {
        let _ = writeln!(text, " password \"{password}\";");
    }
    if neighbour.ttl_security {
        text += " direct;\n ttl security on;\n";
    }
    if neighbour.passive {
        text += " passive on;\n";
    }
    if neighbour.reflector_client {
        text += " rr client;\n";
    }
    let _ = writeln!(text, " graceful restart {};", if neighbour.graceful_restart { "on" } else { "off" });
    // A reflector passes on what others told it, with their next hop (RFC 4456, section 10).
    let channel = if neighbour.reflector_client {
        "import all; export where source != RTS_DEVICE;"
    } else {
        "next hop self; import all; export where source = RTS_STATIC;"
    };
    let _ = writeln!(text, " ipv4 {{ {channel} }};\n}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_called_after_its_peer() {
        assert_eq!(name(Ipv4Addr::new(10, 141, 0, 2)), "peer_10_141_0_2");
    }
}
