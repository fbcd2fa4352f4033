//! What the checks ask the running system.

use std::ffi::CString;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{fs, io};

use crate::{kernel::reserved_ports::PortSysctls, port_set::PortSet, source::bgp};

/// What the checks ask the machine: a trait, so that tests need none.
pub trait System {
    /// Whether there is such an interface; `None` where that cannot be told.
    fn interface_exists(&self, name: &str) -> Option<bool>;
    /// The ports that the host takes for its own connections (`net.ipv4.ip_local_port_range`); `None` where
    /// that cannot be told.
    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>>;
    /// The ports that it leaves out of them (`net.ipv4.ip_local_reserved_ports`).
    fn reserved_ports(&self) -> PortSet;
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

    fn reserved_ports(&self) -> PortSet {
        PortSet::new()
    }

    fn password_fault(&self, _file: &Path) -> Option<String> {
        None
    }

    fn password_exposure(&self, _file: &Path) -> Option<String> {
        None
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
        PortSysctls::default().ephemeral().ok()
    }

    fn reserved_ports(&self) -> PortSet {
        // Where it cannot be read, nothing counts as reserved.
        PortSysctls::default().reserved().unwrap_or_default()
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
    use std::fs;

    use super::*;

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
