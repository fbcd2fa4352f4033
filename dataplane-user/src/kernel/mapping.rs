//! The values of a BPF array, mapped into this process: read and written without system calls.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::{io, ptr, slice};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;

/// `BPF_F_MMAPABLE` of `linux/bpf.h`: the map's values can be mapped into a process (Linux 5.5).
pub(super) const BPF_F_MMAPABLE: u32 = 1 << 10;

/// A mapping of an array's values as so many `T`.
pub(super) struct Mapping<T> {
    start: ptr::NonNull<T>,
    count: usize,
}

impl<T: Sync> Mapping<T> {
    /// Maps an array of `values` values that each hold `per_value` of the `T`.
    ///
    /// Programs and other processes write them at any time: `T` must be made of atomics.
    pub(super) fn new(map: &MapData, values: u32, per_value: usize) -> Result<Self> {
        let (info, bytes) = (map.info()?, per_value * size_of::<T>());
        ensure!(
            info.max_entries() == values
                && info.value_size() as usize == bytes
                && info.map_flags() & BPF_F_MMAPABLE != 0,
            "it has {} values of {} bytes and flags {:#x}, but {values} of {bytes} bytes with BPF_F_MMAPABLE are \
             needed",
            info.max_entries(),
            info.value_size(),
            info.map_flags()
        );
        let access = libc::PROT_READ | libc::PROT_WRITE;
        Self::map(map.fd().as_fd(), access, 0, values as usize * per_value)
    }

    /// Maps `count` of the `T` from that byte on, which must be a multiple of a page, for reading alone.
    ///
    /// The caller has looked at the map's size; the kernel refuses what lies outside.
    pub(super) fn part(map: &MapData, offset: usize, count: usize) -> Result<Self> {
        Self::map(map.fd().as_fd(), libc::PROT_READ, offset, count)
    }

    /// The same for reading and writing.
    pub(super) fn writable_part(map: &MapData, offset: usize, count: usize) -> Result<Self> {
        Self::map(map.fd().as_fd(), libc::PROT_READ | libc::PROT_WRITE, offset, count)
    }

    fn map(map: BorrowedFd<'_>, access: i32, offset: usize, count: usize) -> Result<Self> {
        map_shared(map, access, offset, count * size_of::<T>())
            .map(|start| Self { start: start.cast(), count })
            .context("cannot map it into memory (Linux 5.5 or later is needed)")
    }

    /// The values.
    pub(super) fn values(&self) -> &[T] {
        // SAFETY: the mapping has that many, is aligned to a page, holds initialised memory and lives as long
        // as `self`. Programs and other processes write them too, which atomics allow.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

// SAFETY: the mapping belongs to the process and not to a thread, and its values may be shared.
unsafe impl<T: Sync> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapping<T> {}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: `start` and the length are those of a mapping that `map_shared` made, and every reference
        // into it borrows `self`.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<T>()) };
        debug_assert_eq!(result, 0, "munmap: {}", io::Error::last_os_error());
    }
}

fn map_shared(map: BorrowedFd<'_>, access: i32, offset: usize, bytes: usize) -> io::Result<ptr::NonNull<u8>> {
    let (map, offset) = (map.as_raw_fd(), offset as libc::off_t);
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, map, offset) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    ptr::NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
}
