//! Waiting for a condition: the only place where a test sleeps.

use std::{
    env, io,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// The first pause between two attempts; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// By how much longer everything may take on this machine: a whole number, 1 without it.
pub const PATIENCE_VARIABLE: &str = "DATAPLANE_TEST_PATIENCE";

/// What that limit is on this machine, which `DATAPLANE_TEST_PATIENCE` may call slow.
///
/// # Panics
/// If the variable is not a number from 1 on.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| match env::var(PATIENCE_VARIABLE) {
        Ok(text) => match text.parse() {
            Ok(factor @ 1..) => factor,
            _ => panic!("{PATIENCE_VARIABLE} must be a whole number from 1 on, not {text:?}"),
        },
        Err(_) => 1,
    });
    limit * *factor
}

/// Tries until the attempt succeeds, for at most `timeout`, or longer on a slow machine ([`patient`]); there is always
/// one attempt at the end of it.
///
/// # Errors
/// The last attempt's error, with the time that was waited.
pub fn eventually<T>(timeout: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let timeout = patient(timeout);
    let deadline = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        let last = Instant::now() >= deadline;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if last => {
                return Err(error).with_context(|| format!("not so within {timeout:?}"));
            }
            Err(_) => {}
        }
        thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Makes a system call again that was interrupted: on a socket with a time limit the kernel does not
/// (signal(7)).
///
/// # Errors
/// Those of the call, but for the interruption.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn returns_the_first_success() -> Result<()> {
        let mut attempts = 0;
        let value = eventually(Duration::from_secs(10), || {
            attempts += 1;
            if attempts < 4 { bail!("attempt {attempts}") } else { Ok(attempts) }
        })?;
        assert_eq!(value, 4);
        Ok(())
    }

    #[test]
    fn gives_up_with_the_last_error() {
        let (start, limit) = (Instant::now(), Duration::from_millis(30));
        let error = eventually(limit, || -> Result<()> { bail!("no link") }).unwrap_err();
        assert!(start.elapsed() >= patient(limit));
        assert_eq!(format!("{error:#}"), format!("not so within {:?}: no link", patient(limit)));
    }
}
