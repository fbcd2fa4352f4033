//! TCP for BGP: addresses, precedence, the MD5 signature (RFC 2385), and TTL security (RFC 5082).

use std::{
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Internetwork control, as RFC 4271 appendix E asks for.
const TOS: u32 = 0xc0;

/// What everything is sent with: a peer may demand it (RFC 5082).
const GREATEST_TTL: i32 = 255;

/// Bytes that the kernel holds for a peer that does not read.
const SEND_BUFFER: u32 = 256 * 1024;

/// The longest key that the kernel takes, in bytes (`TCP_MD5SIG_MAXKEYLEN`).
const MAX_KEY: usize = 80;

/// The key of a TCP MD5 signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    /// Reads a key; the newline at the file's end does not belong to it.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, is empty, or longer than a key.
    pub fn read(file: &Path) -> Result<Self> {
        let name = file.display();
        let mut key = fs::read(file).with_context(|| format!("cannot read the password file {name}"))?;
        while key.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            key.pop();
        }
        match key.len() {
            0 => bail!("the password file {name} is empty"),
            1..=MAX_KEY => Ok(Self(key)),
            _ => bail!("the password in {name} is longer than {MAX_KEY} bytes"),
        }
    }

    /// A key from its bytes.
    #[cfg(test)]
    pub fn new(key: &str) -> Self {
        Self(key.as_bytes().to_vec())
    }
}

/// `struct tcp_md5sig` of include/uapi/linux/tcp.h.
#[repr(C)]
struct Md5Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    ifindex: i32,
    key: [u8; MAX_KEY],
}

/// Makes the socket sign what it sends to a peer, and drop what comes from it unsigned; `None` ends that.
///
/// # Errors
///
/// Where the kernel refuses: it may be built without `CONFIG_TCP_MD5SIG`.
fn set_password(socket: &impl AsFd, peer: Ipv4Addr, password: Option<&Password>) -> io::Result<()> {
    // SAFETY: all three are plain integers and arrays of them, for which zeroes are a value.
    let mut signature: Md5Signature = unsafe { std::mem::zeroed() };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(peer).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: `sockaddr_storage` has room and alignment for every kind of address.
    unsafe { std::ptr::from_mut(&mut signature.address).cast::<libc::sockaddr_in>().write(address) };
    if let Some(Password(key)) = password {
        signature.key_length = key.len() as u16;
        signature.key[..key.len()].copy_from_slice(key);
    }
    // SAFETY: the option takes a `tcp_md5sig`, which `signature` is, and its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            std::ptr::from_ref(&signature).cast(),
            size_of::<Md5Signature>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // There was none to take away.
            error if password.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        },
    }
}

/// Has the socket drop what comes from farther than so many hops; `None` ends that. What is sent has the greatest TTL
/// anyhow, for peers that look at it.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn set_ttl_security(socket: &impl AsFd, hops: Option<u8>) -> io::Result<()> {
    set_ip_option(socket, libc::IP_MINTTL, hops.map_or(0, least_ttl))
}

/// With what TTL packets of somebody so many hops away come at least: one on the same link is one hop away.
fn least_ttl(hops: u8) -> i32 {
    GREATEST_TTL + 1 - i32::from(hops)
}

fn set_ip_option(socket: &impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the options of `IPPROTO_IP` that are used here take a pointer to an int and its size, those of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Connects to a peer, from the given address if there is one.
///
/// # Errors
///
/// In words, without the peer's address.
pub async fn dial(
    local: Option<Ipv4Addr>,
    peer: SocketAddrV4,
    password: Option<&Password>,
    ttl_security_hops: Option<u8>,
) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_tos_v4(TOS)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    if let Some(local) = local {
        socket.bind(SocketAddr::from((local, 0))).with_context(|| format!("cannot connect from {local}"))?;
    }
    set_ip_option(&socket, libc::IP_TTL, GREATEST_TTL)?;
    set_ttl_security(&socket, ttl_security_hops)?;
    if password.is_some() {
        set_password(&socket, *peer.ip(), password).context("the kernel does not sign with TCP MD5")?;
    }
    let dialled = socket.connect(peer.into()).await;
    dialled.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => anyhow::anyhow!(
            "connection refused on port {}: peer not listening, or this node not configured there",
            peer.port()
        ),
        _ => anyhow::anyhow!("cannot connect: {error}"),
    })
}

