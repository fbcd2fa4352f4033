//! From a new container's route appearing in the kernel to its first packet carried by BPF, in each direction.
//!
//! The node's kernel drops whatever it would forward itself, so what arrives was carried by BPF. Frames are
//! put on the links as they are, so that no wait for an ARP answer is measured.

use std::io::{ErrorKind, Write as _};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::harness::inject::Injector;
use tests::harness::packet::{Frame, Ipv4, Udp};
use tests::harness::{Config, Container, ContainerSpec, Daemon, Fabric, Namespace, Node, topology::HOST_MAC};

use super::finding::{Finding, Sample};
use super::site::port_of;
use super::{Bench, interrupt};

const PORT: u16 = 9;
/// A frame is sent in each direction this often until one arrives.
const PERIOD: Duration = Duration::from_micros(50);
/// A container that is not reached within this time never is.
const LIMIT: Duration = Duration::from_secs(5);
const KERNEL_FORWARDS_NOTHING: &str =
    "table ip bench { chain forward { type filter hook forward priority 0; policy drop; }; }";

/// The containers come up one after another while the data path runs.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node", "10.141.0.1")?;
    node.run_with_input(["nft", "-f", "-"], KERNEL_FORWARDS_NOTHING).ok()?;
    let known = node.routed_container("cali0", "172.19.35.250")?;
    let specs: Result<Vec<_>> = (1..=bench.containers)
        .map(|n| ContainerSpec::new(&format!("cali{n}"), format!("172.19.35.{n}")))
        .collect();
    let containers = node.add(&specs?)?;
    let config = Config::new().node("uplinks", r#"["eth0"]"#).pool("172.19.0.0/16").block("172.19.35.0/24");
    let daemon = bench.daemon(&bench.binary, &node, &config)?;
    let samples = measure(bench, &fabric, &node, &known, &containers)?;
    Daemon::finish(daemon)?;
    let finding = |variant: &str, samples: Vec<Sample>| {
        Finding::new("new-endpoint", variant, "time-to-first-packet", "ms", samples)
    };
    let (to, from) = samples.into_iter().unzip();
    Ok(vec![finding("to the container", to), finding("from the container", from)])
}

fn measure(
    bench: &Bench,
    fabric: &Fabric,
    node: &Node,
    known: &Container,
    containers: &[Container],
) -> Result<Vec<(Sample, Sample)>> {
    let uplink = Injector::new(fabric, &port_of(fabric, node)?)?;
    let node_mac = node.mac("eth0")?;
    let at_known = socket(known)?;
    let mut routes = Routes::new(node)?;
    let mut samples = Vec::new();
    for (number, container) in containers.iter().enumerate() {
        interrupt::check()?;
        let payload = [number as u8];
        let udp = || Udp::new(PORT, PORT, payload);
        let to = Ipv4::new([172, 19, 200, 1], container.address, udp());
        let from = Ipv4::new(container.address, known.address, udp());
        let mut in_bound = Direction {
            link: &uplink,
            frame: Frame::new([2, 0, 0, 0, 0, 1], node_mac, to).bytes(),
            receiver: &socket(container)?,
            arrived: None,
        };
        let mut out_bound = Direction {
            link: &Injector::new(container, "eth0")?,
            frame: Frame::new(container.mac("eth0")?, HOST_MAC, from).bytes(),
            receiver: &at_known,
            arrived: None,
        };
        // What BPF drops before the route is there is sent once, so that the first real try meets warm code.
        in_bound.attempt(&payload, Instant::now())?;
        ensure!(in_bound.arrived.is_none(), "{} is reached before it has a route", container.interface);
        let begin = Instant::now();
        routes.add(container)?;
        while in_bound.arrived.is_none() || out_bound.arrived.is_none() {
            in_bound.attempt(&payload, begin)?;
            out_bound.attempt(&payload, begin)?;
            ensure!(begin.elapsed() < LIMIT, "{} is not reached within {LIMIT:?}", container.interface);
            thread::sleep(PERIOD);
        }
        let times = [in_bound.arrived, out_bound.arrived].map(Option::unwrap_or_default);
        let [to, from] = times.map(|time| Sample::alone(time.as_secs_f64() * 1e3));
        samples.push((to, from));
        if number % 10 == 9 {
            let text = format!("{:.2} ms to, {:.2} ms from", to.dataplane, from.dataplane);
            bench.say("new-endpoint", &format!("{} of {}: {text}", number + 1, containers.len()));
        }
    }
    Ok(samples)
}

/// One way of a container's packets.
struct Direction<'a> {
    link: &'a Injector,
    frame: Vec<u8>,
    receiver: &'a UdpSocket,
    arrived: Option<Duration>,
}

impl Direction<'_> {
    /// Sends a frame unless one arrived; veths carry it all the way before the call returns.
    fn attempt(&mut self, payload: &[u8; 1], begin: Instant) -> Result<()> {
        if self.arrived.is_some() {
            return Ok(());
        }
        self.link.send(&self.frame)?;
        let mut buffer = [0; 16];
        match self.receiver.recv(&mut buffer) {
            // Another's is a late one of the container before.
            Ok(length) if buffer[..length] == *payload => self.arrived = Some(begin.elapsed()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
        Ok(())
    }
}

fn socket(place: &Namespace) -> Result<UdpSocket> {
    place.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

/// An `ip` that waits for lines, so that starting it is not measured.
struct Routes {
    ip: Child,
    lines: ChildStdin,
}

impl Routes {
    fn new(node: &Node) -> Result<Self> {
        let mut ip = node
            .command(["ip", "-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start ip")?;
        let lines = ip.stdin.take().context("ip has no standard input")?;
        Ok(Self { ip, lines })
    }

    fn add(&mut self, container: &Container) -> Result<()> {
        let Container { address, interface, .. } = container;
        let line = format!("route add {address}/32 dev {interface} scope link\n");
        self.lines.write_all(line.as_bytes()).context("cannot tell ip a route")
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.ip.kill();
        let _ = self.ip.wait();
    }
}
