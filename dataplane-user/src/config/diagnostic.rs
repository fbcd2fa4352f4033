//! What is said about a file: where, what is wrong, and what mends it.

use std::fmt;

/// One thing that is wrong, or worth a warning, in a configuration file.
///
/// It is shown as `FILE:LINE:COLUMN: what is wrong; the mend`, on one line, which editors and terminals
/// make a link of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters (Unicode scalar values, not bytes).
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, mend } = self;
        write!(f, "{file}:{line}:{column}: {message}; {mend}")
    }
}

/// Why a file cannot be used: every error in it, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What must be mended; never empty.
    pub errors: Vec<Diagnostic>,
    /// What else was noticed.
    pub warnings: Vec<Diagnostic>,
}

/// The errors, one a line; the warnings are the caller's to show.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
