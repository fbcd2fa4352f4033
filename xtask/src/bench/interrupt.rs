//! Ctrl-C: the measurement under way is given up, and everything that was made is taken down by its guards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io, mem, ptr};

use anyhow::{Context as _, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The error of a measurement that was given up.
#[derive(Debug)]
pub(super) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From now on SIGINT and SIGTERM no longer end this process; [`check`] tells of them.
///
/// System calls in progress fail with EINTR, a running packet generator among them.
pub(super) fn catch() -> Result<()> {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: all zeros is a valid value of this plain structure: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = note as *const () as libc::sighandler_t;
        // SAFETY: the handler only stores to an atomic, which is safe at any point.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("cannot catch signal {signal}"));
        }
    }
    Ok(())
}

/// Whether a signal came.
pub(super) fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error once a signal came.
pub(super) fn check() -> Result<()> {
    if came() {
        bail!(Interrupted);
    }
    Ok(())
}
