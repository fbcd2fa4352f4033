//! Reads the file itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::report::Fault;
use super::system::{RunningSystem, System};
use super::text::Text;
use super::{DEFAULT_FILE, Failure, Loaded, parse};

/// More than a million routes need; and /dev/zero has no end.
const LARGEST: u64 = 256 << 20;

/// Reads a file, and compares it with the running system, in the network namespace of the calling thread.
///
/// # Errors
///
/// Where the file cannot be read, or is no text: one error, at its first line and column, or at the first
/// byte that is no UTF-8. Otherwise as [`parse`].
pub fn load(file: &Path) -> Result<Loaded, Failure> {
    load_for(file, &RunningSystem)
}

/// Reads a file, and compares it with that system.
///
/// # Errors
///
/// As [`load`].
pub fn load_for(file: &Path, system: &dyn System) -> Result<Loaded, Failure> {
    let name = file.display().to_string();
    let bytes = read(file).map_err(|error| failure(&name, "", 0, unreadable(file, &error)))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&name, text, system),
        Err(error) => {
            let at = error.valid_up_to();
            let fault = Fault::new("the file is not UTF-8 text from here on", "save it as UTF-8");
            Err(failure(&name, &String::from_utf8_lossy(&bytes), at, fault))
        }
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A FIFO would be waited at for a writer, by a daemon that has other things to do.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::ErrorKind::NotSeekable.into());
    }
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn unreadable(file: &Path, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let mend = if file == Path::new(DEFAULT_FILE) {
                "create it (an empty file takes every default), or name another one with `--config FILE`"
            } else {
                "correct the path of `--config`, or create the file (an empty one takes every default)"
            };
            Fault::new("there is no such file", mend)
        }
        io::ErrorKind::NotSeekable => {
            Fault::new("this is a FIFO, which cannot be read again", "name a file with `--config`")
        }
        io::ErrorKind::IsADirectory => Fault::new("this is a directory", "name a file in it with `--config`"),
        io::ErrorKind::PermissionDenied => Fault::new(
            "permission to read the file is denied",
            "run as root, or let this user read it (chmod, chown)",
        ),
        io::ErrorKind::FileTooLarge => {
            Fault::new(format!("the file is larger than {} MiB", LARGEST >> 20), "name a configuration file")
        }
        _ => Fault::new(
            format!("the file cannot be read: {error}"),
            "name a file that can be, with `--config`",
        ),
    }
}

fn failure(name: &str, text: &str, at: usize, fault: Fault) -> Failure {
    Failure { errors: vec![fault.at(name, &Text::new(text), at)], warnings: Vec::new() }
}
