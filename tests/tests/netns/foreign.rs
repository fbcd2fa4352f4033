//! Somebody else's program on a hook: the least one that there can be, as a TCX link, as a clsact filter and at XDP.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use tests::harness::{Namespace, bpf};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_XDP: u32 = 37;

/// The name of the program, and a part of the filter's.
pub const NAME: &str = "somebody_else";

/// `r0 = -1; exit`: `TCX_NEXT`, all others have their turn (`struct bpf_insn` of linux/bpf.h).
const PROGRAM: [u64; 2] = [0xffff_ffff_0000_00b7, 0x0000_0000_0000_0095];

/// `r0 = 2; exit`: `XDP_PASS`.
const XDP_PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

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

/// Those for `BPF_LINK_CREATE` at an interface.
#[repr(C)]
#[derive(Default)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 4],
}

/// Puts the program at the end of the interface's TCX ingress chain, where it stays as long as the link is held.
pub fn attach_tcx(namespace: &Namespace, interface: &str) -> Result<OwnedFd> {
    link(namespace, interface, &load(BPF_PROG_TYPE_SCHED_CLS, &PROGRAM)?, BPF_TCX_INGRESS)
}

/// Puts the program at the interface's XDP, where it stays as long as the link is held.
pub fn attach_xdp(namespace: &Namespace, interface: &str) -> Result<OwnedFd> {
    link(namespace, interface, &load(BPF_PROG_TYPE_XDP, &XDP_PROGRAM)?, BPF_XDP)
}

fn link(namespace: &Namespace, interface: &str, program: &OwnedFd, attach_type: u32) -> Result<OwnedFd> {
    let mut create = Create {
        program: u32::try_from(program.as_raw_fd())?,
        ifindex: namespace.ifindex(interface)?,
        attach_type,
        ..Create::default()
    };
    // The interface is looked up in the namespace of the thread that asks.
    // SAFETY: no pointers.
    namespace
        .enter(|| Ok(unsafe { bpf::open(BPF_LINK_CREATE, &mut create) }?))
        .context("cannot attach the program")
}

/// Adds a filter with the program at clsact `ingress` or `egress`, and the qdisc if it is not there; both go
/// when the namespace goes.
pub fn add_filter(namespace: &Namespace, interface: &str, direction: &str) -> Result<()> {
    let program = load(BPF_PROG_TYPE_SCHED_CLS, &PROGRAM)?;
    let pin = format!("/sys/fs/bpf/{}-{interface}-{NAME}", namespace.name());
    let path = CString::new(pin.as_str())?;
    let program = u32::try_from(program.as_raw_fd())?;
    let mut attributes = Pin { path: path.as_ptr() as u64, program, flags: 0 };
    // SAFETY: the path lives until after the call.
    unsafe { bpf::call(BPF_OBJ_PIN, &mut attributes) }.with_context(|| format!("cannot make {pin}"))?;
    let filter = ["tc", "filter", "add", "dev", interface, direction, "bpf", "da", "object-pinned", &pin];
    let present = namespace.run(["tc", "qdisc", "show", "dev", interface, "clsact"]).ok()?;
    if !present.contains("clsact") {
        namespace.run(["tc", "qdisc", "add", "dev", interface, "clsact"]).ok()?;
    }
    let added = namespace.run(filter).ok();
    // The filter holds the program from here on.
    fs::remove_file(&pin)?;
    added.map(drop)
}

fn load(kind: u32, program: &[u64]) -> Result<OwnedFd> {
    let mut load = Load {
        kind,
        instructions: program.len() as u32,
        program: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    load.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    // SAFETY: program and licence live until after the call.
    unsafe { bpf::open(BPF_PROG_LOAD, &mut load) }.context("cannot load a program")
}
