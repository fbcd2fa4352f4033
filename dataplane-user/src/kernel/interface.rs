//! Names and indexes of the interfaces of this thread's network namespace (if_nametoindex(3)).

use std::ffi::{CStr, CString};

use anyhow::{Context as _, Result, ensure};

/// The index of an interface.
///
/// # Errors
///
/// Where there is none of that name.
pub fn index(name: &str) -> Result<u32> {
    let text = CString::new(name).context("a name with a zero byte")?;
    // SAFETY: the string is terminated and lives during the call.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    ensure!(index != 0, "there is no interface {name} in this network namespace: `ip link` lists them");
    Ok(index)
}

/// The name of an interface; `#INDEX` where it is gone.
pub fn name(index: u32) -> String {
    let mut buffer = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the length that the call may write.
    let found = unsafe { libc::if_indextoname(index, buffer.as_mut_ptr()) };
    if found.is_null() {
        return format!("#{index}");
    }
    // SAFETY: the call succeeded, so that a terminated string is in the buffer, which outlives the use.
    unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_a_loopback_first() {
        assert_eq!((name(1), index("lo").unwrap()), ("lo".to_owned(), 1));
        assert_eq!(name(u32::MAX), format!("#{}", u32::MAX));
        assert!(index("no-such-one").is_err());
    }
}
