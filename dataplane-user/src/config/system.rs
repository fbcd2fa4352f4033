//! What the checks ask the running system.

use std::ffi::CString;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{fs, io};

use crate::source::bgp;

/// What the checks ask the machine: a trait, so that tests need none.
pub trait System {
    /// Whether there is such an interface; `None` where that cannot be told.
    fn interface_exists(&self, name: &str) -> Option<bool>;
    /// The ports that the host takes for its own connections (`net.ipv4.ip_local_port_range`); `None` where
    /// that cannot be told.
    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>>;
    /// The ports that it leaves out of them (`net.ipv4.ip_local_reserved_ports`).
    fn reserved_ports(&self) -> Vec<RangeInclusive<u16>>;
    /// The ports of its own sockets that wait for packets from anybody, TCP or UDP.
    fn open_ports(&self) -> Vec<u16>;
    /// Whether it has the address.
    fn has_address(&self, address: Ipv4Addr) -> bool;
    /// Why the file does not hold a password, if it does not.
    fn password_fault(&self, file: &Path) -> Option<String>;
    /// Who else than its owner and group may open the file, in words, if anybody may.
    fn password_exposure(&self, file: &Path) -> Option<String>;
}

/// Any machine: nothing of it is compared. For commands that must do their work whatever has become of this one.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnySystem;

impl System for AnySystem {
    fn interface_exists(&self, _name: &str) -> Option<bool> {
        None
    }

    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        None
    }

    fn reserved_ports(&self) -> Vec<RangeInclusive<u16>> {
        Vec::new()
    }

    fn password_fault(&self, _file: &Path) -> Option<String> {
        None
    }

    fn password_exposure(&self, _file: &Path) -> Option<String> {
        None
    }

    fn open_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn has_address(&self, _address: Ipv4Addr) -> bool {
        true
    }
}

/// The machine, in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningSystem;

impl System for RunningSystem {
    fn interface_exists(&self, name: &str) -> Option<bool> {
        // Not /sys/class/net: a sysfs shows the namespace that it was mounted in, not the caller's.
        let Ok(name) = CString::new(name) else { return Some(false) };
        // SAFETY: the pointer is that of a NUL-terminated string, which outlives the call.
        if unsafe { libc::if_nametoindex(name.as_ptr()) } != 0 {
            return Some(true);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => Some(false),
            _ => None,
        }
    }

    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        // /proc/sys/net shows the namespace of the task that opens it (`net_ctl_root.lookup` in
        // net/sysctl_net.c).
        parse_range(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
    }

    fn reserved_ports(&self) -> Vec<RangeInclusive<u16>> {
        // Where it cannot be read, nothing counts as reserved, and an overlap is refused.
        parse_list(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default())
    }

    fn open_ports(&self) -> Vec<u16> {
        // TCP_LISTEN, and TCP_CLOSE for a UDP socket that is bound and not connected (net/tcp_states.h).
        let tables = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];
        let read = |(table, state): (&str, &'static str)| {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            parse_sockets(&text, &[state])
        };
        tables.into_iter().flat_map(read).collect()
    }

    fn has_address(&self, address: Ipv4Addr) -> bool {
        // Only an own address can be bound to.
        let bound = UdpSocket::bind((address, 0));
        !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
    }

    fn password_fault(&self, file: &Path) -> Option<String> {
        bgp::check_password(file).err().map(|error| format!("{error:#}"))
    }

    fn password_exposure(&self, file: &Path) -> Option<String> {
        let mode = fs::metadata(file).ok()?.permissions().mode() & 0o7777;
        (mode & 0o006 != 0)
            .then(|| format!("every user can open the password file {} (mode {mode:04o})", file.display()))
    }
}

/// The ports in a table of `/proc/net` (proc_net_tcp.rst) of the sockets in one of these states.
fn parse_sockets(text: &str, states: &[&str]) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let (_, port) = local.rsplit_once(':')?;
        states.contains(&state).then(|| u16::from_str_radix(port, 16).ok())?
    };
    text.lines().skip(1).filter_map(port).collect()
}

/// Two numbers with a tab between.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// Numbers and ranges: `8080,9000-9010`.
fn parse_list(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// The host name, or `localhost` where there is none that can be shown.
pub(super) fn host_name() -> String {
    // HOST_NAME_MAX is 64 on Linux, without the NUL.
    let mut buffer = [0_u8; 65];
    // SAFETY: the length is that of the buffer, which outlives the call.
    let status = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len()) };
    let length = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    match std::str::from_utf8(&buffer[..length]) {
        Ok(name) if status == 0 && !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_the_kernel_prints_them() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("32768"), None);
        assert_eq!(parse_list("\n"), []);
        assert_eq!(parse_list("8080,9000-9010\n"), [8080..=8080, 9000..=9010]);
    }

    #[test]
    fn sockets_are_read_as_the_kernel_prints_them() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                    0: 0100007F:0035 00000000:0000 0A 00000000:00000000\n\
                    1: 0100007F:C350 0100007F:0035 01 00000000:00000000\n";
        assert_eq!(parse_sockets(text, &["0A"]), [53]);
        assert!(parse_sockets("", &["0A"]).is_empty());
    }

    #[test]
    fn addresses_are_those_of_this_namespace() {
        assert!(RunningSystem.has_address(Ipv4Addr::LOCALHOST));
        assert!(!RunningSystem.has_address(Ipv4Addr::new(192, 0, 2, 213)));
    }

    #[test]
    fn interfaces_are_those_of_this_namespace() {
        assert_eq!(RunningSystem.interface_exists("lo"), Some(true));
        assert_eq!(RunningSystem.interface_exists("no-such-link"), Some(false));
        assert_eq!(RunningSystem.interface_exists("nul\0name"), Some(false));
    }

    #[test]
    fn a_password_file_is_for_its_owner_and_group() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, exposed) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(RunningSystem.password_exposure(file.path()).is_some(), exposed, "{mode:o}");
        }
    }

    #[test]
    fn the_host_has_a_name() {
        assert_eq!(host_name(), fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
    }
}
