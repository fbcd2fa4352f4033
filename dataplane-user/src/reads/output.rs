//! Standard output as lists write it: line by line, as text or as one JSON array.

use std::{
    io::{self, BufWriter, ErrorKind, StdoutLock, Write as _},
    ops::ControlFlow,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// A list that is being written.
pub(super) struct Output {
    to: BufWriter<StdoutLock<'static>>,
    json: bool,
    lines: usize,
}

impl Output {
    /// Begins a list; `heading` is that of the text.
    pub(super) fn start(json: bool, heading: &str) -> Result<Self> {
        let mut output = Self { to: BufWriter::with_capacity(1 << 16, io::stdout().lock()), json, lines: 0 };
        let _ = output.put(if json { "[" } else { heading })?;
        Ok(output)
    }

    /// Writes an entry, and says whether anybody reads on.
    pub(super) fn entry<T: Serialize>(
        &mut self,
        entry: &T,
        text: impl Fn(&T) -> String,
    ) -> Result<ControlFlow<()>> {
        self.lines += 1;
        if !self.json {
            return self.put(&text(entry));
        }
        let separator = if self.lines == 1 { "\n  " } else { ",\n  " };
        let json = serde_json::to_string(entry)?;
        Ok(match self.put(separator)? {
            ControlFlow::Continue(()) => self.put(&json)?,
            broken => broken,
        })
    }

    /// Ends the list. A reader that has gone is no error: `dataplane route list | head`.
    pub(super) fn end(mut self) -> Result<()> {
        if self.json {
            let _ = self.put(if self.lines == 0 { "]\n" } else { "\n]\n" })?;
        }
        broken(self.to.flush()).map(drop)
    }

    fn put(&mut self, text: &str) -> Result<ControlFlow<()>> {
        broken(self.to.write_all(text.as_bytes()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Nothing of what a reader did not want any more is tried again.
        let _ = self.to.flush();
    }
}

fn broken(written: io::Result<()>) -> Result<ControlFlow<()>> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        written => Ok(ControlFlow::Continue(written.context("cannot write the answer")?)),
    }
}
