//! `[log]`: what the daemon says about its work.

use std::fmt;

use toml::de::DeTable;

use super::report::Report;
use super::schema::{Form, Schema};
use super::section::Section;
use super::value::{self, Choice};

/// The daemon's log, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is important enough.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// The least important line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What keeps the daemon from its work.
    Error,
    /// What an operator should look at.
    Warn,
    /// What changes.
    Info,
    /// Why it changes.
    Debug,
    /// Every message to and from the kernel.
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

impl Choice for LogLevel {
    const ALL: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// As it is written in the file, which is how `tracing` names it too.
impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value::word(*self))
    }
}

/// As it is written in the file.
impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value::word(*self))
    }
}

pub(super) const SCHEMA: Schema = Schema {
    name: "log",
    parent: "",
    form: Form::Single,
    keys: &[("level", "\"info\""), ("format", "\"text\"")],
    sections: &[],
};

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Log {
    let default = Log::default();
    let section = &mut Section::single(tree, &SCHEMA, report);
    Log {
        level: section.text("level", value::choice).map_or(default.level, |level| level.value),
        format: section.text("format", value::choice).map_or(default.format, |format| format.value),
    }
}
