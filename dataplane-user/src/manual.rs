//! Manual pages and completions, made from the command line's own description.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// The section of administration commands (man-pages(7)).
const SECTION: &str = "8";

/// Prints the completions of a shell.
///
/// # Errors
///
/// Where standard output takes no more.
pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dataplane", &mut text);
    match io::Write::write_all(&mut io::stdout(), &text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the completions"),
    }
}

/// Writes a page for the program and for each command: `dataplane.8`, `dataplane-route-list.8`.
///
/// # Errors
///
/// Where a file cannot be written.
pub fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(command, directory)
}

fn pages(command: clap::Command, directory: &Path) -> Result<()> {
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        pages(part.clone(), directory)?;
    }
    let source = format!("dataplane {}", env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command).section(SECTION).source(source).manual("Data plane");
    let path = page.generate_to(directory);
    path.map(drop).with_context(|| format!("cannot write a page in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(page("dataplane.8").contains("dataplane\\-monitor(8)"));
        assert!(page("dataplane-monitor.8").contains("\\-\\-drops"));
        assert!(page("dataplane-route-get.8").contains("ADDRESS"));
        assert!(!directory.path().join("dataplane-manual.8").exists(), "hidden");
    }
}
