//! Pinned links: what keeps a program at its interface without a process.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    programs::links::{FdLink, LinkError, PinnedLink},
    sys::SyscallError,
};

use super::Place;
use crate::kernel::pins::Pins;

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

/// Where the link at the place is pinned.
pub(super) fn pin(pins: &Pins, place: &Place) -> PathBuf {
    pins.links().join(place.pin_name())
}

/// The link that is pinned there, if there is one.
pub(super) fn open(pin: &Path) -> Result<Option<FdLink>> {
    match PinnedLink::from_pin(pin) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| not_ours(pin)),
    }
}

/// What to say where the pin is something else.
pub(super) fn not_ours(pin: &Path) -> String {
    format!("{} is no link of this program's: remove it", pin.display())
}

/// Pins a new link.
pub(super) fn keep(link: FdLink, pin: &Path) -> Result<()> {
    link.pin(pin).with_context(|| format!("cannot pin the link at {}", pin.display()))?;
    Ok(())
}

/// The id of the program in the link that is pinned there.
pub(super) fn program_id(pin: &Path) -> Option<u32> {
    let link = open(pin).ok()??;
    link.info().ok().map(|info| info.program_id())
}

/// Removes a pin, and leaves the link to the kernel.
pub(super) fn forget(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pin {}", pin.display()))
        }
        _ => Ok(()),
    }
}

/// Takes the link off its interface, and removes the pin.
pub(super) fn remove(pin: &Path) -> Result<()> {
    detach(pin).with_context(|| format!("cannot detach the link at {}", pin.display()))?;
    forget(pin)
}

/// Detaches the link that is pinned there, if there is one.
///
/// The removal of a pin alone lets the kernel free the link in its own time (`bpf_link_put()` in
/// kernel/bpf/syscall.c): a program could still be at the interface when `dataplane detach` has returned.
fn detach(pin: &Path) -> io::Result<()> {
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
        // The interface went before; or it is no link, and takes up no more than its name.
        error if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::EINVAL)) => Ok(()),
        error => Err(error),
    }
}
