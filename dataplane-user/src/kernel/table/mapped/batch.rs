//! Several elements of an array of maps in one system call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{Array, IterableMap, MapData};
use dataplane_common::trie::Slab;

/// `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd` in `linux/bpf.h`.
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// The kernel's own errno for what a kind of map cannot do (`include/linux/errno.h`); libc has no name for it.
const ENOTSUPP: i32 = 524;

/// The part of `union bpf_attr` that the command reads.
#[repr(C)]
struct UpdateBatch {
    in_batch: u64,
    out_batch: u64,
    keys: *const u32,
    values: *const i32,
    count: u32,
    map_fd: i32,
    element_flags: u64,
    flags: u64,
}

/// Puts the slabs into the elements from `first` on, of the array of maps that `outer` is.
///
/// Returns `false` where the kernel cannot: Linux takes them together since 5.19 (commit 9263dddc7b6f "bpf:
/// Extend batch operations for map-in-map bpf-maps").
pub(super) fn put(outer: BorrowedFd<'_>, first: u32, slabs: &[Array<MapData, Slab>]) -> io::Result<bool> {
    let keys: Vec<u32> = (first..).take(slabs.len()).collect();
    let values: Vec<i32> =
        slabs.iter().map(|slab| IterableMap::<u32, Slab>::map(slab).fd().as_fd().as_raw_fd()).collect();
    let mut update = UpdateBatch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr(),
        values: values.as_ptr(),
        count: slabs.len() as u32,
        map_fd: outer.as_raw_fd(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the attribute and `count` keys and values, which live until it returns, and
    // writes how many it has put to `count`.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut update, size_of::<UpdateBatch>())
    };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EINVAL)) => Ok(false),
        error => Err(error),
    }
}
