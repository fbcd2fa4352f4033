//! Connections that come in, handed to the tasks of the peers.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{net::TcpStream, time::Instant};
use tracing::{debug, warn};

use super::{Handle, Speaker};
use crate::source::bgp::{
    admission::{Accepted, spare_descriptors},
    quiet::Kind,
    socket::set_ttl_security,
    status::State,
};

/// How long no connection is taken after one could not be.
const PAUSE: Duration = Duration::from_millis(50);

impl Speaker {
    /// The peer that a connection from the address is of. Several may have it, of which one without a session needs
    /// it most.
    fn peer_at(&self, address: Ipv4Addr) -> Option<&Handle> {
        let need = |peer: &&Handle| match peer.status.borrow().state {
            State::Active | State::Connect => 0,
            State::Idle | State::OpenSent | State::OpenConfirm => 1,
            State::Established => 2,
        };
        self.peers.values().filter(|peer| peer.config.address == address).min_by_key(need)
    }

    /// Hands a connection to the peer's task; one that has enough of them loses it.
    pub(super) fn accepted(&mut self, accepted: std::io::Result<(TcpStream, Ipv4Addr)>) {
        match accepted {
            Ok((stream, address)) => {
                if let Err(why) = self.hand_over(stream, address) {
                    self.refused(&format!("a connection from {address} is closed: {why}"));
                }
            }
            Err(error) => {
                self.refused(&format!("a connection could not be taken: {error}"));
                // There may be no descriptor left, which a loop would only make worse.
                self.accept_at = Instant::now() + PAUSE;
            }
        }
    }

    fn refused(&mut self, what: &str) {
        match self.quiet.admit(Kind::Refused, Instant::now()) {
            Some(left_out) => warn!("BGP: {what}{left_out}"),
            None => debug!("BGP: {what}"),
        }
    }

    fn hand_over(&mut self, stream: TcpStream, address: Ipv4Addr) -> Result<(), String> {
        // A reset needs no descriptor, and no memory of the connection.
        let refuse = |why: String| {
            let _ = stream.set_zero_linger();
            Err(why)
        };
        let Some(peer) = self.peer_at(address) else {
            if self.strangers.note(address, Instant::now()) {
                warn!(
                    "BGP: connections from {address} are closed, which is no peer's address: correct `address` of a \
                     [[bgp.peer]], or add one"
                );
            }
            debug!("BGP: a connection from {address} is closed");
            return Ok(());
        };
        if let Err(why) = spare_descriptors(&stream) {
            return refuse(why);
        }
        // The listener serves all peers, and hears what only some of them may say.
        if let Err(error) = set_ttl_security(&stream, peer.config.ttl_security_hops) {
            return refuse(error.to_string());
        }
        let Some(place) = peer.places.take() else {
            return refuse("the peer has enough of them".to_owned());
        };
        peer.accepted.try_send(Accepted { stream, place }).map_err(|_| "enough of them wait".to_owned())
    }
}
