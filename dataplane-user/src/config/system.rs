//! What the checks ask the running system.

use std::ffi::CString;
use std::ops::RangeInclusive;
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
    /// Why the file does not hold a password, if it does not.
    fn password_fault(&self, file: &Path) -> Option<String>;
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

    fn password_fault(&self, file: &Path) -> Option<String> {
        bgp::check_password(file).err().map(|error| format!("{error:#}"))
    }
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
    fn interfaces_are_those_of_this_namespace() {
        assert_eq!(RunningSystem.interface_exists("lo"), Some(true));
        assert_eq!(RunningSystem.interface_exists("no-such-link"), Some(false));
        assert_eq!(RunningSystem.interface_exists("nul\0name"), Some(false));
    }

    #[test]
    fn the_host_has_a_name() {
        assert_eq!(host_name(), fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
    }
}
