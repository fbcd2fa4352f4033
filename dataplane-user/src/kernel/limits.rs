//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// Takes as many as it may.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        debug!("the limit of open files stays at {current:?}: {error}");
    }
}

/// The message of an error, with what helps where too many files are open. The libraries' errors do not tell that apart but in
/// their text.
pub fn explain(mut message: String) -> String {
    if message.contains(&format!("(os error {})", libc::EMFILE)) {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or("any number of".to_owned(), |limit| limit.to_string());
        message.push_str(&format!(
            "; this process may have {limit} files open: raise the limit (`ulimit -n`, `LimitNOFILE` of systemd, \
             `--ulimit nofile` of a container)"
        ));
    }
    message
}
