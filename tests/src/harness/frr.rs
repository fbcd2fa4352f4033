//! FRR: zebra writes the kernel's routes, staticd has the blackholes, bgpd speaks BGP.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    os::unix::{fs::chown, net::UnixStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Namespace, Node, Process, Stream, eventually,
    routing::{Neighbour, RoutingDaemon, Speaker, kernel_next_hop},
};

/// How long one of its programs may take to answer on its socket, or to end.
const LIMIT: Duration = Duration::from_secs(10);

/// Where Debian has its programs.
const PROGRAMS: &str = "/usr/lib/frr";

/// An FRR with configuration files and sockets of its own.
#[derive(Debug)]
pub struct Frr {
    namespace: Arc<Namespace>,
    directory: TempDir,
    speaker: Speaker,
    /// In the order of starting.
    processes: Vec<Process>,
}

impl Frr {
    /// Runs commands of its shell, one after another: `vtysh(&["show ip route"])`.
    ///
    /// # Errors
    /// If it does not understand one.
    pub fn vtysh<S: Into<OsString>>(&self, commands: impl IntoIterator<Item = S>) -> Result<String> {
        let sockets = self.directory.path().as_os_str().to_owned();
        let start = ["vtysh".into(), "--vty_socket".into(), sockets];
        let commands = commands.into_iter().flat_map(|command| ["-c".into(), command.into()]);
        self.namespace.run(start.into_iter().chain(commands)).ok()
    }

    /// Gives it lines of configuration.
    fn configure(&self, lines: &str) -> Result<()> {
        self.vtysh(["configure terminal"].into_iter().chain(lines.lines())).map(drop)
    }

    fn shutdown(&self, neighbour: Ipv4Addr, no: &str) -> Result<()> {
        self.configure(&format!("router bgp {}\n{no}neighbor {neighbour} shutdown", self.speaker.asn))
    }

    fn programs(&self) -> Vec<(&'static str, String, &'static [&'static str])> {
        // What is in the kernel from before is kept for a minute, for bgpd to find it again.
        let zebra: (_, _, &[_]) = ("zebra", String::new(), &["-K", "60"]);
        let staticd: (_, _, &[_]) = ("staticd", statics(&self.speaker.blocks, ""), &[]);
        let bgpd = ("bgpd", bgp(&self.speaker));
        match self.speaker.kernel_table {
            Some(_) => vec![zebra, staticd, (bgpd.0, bgpd.1, &[])],
            None => vec![(bgpd.0, bgpd.1, &["-n"])],
        }
    }

    fn run(&self, program: &str, config: &str, options: &[&str]) -> Result<Process> {
        let at = |suffix: &str| self.directory.path().join(format!("{program}.{suffix}"));
        let (file, socket) = (at("conf"), at("vty"));
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        // One that was killed leaves its socket behind, which is not to be taken for the next one's.
        if socket.exists() {
            fs::remove_file(&socket).context("cannot remove FRR's socket")?;
        }
        let path = |path: PathBuf| path.into_os_string();
        let start = [OsString::from(format!("{PROGRAMS}/{program}")), "--log".into(), "stdout".into()];
        let places = [
            ("-f", path(file)),
            ("-i", path(at("pid"))),
            ("--vty_socket", path(self.directory.path().to_owned())),
            ("-z", path(self.directory.path().join("zserv"))),
        ];
        let places = places.into_iter().flat_map(|(option, path)| [option.into(), path]);
        let process =
            self.namespace.spawn(start.into_iter().chain(places).chain(options.iter().map(Into::into)))?;
        eventually(LIMIT, || {
            let ended = process.exit_status()?;
            match UnixStream::connect(&socket) {
                Ok(_) => Ok(()),
                Err(error) => bail!("{program} does not answer ({error}, ended: {ended:?})"),
            }
        })
        .with_context(|| [Stream::Stdout, Stream::Stderr].map(|stream| process.output(stream)).concat())?;
        Ok(process)
    }
}

impl RoutingDaemon for Frr {
    /// zebra gives each route the number of the program that it is of; 196 is staticd's.
    const PROTOCOLS: &[&str] = &["bgp", "196"];

    fn start(node: &Node, speaker: &Speaker) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("dataplane-frr-").tempdir()?;
        let (user, group) = user()?;
        chown(directory.path(), Some(user), Some(group)).context("cannot give FRR its directory")?;
        let speaker = speaker.clone();
        let mut frr = Self { namespace: node.namespace(), directory, speaker, processes: Vec::new() };
        frr.launch()?;
        Ok(frr)
    }

