//! Pinned links: what keeps a program at its interface without a process.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
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
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Of `enum bpf_attach_type`.
const BPF_TCX_INGRESS: u32 = 46;
/// Of `linux/bpf.h`: with nothing named, at the end of the chain.
const BPF_F_AFTER: u32 = 1 << 4;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` and `BPF_OBJ_PIN` read.
#[repr(C)]
struct Get {
    path: *const libc::c_char,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part that `BPF_LINK_CREATE` reads for a TCX link.
#[repr(C)]
#[derive(Default)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

/// The part that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: *mut Info,
}

/// The beginning of `struct bpf_link_info`, for a link at an interface (XDP, TCX).
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// 0 once the link was detached or the interface is gone (`xdp_link` and `tcx_link_fill_info()`).
    ifindex: u32,
    attach_type: u32,
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

/// Makes a TCX link at the end of the interface's chain, so that other programs there keep seeing what they saw.
pub(super) fn create_tcx(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let create = Create {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: BPF_TCX_INGRESS,
        flags: BPF_F_AFTER,
        ..Create::default()
    };
    // SAFETY: the kernel reads the attribute, which lives until it returns.
    let link =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const create, size_of::<Create>()) };
    if link < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given, and that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(link as i32) })
}

/// Pins a new link.
pub(super) fn keep_fd(link: BorrowedFd<'_>, pin: &Path) -> Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes()).context("a path with a zero byte")?;
    let get = Get { path: path.as_ptr(), bpf_fd: link.as_raw_fd().cast_unsigned(), file_flags: 0 };
    // SAFETY: the kernel reads the attribute and the path, which live until it returns.
    let pinned = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const get, size_of::<Get>()) };
    if pinned < 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("cannot pin the link at {}", pin.display()));
    }
    Ok(())
}

/// The id of the program in the link that is pinned there, if the link is at that interface.
pub(super) fn program_at(pin: &Path, ifindex: u32) -> Result<Option<u32>> {
    let Some(link) = get(pin).with_context(|| format!("cannot open {}", pin.display()))? else {
        return Ok(None);
    };
    let mut info = Info::default();
    let ask = GetInfo {
        fd: link.as_raw_fd().cast_unsigned(),
        length: size_of::<Info>() as u32,
        info: &raw mut info,
    };
    // SAFETY: the kernel reads the attribute and writes at most that many bytes to `info`; both live until it returns.
    let asked =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const ask, size_of::<GetInfo>()) };
    if asked < 0 {
        return Err(io::Error::last_os_error()).with_context(|| not_ours(pin));
    }
    Ok((info.ifindex == ifindex).then_some(info.program))
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
    let Some(link) = get(pin)? else { return Ok(()) };
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

/// What is pinned there, whatever it is.
fn get(pin: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let get = Get { path: path.as_ptr(), bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads the attribute and the path, which live until it returns.
    let link = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const get, size_of::<Get>()) };
    if link < 0 {
        return match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: a descriptor that the kernel has just given, and that nobody else has.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(link as i32) }))
}
