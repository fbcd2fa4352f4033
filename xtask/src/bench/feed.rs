//! A BGP peer that has many routes and tells them as fast as they are taken.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Namespace, eventually};

/// The autonomous system of everybody here.
pub(super) const ASN: u16 = 64_512;

/// How long a session may take to come about.
const LIMIT: Duration = Duration::from_secs(20);

// Message types of RFC 4271, section 4.1.
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

/// The longest message, section 4.1.
const MOST_BYTES: usize = 4096;
const HEADER: usize = 19;

/// Prefixes of one length that follow one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefixes {
    /// The first address.
    pub(super) first: Ipv4Addr,
    /// The length of all of them, from 25 to 32.
    pub(super) length: u8,
}

impl Prefixes {
    /// The first address of the prefix with that number.
    pub(super) fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + (number << (32 - self.length)))
    }

    /// The UPDATEs that announce the prefixes `numbers`, as a peer sends them that has all of them ready: as many
    /// as go into one message, with one set of attributes.
    pub(super) fn announcement(self, numbers: std::ops::Range<u32>, next_hop: Ipv4Addr) -> Vec<u8> {
        // ORIGIN IGP, an empty AS_PATH, NEXT_HOP and LOCAL_PREF 100: section 4.3.
        let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4];
        attributes.extend(next_hop.octets());
        attributes.extend([0x40, 5, 4, 0, 0, 0, 100]);
        let before = [&[0, 0][..], &(attributes.len() as u16).to_be_bytes(), &attributes].concat();
        self.updates(numbers, &before, &[])
    }

    /// The UPDATEs that withdraw them.
    pub(super) fn withdrawal(self, numbers: std::ops::Range<u32>) -> Vec<u8> {
        self.updates(numbers, &[], &[0, 0])
    }

    fn updates(self, numbers: std::ops::Range<u32>, before: &[u8], after: &[u8]) -> Vec<u8> {
        let is_withdrawal = before.is_empty();
        let fixed = HEADER + before.len() + after.len() + if is_withdrawal { 2 } else { 0 };
        let in_one = (MOST_BYTES - fixed) / 5;
        let numbers: Vec<u32> = numbers.collect();
        let mut bytes = Vec::with_capacity(numbers.len() * 6);
        for part in numbers.chunks(in_one) {
            let list = part.iter().flat_map(|number| {
                let [a, b, c, d] = self.address(*number).octets();
                [self.length, a, b, c, d]
            });
            let list: Vec<u8> = list.collect();
            let length = if is_withdrawal { (list.len() as u16).to_be_bytes().to_vec() } else { Vec::new() };
            bytes.extend(message(UPDATE, &[&length, before, &list, after].concat()));
        }
        bytes
    }
}

/// An established session, without a hold time: it needs no KEEPALIVEs.
pub(super) struct Feed {
    stream: TcpStream,
    /// Our own address, the next hop of all that is announced.
    pub(super) address: Ipv4Addr,
}

impl Feed {
    /// Dials the speaker at `peer` from the namespace where `address` is, until it answers.
    pub(super) fn dial(place: &Namespace, address: Ipv4Addr, peer: Ipv4Addr) -> Result<Self> {
        eventually(LIMIT, || Self::attempt(place, address, peer))
            .with_context(|| format!("no BGP session with {peer}"))
    }

    fn attempt(place: &Namespace, address: Ipv4Addr, peer: Ipv4Addr) -> Result<Self> {
        let stream =
            place.enter(|| Ok(TcpStream::connect_timeout(&SocketAddr::from((peer, 179)), LIMIT)?))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        let mut feed = Self { stream, address };
        let [high, low] = ASN.to_be_bytes();
        let [a, b, c, d] = address.octets();
        // Version 4, the system, no hold time, the identifier, no capabilities: IPv4 unicast alone.
        feed.say(&message(OPEN, &[4, high, low, 0, 0, a, b, c, d, 0]))?;
        feed.hear(OPEN)?;
        feed.say(&message(KEEPALIVE, &[]))?;
        feed.hear(KEEPALIVE)?;
        feed.forget_the_rest()?;
        Ok(feed)
    }

    /// Sends messages; returns when the kernel has taken them.
    pub(super) fn say(&mut self, messages: &[u8]) -> Result<()> {
        self.stream.write_all(messages).context("the BGP session fell")
    }

    fn hear(&mut self, kind: u8) -> Result<()> {
        loop {
            let mut header = [0; HEADER];
            self.stream.read_exact(&mut header).context("the BGP session fell")?;
            let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
            ensure!(length >= HEADER, "a BGP message of {length} bytes");
            let mut body = vec![0; length - HEADER];
            self.stream.read_exact(&mut body)?;
            ensure!(header[18] != NOTIFICATION, "the speaker refused the session: {body:?}");
            if header[18] == kind {
                return Ok(());
            }
        }
    }

    /// Reads from now on what the speaker says, so that it never waits for us; ends with the session.
    fn forget_the_rest(&self) -> Result<()> {
        let mut stream = self.stream.try_clone()?;
        stream.set_read_timeout(None)?;
        thread::spawn(move || {
            let mut buffer = [0; MOST_BYTES];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        });
        Ok(())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // It fails only where the session fell already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u16;
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

#[cfg(test)]
mod units {
    use super::*;

    const PREFIXES: Prefixes = Prefixes { first: Ipv4Addr::new(64, 0, 0, 0), length: 26 };

    #[test]
    fn an_announcement_is_as_rfc_4271_writes_it() {
        let bytes = PREFIXES.announcement(1..2, Ipv4Addr::new(10, 141, 0, 9));
        let body = [
            &[0, 0, 0, 21, 0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 141, 0, 9, 0x40, 5, 4, 0, 0, 0, 100][..],
            &[26, 64, 0, 0, 64],
        ];
        assert_eq!(bytes[..16], [0xff; 16]);
        assert_eq!(bytes[16..19], [0, 49, UPDATE]);
        assert_eq!(bytes[19..], body.concat());
        let withdrawal = PREFIXES.withdrawal(0..1);
        assert_eq!(withdrawal[16..], [0, 28, UPDATE, 0, 5, 26, 64, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn no_message_is_too_long_and_no_prefix_is_lost() {
        for bytes in [PREFIXES.announcement(0..2000, Ipv4Addr::LOCALHOST), PREFIXES.withdrawal(0..2000)] {
            let (mut at, mut messages) = (0, 0);
            while at < bytes.len() {
                let length = usize::from(u16::from_be_bytes([bytes[at + 16], bytes[at + 17]]));
                assert!(length <= MOST_BYTES);
                at += length;
                messages += 1;
            }
            assert_eq!((at, messages), (bytes.len(), 3));
        }
    }
}
