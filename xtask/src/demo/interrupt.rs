//! Ctrl-C and its like: noted, so that the demo ends at the next step and cleans up.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context as _, Result};

/// The signals by which people and machines end a command.
const SIGNALS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// From now on the signals end nothing by themselves: [`caught`] tells of them.
///
/// A terminal sends them to the running step's command, too, which ends by them.
pub(super) fn watch() -> Result<()> {
    for signal in SIGNALS {
        // SAFETY: all zeros is a valid value of this plain structure: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = note as extern "C" fn(i32) as usize;
        // SAFETY: the handler only stores to an atomic, which signal-safety(7) allows; the old action is not
        // asked for. No SA_RESTART: a transfer that waits for bytes is to end.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error()).context("cannot watch for Ctrl-C");
        }
    }
    Ok(())
}

/// The last of the signals that came.
pub(super) fn caught() -> Option<i32> {
    Some(CAUGHT.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// The exit status that a shell gives a command that the signal ended.
pub(super) fn exit_status(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
