//! A pinned link, taken off its interface at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Of `enum bpf_cmd` in `linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` reads.
#[repr(C)]
struct Get {
    path: *const libc::c_char,
    bpf_fd: u32,
    file_flags: u32,
}

/// Detaches the link that is pinned there, if there is one.
///
/// The removal of a pin alone lets the kernel free the link in its own time (`bpf_link_put()` in
/// kernel/bpf/syscall.c): a program could still be at the interface when `dataplane detach` has returned.
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let get = Get { path: path.as_ptr(), bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads the attribute and the path, which live until it returns.
    let link = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const get, size_of::<Get>()) };
    if link < 0 {
        return match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(()),
            error => Err(error),
        };
    }
    // SAFETY: a descriptor that the kernel has just given, and that nobody else has.
    let link = unsafe { OwnedFd::from_raw_fd(link as i32) };
    let number = link.as_raw_fd() as u32;
    // SAFETY: the kernel reads the attribute, which lives until it returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const number, size_of::<u32>()) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        // The interface went before.
        error if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        error => Err(error),
    }
}
