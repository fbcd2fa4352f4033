//! A value that the compiler knows nothing about.

/// The same value, of which the compiler cannot conclude anything.
///
/// The compiler leaves out a check whose outcome follows from how the index was made. The verifier may not be able
/// to follow: that of Linux 6.1 knows no bounds of an "or" of two unknown values (`adjust_scalar_min_max_vals()` in
/// kernel/bpf/verifier.c). Then it wants the check.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = u64::from(value);
        // SAFETY: no instruction at all; the value stays where it is.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// The same by an instruction that does nothing: where it may stand beside another one, of which the kernel would refuse two
/// without an instruction in between ("Invalid line_info").
#[inline(always)]
pub fn forget(value: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = u64::from(value);
        // SAFETY: a register becomes what it is.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}
