//! Somebody else's program on a hook: the least one that there can be, as a TCX link or a clsact filter.

use std::{
    ffi::CString,
    fs, io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use tests::harness::Namespace;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
/// What `bpftool net show` prints.
pub const NAME: &str = "somebody_else";

/// `r0 = -1; exit`: `TCX_NEXT`, all others have their turn (`struct bpf_insn` of linux/bpf.h).
const PROGRAM: [u64; 2] = [0xffff_ffff_0000_00b7, 0x0000_0000_0000_0095];

/// The members of `union bpf_attr` for `BPF_PROG_LOAD` up to the name.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Those for `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    path: u64,
    program: u32,
    flags: u32,
}

/// Those for `BPF_LINK_CREATE` with TCX.
#[repr(C)]
#[derive(Default)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 4],
}

/// The link; dropped, the program is off the interface again.
pub struct ForeignTcx(#[expect(dead_code, reason = "holds the link")] OwnedFd);

impl ForeignTcx {
    /// Attaches it at the end of the interface's TCX ingress chain.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self> {
        let ifindex = namespace.ifindex(interface)?;
        let program = load()?;
        let create = Create {
            program: u32::try_from(program.as_raw_fd())?,
            ifindex,
            attach_type: BPF_TCX_INGRESS,
            ..Create::default()
        };
        // The interface is looked up in the namespace of the thread that asks.
        let link = namespace.enter(|| bpf(BPF_LINK_CREATE, &create).context("cannot attach the program"))?;
        Ok(Self(descriptor(link)?))
    }
}

/// Adds the clsact qdisc and a filter with the program, which go when the namespace goes.
pub fn add_filter(namespace: &Namespace, interface: &str) -> Result<()> {
    let program = load()?;
    let pin = format!("/sys/fs/bpf/{}-{interface}-foreign", namespace.name());
    let path = CString::new(pin.as_str())?;
    let attributes =
        Pin { path: path.as_ptr() as u64, program: u32::try_from(program.as_raw_fd())?, flags: 0 };
    bpf(BPF_OBJ_PIN, &attributes).context("cannot pin the program")?;
    let filter = ["tc", "filter", "add", "dev", interface, "ingress", "bpf", "da", "object-pinned", &pin];
    let qdisc = namespace.run(["tc", "qdisc", "add", "dev", interface, "clsact"]).ok();
    let added = qdisc.and_then(|_| namespace.run(filter).ok());
    // The filter holds the program from here on.
    fs::remove_file(&pin)?;
    added.map(drop)
}

fn load() -> Result<OwnedFd> {
    let mut load = Load {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        instructions: PROGRAM.len() as u32,
        program: PROGRAM.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    load.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    descriptor(bpf(BPF_PROG_LOAD, &load).context("cannot load a program")?)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<libc::c_long> {
    // SAFETY: the attributes live until after the call and are as long as is said; what they point to is static.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), mem::size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(result)
}

/// The descriptor that a successful call made.
fn descriptor(fd: libc::c_long) -> Result<OwnedFd> {
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}