/// Where peers connect to, with their keys.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    keys: Vec<(Ipv4Addr, Password)>,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    ///
    /// Where somebody else does, or the address is not the node's.
    pub fn bind(address: SocketAddrV4) -> Result<Self> {
        let bind = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.set_tos_v4(TOS)?;
            socket.set_send_buffer_size(SEND_BUFFER)?;
            set_ip_option(&socket, libc::IP_TTL, GREATEST_TTL)?;
            socket.bind(address.into())?;
            socket.listen(128)
        };
        let listener = bind().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "cannot listen on {address}: another program does (another BGP daemon?): stop it, or change \
                 `listen` of [bgp]"
            ),
            io::ErrorKind::AddrNotAvailable => anyhow::anyhow!(
                "cannot listen on {address}: it is no address of this node; correct `listen` of [bgp]"
            ),
            io::ErrorKind::PermissionDenied => anyhow::anyhow!(
                "cannot listen on {address}: ports below 1024 need root or CAP_NET_BIND_SERVICE"
            ),
            _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
        })?;
        Ok(Self { listener, keys: Vec::new() })
    }

    /// Makes these the keys of the peers that have one.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses one.
    pub fn set_keys(&mut self, keys: Vec<(Ipv4Addr, Password)>) -> Result<()> {
        for (peer, _) in self.keys.iter().filter(|(peer, _)| !keys.iter().any(|(other, _)| other == peer)) {
            set_password(&self.listener, *peer, None).with_context(|| format!("the key of {peer}"))?;
        }
        for (peer, password) in keys.iter().filter(|key| !self.keys.contains(key)) {
            set_password(&self.listener, *peer, Some(password)).with_context(|| {
                format!("the kernel does not sign connections of peer {peer} with TCP MD5")
            })?;
        }
        self.keys = keys;
        Ok(())
    }

    /// Hears nobody who is farther than each of the peers may be.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn set_ttl_security(&self, hops: impl Iterator<Item = Option<u8>>) -> Result<()> {
        // None is more than any number.
        let most = hops.map(|hops| hops.unwrap_or(u8::MAX)).max().filter(|hops| *hops != u8::MAX);
        set_ttl_security(&self.listener, most).context("the kernel does not look at TTLs")
    }

    /// The next connection, and whose it is.
    ///
    /// # Errors
    ///
    /// Where there is none for lack of memory or descriptors, or it ended before it was taken.
    pub async fn accept(&self) -> io::Result<(TcpStream, Ipv4Addr)> {
        match self.listener.accept().await? {
            (stream, SocketAddr::V4(peer)) => Ok((stream, *peer.ip())),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// How many TCP segments the kernel dropped for their signature or their TTL, in this network namespace (all peers together:
/// it keeps no other count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    missing: u64,
    unexpected: u64,
    wrong: u64,
    far: u64,
}

impl Drops {
    /// The counts at this moment; all zero where the kernel does not tell.
    pub fn read() -> Self {
        fs::read_to_string("/proc/thread-self/net/netstat")
            .map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    fn parse(netstat: &str) -> Self {
        let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let value = |wanted| {
            let mut pairs = names.split_whitespace().zip(values.split_whitespace());
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        Self {
            missing: value("TCPMD5NotFound"),
            unexpected: value("TCPMD5Unexpected"),
            wrong: value("TCPMD5Failure"),
            far: value("TCPMinTTLDrop"),
        }
    }

    /// What the drops since then say about the passwords, or the TTLs, of a peer that cannot be reached.
    pub fn explain_since(
        self,
        before: Self,
        have_password: bool,
        have_ttl_security: bool,
    ) -> Option<&'static str> {
        if have_password && self.wrong > before.wrong {
            Some("TCP MD5 signatures that came meanwhile do not match: the passwords differ")
        } else if have_password && self.missing > before.missing {
            Some("segments came without a TCP MD5 signature: the peer has no password for us")
        } else if !have_password && self.unexpected > before.unexpected {
            Some(
                "segments came with a TCP MD5 signature: the peer has a password, and `password-file` is not set",
            )
        } else if have_ttl_security && self.far > before.far {
            Some(
                "segments came from farther than `ttl-security-hops`, or the peer does not send with a TTL of 255",
            )
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_file_without_its_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret \n").unwrap();
        assert!(Password::read(file.path()).unwrap() == Password::new("secret "));
        for (content, expected) in [("\n".to_owned(), "is empty"), ("x".repeat(81), "longer than 80 bytes")] {
            fs::write(file.path(), content).unwrap();
            let error = Password::read(file.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(!format!("{:?}", Password::new("secret")).contains("secret"));
    }

    #[test]
    fn drops_tell_which_side_lacks_what() {
        let text = "TcpExt: A TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPMinTTLDrop\nTcpExt: 9 1 2 3 4\nIpExt: B\nIpExt: 4\n";
        let drops = Drops::parse(text);
        assert_eq!(drops, Drops { missing: 1, unexpected: 2, wrong: 3, far: 4 });
        let since = |before: Drops, have| drops.explain_since(before, have, true).unwrap_or_default();
        let zero = Drops::default();
        assert!(since(zero, true).contains("the passwords differ"));
        assert!(since(Drops { missing: 0, ..drops }, true).contains("the peer has no password"));
        assert!(since(zero, false).contains("`password-file` is not set"));
        let unsigned = Drops { far: 0, ..drops };
        assert!(since(unsigned, false).contains("farther than"));
        assert_eq!(drops.explain_since(unsigned, false, false), None);
        assert_eq!(since(drops, true), "");
    }
}
