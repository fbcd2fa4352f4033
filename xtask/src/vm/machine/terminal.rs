//! The settings of this process's terminal, which QEMU changes while it has it.

use std::mem::MaybeUninit;

/// Set again when this is dropped.
pub(super) struct Terminal(Option<libc::termios>);

impl Terminal {
    /// Remembers the settings; nothing if standard input is no terminal.
    pub(super) fn save() -> Self {
        let mut settings = MaybeUninit::uninit();
        // SAFETY: the kernel writes one `termios` to where there is room for it.
        let saved = unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) } == 0;
        // SAFETY: the call succeeded, so it is filled in.
        Self(saved.then(|| unsafe { settings.assume_init() }))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            // SAFETY: reads the settings, which tcgetattr(3) gave.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, settings) };
        }
    }
}
