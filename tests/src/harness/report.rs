//! What tests found out beside whether they pass, for who runs them.

use std::{env, fs::OpenOptions, io::Write as _, path::Path};

/// Names the directory of the files that [`report`] appends to.
pub const DIRECTORY_VARIABLE: &str = "DATAPLANE_REPORT";

/// Prints the line, and appends it to that file of the directory that `DATAPLANE_REPORT` names, if it names one.
///
/// # Panics
/// If that file cannot be written.
pub fn report(file: &str, line: &str) {
    println!("{file}: {line}");
    if let Some(directory) = env::var_os(DIRECTORY_VARIABLE) {
        let path = Path::new(&directory).join(file);
        // One write in append mode: lines of tests that run side by side do not mix.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .unwrap_or_else(|error| panic!("cannot append to {}: {error}", path.display()));
    }
}
