//! TCP connections between namespaces, and bytes over them.

use std::{
    collections::hash_map::RandomState,
    fmt::Display,
    hash::BuildHasher,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::harness::{
    netns::Namespace,
    topology::parse,
    wait::{eventually, patient, uninterrupted},
};

/// How long a connection may take to open, and how long it may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the random block that a stream repeats: odd, so that no loss of whole segments fits again.
const BLOCK: usize = (1 << 20) + 13;

/// Bytes that arrived as they were sent.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// How many.
    pub bytes: u64,
    /// From the first one sent to the last one received.
    pub elapsed: Duration,
    /// The client's address and port as the server sees them: the translated ones, if there is translation.
    pub client_seen_as: SocketAddr,
}

impl Transfer {
    /// Bits of payload per second.
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64()
    }
}

/// An open TCP connection, both ends of it in the test's hands.
#[derive(Debug)]
pub struct TcpPair {
    /// The end that connected.
    pub client: TcpStream,
    /// The end that accepted.
    pub server: TcpStream,
}

impl TcpPair {
    /// Connects from one namespace to `address`, where a socket in the other listens on a port of its own.
    ///
    /// # Errors
    /// If the connection is refused, or not open within ten seconds.
    pub fn connect(client: &Namespace, server: &Namespace, address: impl Display) -> Result<Self> {
        let address = parse(address)?;
        let listener = server.enter(|| {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let to = SocketAddr::from((address, listener.local_addr()?.port()));
        let client = client.enter(|| {
            TcpStream::connect_timeout(&to, patient(PATIENCE))
                .with_context(|| format!("no TCP connection to {to} from {}", client.name()))
        })?;
        // The client is through with the handshake one packet before the server.
        let (server, _) = eventually(PATIENCE, || Ok(listener.accept()?))
            .with_context(|| format!("{to} did not see the end of the handshake"))?;
        server.set_nonblocking(false)?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(patient(PATIENCE)))?;
            stream.set_write_timeout(Some(patient(PATIENCE)))?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { client, server })
    }

    /// Sends random bytes from the client to the server, and compares every one.
    ///
    /// # Errors
    /// If a byte differs or does not come; the offset is told.
    pub fn upload(&self, bytes: u64) -> Result<Transfer> {
        self.transfer(&self.client, &self.server, bytes)
    }

    /// Sends random bytes from the server to the client, and compares every one.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn download(&self, bytes: u64) -> Result<Transfer> {
        self.transfer(&self.server, &self.client, bytes)
    }

    /// A few bytes each way: whether the connection still lives.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn exchange(&self) -> Result<()> {
        self.upload(100)?;
        self.download(100).map(drop)
    }

    fn transfer(&self, from: &TcpStream, to: &TcpStream, bytes: u64) -> Result<Transfer> {
        let block = random_block();
        let start = Instant::now();
        thread::scope(|scope| {
            let sender = scope.spawn(|| send(from, &block, bytes));
            let received = receive(to, &block, bytes);
            let sent = sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?;
            // The receiver's error comes first: it names the byte, and the sender's only follows from it.
            received?;
            sent
        })?;
        Ok(Transfer { bytes, elapsed: start.elapsed(), client_seen_as: self.server.peer_addr()? })
    }
}

/// Connects, and sends that many bytes from the client to the server; see [`TcpPair`].
///
/// # Errors
/// As [`TcpPair::connect`] and [`TcpPair::upload`].
pub fn tcp_transfer(
    client: &Namespace,
    server: &Namespace,
    address: impl Display,
    bytes: u64,
) -> Result<Transfer> {
    TcpPair::connect(client, server, address)?.upload(bytes)
}

/// Connects, and sends that many bytes from the server to the client; see [`TcpPair`].
///
/// # Errors
/// As [`TcpPair::connect`] and [`TcpPair::download`].
pub fn tcp_download(
    client: &Namespace,
    server: &Namespace,
    address: impl Display,
    bytes: u64,
) -> Result<Transfer> {
    TcpPair::connect(client, server, address)?.download(bytes)
}

fn random_block() -> Vec<u8> {
    // xorshift64* from a random seed: no compression or pattern in it, and quick to make. Never zero.
    let mut state = RandomState::new().hash_one(0) | 1;
    let mut block = Vec::with_capacity(BLOCK + 8);
    while block.len() < BLOCK {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        block.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    block.truncate(BLOCK);
    block
}

fn send(mut stream: &TcpStream, block: &[u8], bytes: u64) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(BLOCK as u64) as usize;
        stream.write_all(&block[..piece]).with_context(|| format!("cannot send byte {}", bytes - left))?;
        left -= piece as u64;
    }
    Ok(())
}

fn receive(mut stream: &TcpStream, block: &[u8], bytes: u64) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < bytes {
        let in_block = (offset % BLOCK as u64) as usize;
        // Up to the block's end only, so that one comparison does.
        let wanted = (bytes - offset).min((BLOCK - in_block) as u64) as usize;
        let room = buffer.len().min(wanted);
        let got = uninterrupted(|| stream.read(&mut buffer[..room]))
            .with_context(|| format!("byte {offset} did not come"))?;
        ensure!(got > 0, "the connection ended before byte {offset} of {bytes}");
        let expected = &block[in_block..in_block + got];
        if buffer[..got] != *expected {
            let wrong = buffer.iter().zip(expected).take_while(|(got, sent)| got == sent).count() as u64;
            anyhow::bail!("byte {} of {bytes} is not the one that was sent", offset + wrong);
        }
        offset += got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Result<TcpPair> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok(TcpPair { client, server: uninterrupted(|| listener.accept())?.0 })
    }

    #[test]
    fn a_wrong_byte_is_found() -> Result<()> {
        let pair = loopback()?;
        let sent = random_block();
        let mut expected = sent.clone();
        expected[1000] ^= 1;
        send(&pair.client, &sent, 2000)?;
        let error = receive(&pair.server, &expected, 2000).unwrap_err();
        assert_eq!(error.to_string(), "byte 1000 of 2000 is not the one that was sent");
        Ok(())
    }

    #[test]
    fn an_early_end_is_found() -> Result<()> {
        let TcpPair { client, server } = loopback()?;
        let block = random_block();
        send(&client, &block, 10)?;
        drop(client);
        let error = receive(&server, &block, 11).unwrap_err();
        assert_eq!(error.to_string(), "the connection ended before byte 10 of 11");
        Ok(())
    }
}
