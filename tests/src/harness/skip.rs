//! Tests that this machine cannot run: said and counted, never taken for passed.

use std::{env, fs::OpenOptions, io::Write};

/// Names the file that [`skip`] appends to.
pub const LOG_VARIABLE: &str = "DATAPLANE_SKIP_LOG";

/// Reports that the test `test` did not run, and why: on standard error, and as a line `TEST<tab>REASON`
/// in the file that `DATAPLANE_SKIP_LOG` names.
///
/// # Panics
/// If that file cannot be written: a skip that nobody counts would be a pass.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = env::var_os(LOG_VARIABLE) {
        let line = format!("{test}\t{}\n", reason.replace(['\n', '\t'], " "));
        // One write in append mode: lines of tests that run side by side do not mix.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("cannot append to {}: {error}", path.display()));
    }
}

/// Skips `test`, and says so with `true`, if this process may not make network namespaces.
#[must_use = "return from the test if this is true"]
pub fn skip_without_root(test: &str) -> bool {
    // SAFETY: geteuid() takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        skip(test, "needs root, to make network namespaces");
    }
    !is_root
}
