//! The few uses of bpf(2) for which there is no command: the `bpftool` of some distributions knows no TCX.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use super::netns::Namespace;

const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// More than anybody attaches to one interface (`BPF_MPROG_MAX` of linux/bpf_mprog.h).
const MOST_PROGRAMS: usize = 64;

/// The members of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    flags: [u32; 2],
    programs: u64,
    count: u32,
    padding: u32,
    rest: [u64; 4],
}

/// Those for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    rest: [u32; 2],
}

/// Those for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    program: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    before: [u64; 8],
    name: [u8; 16],
}

/// The bpf() system call with attributes as it takes them for that command, and its result.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// What the attributes point to must be as long, and as long alive, as the command asks; whatever the kernel
/// writes must be there to be written.
pub unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are as long as is said, and the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), mem::size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`call`], for commands that make a descriptor.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As for [`call`], and the command must be one of those.
pub unsafe fn open<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { call(command, attributes) }?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

/// The names of the programs in the TCX chains of the interface with that index, ingress first; none if it is
/// gone, or before Linux 6.6.
///
/// # Errors
/// If the kernel refuses.
pub fn tcx_programs(namespace: &Namespace, ifindex: u32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for attach_type in [BPF_TCX_INGRESS, BPF_TCX_EGRESS] {
        for id in namespace.enter(|| query(ifindex, attach_type))? {
            names.extend(name(id).with_context(|| format!("cannot ask for program {id}"))?);
        }
    }
    Ok(names)
}

fn query(ifindex: u32, attach_type: u32) -> Result<Vec<u32>> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut query = Query {
        ifindex,
        attach_type,
        programs: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: the kernel writes at most `count` numbers to the array, which lives until after the call.
    match unsafe { call(BPF_PROG_QUERY, &mut query) } {
        Ok(_) => Ok(ids[..(query.count as usize).min(MOST_PROGRAMS)].to_vec()),
        // No such interface; no such attach type: a kernel before TCX.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot list the TCX programs"),
    }
}

/// `None` if the program is gone by now.
fn name(id: u32) -> Result<Option<String>> {
    // SAFETY: no pointers.
    let program = match unsafe { open(BPF_PROG_GET_FD_BY_ID, &mut ById { id, ..ById::default() }) } {
        Ok(program) => program,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut info = Info::default();
    let mut get = GetInfo {
        program: u32::try_from(program.as_raw_fd())?,
        length: mem::size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to what lives until after the call.
    unsafe { call(BPF_OBJ_GET_INFO_BY_FD, &mut get) }?;
    let length = info.name.iter().position(|byte| *byte == 0).unwrap_or(info.name.len());
    Ok(Some(String::from_utf8_lossy(&info.name[..length]).into_owned()))
}
