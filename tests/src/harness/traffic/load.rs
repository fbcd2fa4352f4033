//! Traffic that goes on while something happens, and of which every packet is accounted for.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read, Write},
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{TcpPair, UdpPair};
use crate::harness::wait::eventually;

/// Datagrams on the way at a time: fewer than any queue holds, so that one that does not come back was lost by a
/// forwarder and not by a full queue.
const WINDOW: usize = 64;

/// Bytes of a datagram's payload, its number among them.
const DATAGRAM: usize = 64;

/// How long datagrams are waited for before they are lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long answers are waited for, on a machine that has much else to do.
const STALLED: Duration = Duration::from_secs(60);

/// How much the threads give way to others (setpriority(2)).
const NICE: i32 = 5;

/// How often the threads look whether they are to end.
const POLL: Duration = Duration::from_millis(20);

/// What became of numbered datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Datagrams sent.
    pub sent: u64,
    /// Those that did not come back.
    pub lost: u64,
    /// Answers that came twice.
    pub duplicates: u64,
}

/// Traffic between two ends, in threads of its own, as fast as it is answered.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<Account>>>,
}

impl Load {
    /// Numbered datagrams there, and the same ones back.
    ///
    /// # Errors
    /// If a socket cannot be set up.
    pub fn udp(UdpPair { client, server }: UdpPair) -> Result<Self> {
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(POLL))?;
        }
        let mut load = Self::new();
        load.run(move |stop, rounds| ask(&client, stop, rounds));
        load.run(move |stop, _| echo(&server, stop));
        Ok(load)
    }

    /// Some bytes each way on each of the connections in turn, every byte compared.
    pub fn tcp(pairs: Vec<TcpPair>) -> Self {
        let mut load = Self::new();
        load.run(move |stop, rounds| {
            while !stop.load(Relaxed) {
                for (number, TcpPair { client, server }) in pairs.iter().enumerate() {
                    let text = format!("{number:08} {:08}", rounds.fetch_add(1, Relaxed));
                    for (mut from, mut to) in [(client, server), (server, client)] {
                        let mut arrived = vec![0; text.len()];
                        from.write_all(text.as_bytes())
                            .and_then(|()| to.read_exact(&mut arrived))
                            .with_context(|| format!("connection {number} does not live any more"))?;
                        ensure!(arrived == text.as_bytes(), "connection {number} brought other bytes");
                    }
                }
            }
            Ok(Account::default())
        });
        load
    }

    fn new() -> Self {
        Self { stop: Arc::default(), rounds: Arc::default(), threads: Vec::new() }
    }

    fn run(&mut self, work: impl FnOnce(&AtomicBool, &AtomicU64) -> Result<Account> + Send + 'static) {
        let (stop, rounds) = (Arc::clone(&self.stop), Arc::clone(&self.rounds));
        self.threads.push(thread::spawn(move || {
            // All the CPU that is left, and not what the daemon needs to start.
            // SAFETY: the call touches no memory; of id 0 it is this thread's alone (setpriority(2), "Bugs").
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
            work(&stop, &rounds)
        }));
    }

    /// Waits for so many further answers.
    ///
    /// # Errors
    /// If they do not come: with why, if a connection ended.
    pub fn continues(&self, rounds: u64) -> Result<()> {
        let goal = self.rounds.load(Relaxed) + rounds;
        eventually(STALLED, || {
            let now = self.rounds.load(Relaxed);
            ensure!(now >= goal, "{} of {rounds} answers are missing", goal - now);
            Ok(())
        })
    }

    /// Ends it; gives what became of the datagrams.
    ///
    /// # Errors
    /// If a socket failed.
    pub fn finish(mut self) -> Result<Account> {
        self.stop.store(true, Relaxed);
        let mut total = Account::default();
        for thread in self.threads.drain(..) {
            let account = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            total.sent += account.sent;
            total.lost += account.lost;
            total.duplicates += account.duplicates;
        }
        Ok(total)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn ask(socket: &UdpSocket, stop: &AtomicBool, rounds: &AtomicU64) -> Result<Account> {
    let (mut on_the_way, mut account) = (BTreeSet::new(), Account::default());
    let mut last = Instant::now();
    loop {
        let ends = stop.load(Relaxed);
        // What was lost is not waited for: it would stand in the way of the rest.
        while !ends && on_the_way.len() < WINDOW + account.lost as usize {
            let mut datagram = [0; DATAGRAM];
            datagram[..8].copy_from_slice(&account.sent.to_be_bytes());
            socket.send(&datagram).context("cannot send")?;
            on_the_way.insert(account.sent);
            account.sent += 1;
        }
        let mut datagram = [0; DATAGRAM];
        match receive(socket.recv(&mut datagram))? {
            Some(length) => {
                ensure!(length == DATAGRAM, "a datagram of {length} bytes");
                let number = u64::from_be_bytes(datagram[..8].try_into()?);
                if on_the_way.remove(&number) {
                    rounds.fetch_add(1, Relaxed);
                } else {
                    account.duplicates += 1;
                }
                last = Instant::now();
            }
            None if last.elapsed() > PATIENCE => {
                account.lost = on_the_way.len() as u64;
                last = Instant::now();
            }
            None => {}
        }
        if ends && (on_the_way.is_empty() || last.elapsed() > PATIENCE / 2) {
            account.lost = on_the_way.len() as u64;
            return Ok(account);
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) -> Result<Account> {
    let mut silent_since = Instant::now();
    let mut datagram = [0; DATAGRAM];
    // The other end goes on asking for a moment.
    while !stop.load(Relaxed) || silent_since.elapsed() < POLL * 5 {
        let mut from = None;
        let received = socket.recv_from(&mut datagram).map(|(length, address)| {
            from = Some(address);
            length
        });
        if let (Some(length), Some(from)) = (receive(received)?, from) {
            socket.send_to(&datagram[..length], from).context("cannot answer")?;
            silent_since = Instant::now();
        }
    }
    Ok(Account::default())
}

/// What came, if anything did before the time was over.
fn receive(result: io::Result<usize>) -> Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).context("cannot receive"),
    }
}
