//! Which connections are taken: a few of each peer at once, and none that would use up the file descriptors that the
//! rest of the daemon needs.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Connections that a peer made and that are open at once: that of its session, those that wait, and those that are
/// being closed with a NOTIFICATION.
const OF_A_PEER: usize = 8;

/// Descriptors that are left for the control socket's clients, netlink and files.
const RESERVED: u64 = 128;

/// Addresses of no peer that are remembered.
const STRANGERS: usize = 16;

/// For how long.
const REMEMBERED: Duration = Duration::from_secs(600);

/// One of a peer's connections; it counts until this is dropped.
pub type Place = OwnedSemaphorePermit;

/// A connection that a peer made.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// Its place among the peer's.
    pub place: Place,
}

/// The connections that a peer may have open at once.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// All of them free.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(OF_A_PEER)))
    }

    /// One of them, if one is free.
    pub fn take(&self) -> Option<Place> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// Whether the daemon has descriptors to spare beside this one; the kernel gives out the lowest that is free.
///
/// # Errors
///
/// Where it has not, in words.
pub fn spare_descriptors(socket: &impl AsRawFd) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is what the call fills in, and outlives it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0
        || leaves_room(socket.as_raw_fd(), limit.rlim_cur)
    {
        return Ok(());
    }
    Err(format!(
        "of {} file descriptors too few are left (LimitNOFILE= of the unit, `ulimit -n`)",
        limit.rlim_cur
    ))
}

fn leaves_room(descriptor: RawFd, limit: u64) -> bool {
    u64::try_from(descriptor).is_ok_and(|descriptor| descriptor < limit - RESERVED.min(limit / 4))
}

/// Addresses that connected and are no peer's.
#[derive(Debug, Default)]
pub struct Strangers(BTreeMap<Ipv4Addr, Instant>);

impl Strangers {
    /// Notes a connection; says whether it is the first for a while, of which there are only a few.
    pub fn note(&mut self, address: Ipv4Addr, now: Instant) -> bool {
        self.0.retain(|_, seen| now.duration_since(*seen) < REMEMBERED);
        if !self.0.contains_key(&address) && self.0.len() >= STRANGERS {
            return false;
        }
        self.0.insert(address, now).is_none()
    }

    /// Those that connected lately.
    pub fn lately(&self, now: Instant) -> impl Iterator<Item = Ipv4Addr> {
        let lately = move |(address, seen): (&Ipv4Addr, &Instant)| {
            (now.duration_since(*seen) < REMEMBERED).then_some(*address)
        };
        self.0.iter().filter_map(lately)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_few_connections_at_once() {
        let places = Places::new();
        let mut taken: Vec<_> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(taken.len(), OF_A_PEER);
        taken.pop();
        assert!(places.take().is_some());
    }

    #[test]
    fn descriptors_are_left_for_the_rest() {
        assert!(leaves_room(895, 1024));
        assert!(!leaves_room(896, 1024));
        assert!(leaves_room(20, 32), "a low limit leaves less");
        assert!(!leaves_room(24, 32));
    }

    #[test]
    fn strangers_are_few_and_named_once() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        let address = |n: u32| Ipv4Addr::from(0x0a00_0000 + n);
        assert!(strangers.note(address(0), now));
        assert!(!strangers.note(address(0), now));
        let named = (1..1000).filter(|n| strangers.note(address(*n), now)).count();
        assert_eq!(named, STRANGERS - 1);
        assert!(strangers.note(address(999), now + REMEMBERED), "the others are forgotten");
        assert_eq!(strangers.lately(now + REMEMBERED).collect::<Vec<_>>(), [address(999)]);
    }
}
