//! Connections in a row from a container to one server outside, through MASQUERADE: more of them than the container has
//! ports. Beside the whole, the slowest thousand counts: a port that comes round again must not have to wait for the server,
//! which keeps the connection of before in TIME_WAIT.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Fabric, Namespace};

use super::baseline::Path;
use super::finding::{Finding, Sample};
use super::site::{self, GATEWAY, Site};
use super::{Bench, interrupt, machine};

const CASE: &str = "churn";

/// The server's port.
const PORT: u16 = 7_000;

/// Connections of one measurement, and of a short one.
const CONNECTIONS: [usize; 2] = [60_000, 12_000];

/// Connections that are timed together.
const PART: usize = 1_000;

/// No step of a connection takes longer unless packets are lost again and again.
const LIMIT: Duration = Duration::from_secs(10);

/// What is found, by the variant's name.
const VARIANTS: [&str; 2] = ["MASQUERADE, all", "MASQUERADE, slowest thousand"];

/// Against each baseline that translates.
pub(super) fn run(bench: &Bench) -> Result<Vec<Finding>> {
    let fabric = Fabric::new()?;
    let outside = Namespace::new("outside")?;
    fabric.plug(&outside, "eth0", Some(&format!("{GATEWAY}/{}", site::FABRIC_LENGTH)))?;
    let server = outside.enter(|| Ok(TcpListener::bind((GATEWAY, PORT))?))?;
    limit_accept(&server)?;
    let ours = bench.site(&fabric, Path::Dataplane, 1, &[])?;
    let mut findings = Vec::new();
    for &path in bench.baselines().iter().filter(|path| **path != Path::Route) {
        match against(bench, &fabric, &server, &ours, path) {
            Ok(found) => findings.extend(found),
            Err(error) => bench.leave_out(path.name(), error)?,
        }
    }
    ours.finish()?;
    Ok(findings)
}

fn against(
    bench: &Bench,
    fabric: &Fabric,
    server: &TcpListener,
    ours: &Site,
    path: Path,
) -> Result<Vec<Finding>> {
    let theirs = bench.site(fabric, path, 2, &[])?;
    let mut samples = [Vec::new(), Vec::new()];
    for pair in 0..bench.pairs {
        let (a, b) = (rates(bench, server, ours)?, rates(bench, server, &theirs)?);
        for (samples, (a, b)) in samples.iter_mut().zip(a.into_iter().zip(b)) {
            samples.push(Sample::pair(a, b));
        }
        let text =
            format!("{:.0} / {:.0} connections/s, slowest thousand {:.0} / {:.0}", a[0], b[0], a[1], b[1]);
        bench.progress(CASE, path.name(), pair, &text);
    }
    theirs.finish()?;
    let findings = VARIANTS.into_iter().zip(samples).map(|(variant, samples)| {
        Finding::new(CASE, variant, "rate", "connections/s", samples).against(path.name())
    });
    Ok(findings.collect())
}

/// Connections per second, of all and of the slowest thousand.
fn rates(bench: &Bench, server: &TcpListener, site: &Site) -> Result<[f64; 2]> {
    interrupt::check()?;
    let (cpu, address) = (bench.cpu, server.local_addr()?);
    let parts = CONNECTIONS[usize::from(bench.is_quick)] / PART;
    // One thread is client and server in turn: nobody waits for the scheduler.
    let seconds = site.container.enter(|| {
        machine::put_among_equals(thread_id()?, cpu)?;
        (0..parts)
            .map(|part| {
                let begin = Instant::now();
                for number in part * PART..(part + 1) * PART {
                    connection(server, address).with_context(|| format!("connection {number}"))?;
                }
                Ok(begin.elapsed().as_secs_f64())
            })
            .collect::<Result<Vec<f64>>>()
    })?;
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    Ok([(parts * PART) as f64 / seconds.iter().sum::<f64>(), PART as f64 / slowest])
}

/// One connection with a request and an answer, which the server closes first.
fn connection(server: &TcpListener, address: SocketAddr) -> Result<()> {
    let mut client = TcpStream::connect_timeout(&address, LIMIT)?;
    client.set_read_timeout(Some(LIMIT))?;
    client.write_all(b"?")?;
    let (mut accepted, _) = server.accept()?;
    accepted.set_read_timeout(Some(LIMIT))?;
    let mut text = [0; 1];
    accepted.read_exact(&mut text)?;
    accepted.write_all(b"!")?;
    drop(accepted);
    client.read_exact(&mut text)?;
    ensure!(client.read(&mut text)? == 0, "the server sent more than its answer");
    Ok(())
}

/// Lets the server wait no longer than [`LIMIT`] for a connection (socket(7), SO_RCVTIMEO).
fn limit_accept(server: &TcpListener) -> Result<()> {
    let limit = libc::timeval { tv_sec: libc::time_t::try_from(LIMIT.as_secs())?, tv_usec: 0 };
    let length = libc::socklen_t::try_from(size_of_val(&limit))?;
    // SAFETY: the descriptor is open and the value outlives the call.
    let result = unsafe {
        libc::setsockopt(
            server.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const limit).cast(),
            length,
        )
    };
    ensure!(result == 0, "cannot limit accept(): {}", io::Error::last_os_error());
    Ok(())
}

/// The calling thread, as the kernel numbers it.
fn thread_id() -> Result<u32> {
    // SAFETY: a call without arguments that cannot fail.
    Ok(u32::try_from(unsafe { libc::gettid() })?)
}
