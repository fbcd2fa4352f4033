//! Words that several CPUs and the daemon read and write at a time.
//!
//! `core::sync::atomic` has no read-modify-write operations on BPF targets, though the instruction set has
//! them since v3 (Linux 5.12): there they are made of the compiler's intrinsics. Loads and stores are
//! relaxed. `swap` and `compare_exchange` order everything before and after them, as the kernel defines BPF's
//! atomic instructions that fetch (`Documentation/bpf/standardization/instruction-set.rst`).

use core::cell::UnsafeCell;

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $int:ty, $atomic:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name(UnsafeCell<$int>);

        // SAFETY: every access is atomic.
        unsafe impl Sync for $name {}

        impl $name {
            /// A word of that value.
            pub const fn new(value: $int) -> Self {
                Self(UnsafeCell::new(value))
            }
        }

        #[cfg(not(target_arch = "bpf"))]
        impl $name {
            fn atomic(&self) -> &$atomic {
                // SAFETY: valid and aligned as long as `self`, and nothing accesses it in another way.
                unsafe { <$atomic>::from_ptr(self.0.get()) }
            }

            /// The value.
            pub fn load(&self) -> $int {
                self.atomic().load(core::sync::atomic::Ordering::Relaxed)
            }

            /// The value; what is loaded after it is no older.
            pub fn load_acquire(&self) -> $int {
                self.atomic().load(core::sync::atomic::Ordering::Acquire)
            }

            /// Sets the value.
            pub fn store(&self, value: $int) {
                self.atomic().store(value, core::sync::atomic::Ordering::Relaxed);
            }

            /// Sets the value; returns the one before.
            pub fn swap(&self, value: $int) -> $int {
                self.atomic().swap(value, core::sync::atomic::Ordering::SeqCst)
            }

            /// Adds, wrapping around; returns the value before.
            pub fn add(&self, value: $int) -> $int {
                self.atomic().fetch_add(value, core::sync::atomic::Ordering::SeqCst)
            }

            /// Sets the value to `new` if it is `old`; says whether it was.
            pub fn replace(&self, old: $int, new: $int) -> bool {
                use core::sync::atomic::Ordering::SeqCst;
                self.atomic().compare_exchange(old, new, SeqCst, SeqCst).is_ok()
            }
        }

        #[cfg(target_arch = "bpf")]
        impl $name {
            /// The value.
            #[inline(always)]
            pub fn load(&self) -> $int {
                // SAFETY: valid and aligned as long as `self`. An aligned word is loaded by one instruction.
                unsafe { self.0.get().read_volatile() }
            }

            /// The value; what is loaded after it is no older. x86 keeps loads in order, which is what the programs are built
            /// for; BPF has an instruction for it since v4 of its set only.
            #[inline(always)]
            pub fn load_acquire(&self) -> $int {
                self.load()
            }

            /// Sets the value.
            #[inline(always)]
            pub fn store(&self, value: $int) {
                // SAFETY: as in `load`.
                unsafe { self.0.get().write_volatile(value) }
            }

            /// Sets the value; returns the one before.
            #[inline(always)]
            pub fn swap(&self, value: $int) -> $int {
                // SAFETY: as in `load`.
                unsafe { atomic_xchg::<_, { AtomicOrdering::SeqCst }>(self.0.get(), value) }
            }

            /// Adds, wrapping around; returns the value before.
            #[inline(always)]
            pub fn add(&self, value: $int) -> $int {
                // SAFETY: as in `load`.
                unsafe { atomic_xadd::<_, _, { AtomicOrdering::SeqCst }>(self.0.get(), value) }
            }

            /// Sets the value to `new` if it is `old`; says whether it was.
            #[inline(always)]
            pub fn replace(&self, old: $int, new: $int) -> bool {
                // SAFETY: as in `load`.
                let (_, done) = unsafe {
                    atomic_cxchg::<_, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                        self.0.get(),
                        old,
                        new,
                    )
                };
                done
            }
        }
    };
}

#[cfg(target_arch = "bpf")]
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

word!(
    /// A word of 32 bits.
    Word32,
    u32,
    core::sync::atomic::AtomicU32
);
word!(
    /// A word of 64 bits.
    Word64,
    u64,
    core::sync::atomic::AtomicU64
);
