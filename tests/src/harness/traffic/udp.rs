//! UDP between namespaces.

use std::{
    fmt::Display,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::harness::{
    netns::Namespace,
    topology::parse,
    wait::{patient, uninterrupted},
};

/// How long a datagram may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Two UDP sockets that talk to each other.
#[derive(Debug)]
pub struct UdpPair {
    /// The end that speaks first, connected to the other.
    pub client: UdpSocket,
    /// The end that answers.
    pub server: UdpSocket,
}

impl UdpPair {
    /// A socket in one namespace that will send to `address`, where one in the other has a port of its own.
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// If there is no route to the address.
    pub fn new(client: &Namespace, server: &Namespace, address: impl Display) -> Result<Self> {
        let address = parse(address)?;
        let server = server.enter(|| match UdpSocket::bind((address, 0)) {
            // It is reached by translation, under an address that is not its own.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?)
            }
            bound => Ok(bound?),
        })?;
        let to = SocketAddr::from((address, server.local_addr()?.port()));
        let client = client.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(to).with_context(|| format!("no route to {to} from {}", client.name()))?;
            Ok(socket)
        })?;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(patient(PATIENCE)))?;
        }
        Ok(Self { client, server })
    }

    /// Sends a datagram there and the same one back; gives the client's address as the server sees it.
    ///
    /// # Errors
    /// If one is lost, altered, or answered with an ICMP error.
    pub fn exchange(&self, payload: &[u8]) -> Result<SocketAddr> {
        self.client.send(payload).context("cannot send the request")?;
        let mut buffer = vec![0; payload.len() + 1];
        let (length, from) =
            uninterrupted(|| self.server.recv_from(&mut buffer)).context("the request did not come")?;
        ensure!(buffer[..length] == *payload, "the request came with another payload");
        self.server.send_to(payload, from).context("cannot send the reply")?;
        let length = uninterrupted(|| self.client.recv(&mut buffer)).context("the reply did not come")?;
        ensure!(buffer[..length] == *payload, "the reply came with another payload");
        Ok(from)
    }
}

/// One [`UdpPair::exchange`] with sockets of its own.
///
/// # Errors
/// As [`UdpPair::new`] and [`UdpPair::exchange`].
pub fn udp_exchange(
    client: &Namespace,
    server: &Namespace,
    address: impl Display,
    payload: &[u8],
) -> Result<SocketAddr> {
    UdpPair::new(client, server, address)?.exchange(payload)
}