    fn launch(&mut self) -> Result<()> {
        ensure!(self.processes.is_empty(), "FRR runs");
        let main = u32::from(libc::RT_TABLE_MAIN);
        ensure!(self.speaker.kernel_table.is_none_or(|table| table == main), "zebra's table is the main one");
        for (program, config, options) in self.programs() {
            let process = self.run(program, &config, options)?;
            self.processes.push(process);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        ensure!(!self.processes.is_empty(), "FRR does not run");
        for process in self.processes.drain(..).rev() {
            process.signal(libc::SIGTERM)?;
            let status = process.wait(LIMIT)?;
            ensure!(status.success(), "{process} ended with {status}: {}", process.output(Stream::Stdout));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        ensure!(!self.processes.is_empty(), "FRR does not run");
        // bgpd first: its end is nothing that zebra may act upon.
        let processes: Vec<Process> = self.processes.drain(..).collect();
        processes.iter().for_each(Process::kill);
        Ok(())
    }

    fn change(&mut self, speaker: &Speaker) -> Result<()> {
        let before = std::mem::replace(&mut self.speaker, speaker.clone());
        let (gone, new) = (speaker.lacks(&before), before.lacks(speaker));
        let mut lines = String::new();
        if speaker.kernel_table.is_some() {
            lines += &(statics(&gone, "no ") + &statics(&new, ""));
        }
        if (before.asn, &before.neighbours) == (speaker.asn, &speaker.neighbours) {
            lines += &format!("router bgp {}\naddress-family ipv4 unicast\n", speaker.asn);
            lines += &(networks(&gone, "no ") + &networks(&new, ""));
        } else {
            lines += &format!("no router bgp {}\n{}", before.asn, bgp(speaker));
        }
        self.configure(&lines)
    }

    fn disable(&mut self, neighbour: Ipv4Addr) -> Result<()> {
        self.shutdown(neighbour, "")
    }

    fn enable(&mut self, neighbour: Ipv4Addr) -> Result<()> {
        self.shutdown(neighbour, "no ")
    }

    fn next_hop(&self, prefix: &str) -> Result<Option<Ipv4Addr>> {
        kernel_next_hop(&self.namespace, prefix)
    }

    fn is_established(&self, neighbour: Ipv4Addr) -> Result<bool> {
        let text = self.vtysh(["show bgp ipv4 unicast summary json"])?;
        let summary: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        Ok(summary["peers"][neighbour.to_string()]["state"] == "Established")
    }
}

/// The user and group that its programs become: FRR's package makes them.
fn user() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let frr = lines.find(|fields| fields.first() == Some(&"frr")).context("there is no user frr")?;
    let [_, _, user, group, ..] = frr.as_slice() else { bail!("the user frr has no number") };
    Ok((user.parse()?, group.parse()?))
}

fn statics(blocks: &[String], no: &str) -> String {
    blocks.iter().map(|block| format!("{no}ip route {block} blackhole\n")).collect()
}

fn networks(blocks: &[String], no: &str) -> String {
    blocks.iter().map(|block| format!("{no}network {block}\n")).collect()
}

/// bgpd's file. Next hops are found by the connected networks, which are told to nobody; routers of other systems are
/// believed without a policy. The times are shorter than FRR's own, which would be most of a test.
fn bgp(speaker: &Speaker) -> String {
    let Speaker { address, asn, neighbours, .. } = speaker;
    let mut text = format!(
        "router bgp {asn}\n bgp router-id {address}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n"
    );
    for Neighbour { address, asn, port, password, ttl_security, passive, graceful_restart, .. } in neighbours
    {
        let line = |text: &mut String, words: &str| {
            let _ = writeln!(text, " neighbor {address} {words}");
        };
        line(&mut text, &format!("remote-as {asn}"));
        line(&mut text, &format!("port {port}"));
        line(&mut text, "timers connect 1");
        line(&mut text, "advertisement-interval 0");
        if let Some(password) = password {
            line(&mut text, &format!("password {password}"));
        }
        if *ttl_security {
            line(&mut text, "ttl-security hops 1");
        }
        if *passive {
            line(&mut text, "passive");
        }
        if !graceful_restart {
            line(&mut text, "graceful-restart-disable");
        }
    }
    text += " address-family ipv4 unicast\n";
    text += &networks(&speaker.blocks, "  ");
    for Neighbour { address, reflector_client, .. } in neighbours {
        // A reflector passes on what others told it, with their next hop (RFC 4456, section 10).
        let role = if *reflector_client { "route-reflector-client" } else { "next-hop-self" };
        let _ = writeln!(text, "  neighbor {address} {role}");
    }
    text + " exit-address-family\n"
}
