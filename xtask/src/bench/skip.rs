//! What this machine cannot measure: told, and no fault.

use std::fmt;

use anyhow::Error;

/// The reason why a case, a variant or a baseline cannot be measured here.
#[derive(Debug)]
pub(super) struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// An error that leaves a case out without failing the run; `why` says what the machine lacks, and the mend.
pub(super) fn skip(why: impl Into<String>) -> Error {
    Error::new(Skip(why.into()))
}

/// Whether the error is a [`skip`], in whatever context.
pub(super) fn is_skip(error: &Error) -> bool {
    error.is::<Skip>()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_skip_is_known_by_its_kind_and_not_by_its_text() {
        assert!(is_skip(&skip("no netperf").context("tcp-rr")));
        assert!(!is_skip(&anyhow!("no netperf")));
    }
}
