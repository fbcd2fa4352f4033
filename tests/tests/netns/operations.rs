//! What `docs/operations.md` tells people to type.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Stream, traffic};

use super::{
    network::{Network, PATIENCE},
    require_root,
};

const DOCUMENT: &str = include_str!("../../../docs/operations.md");

/// The lines of the document's shell blocks, without comments.
fn lines() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or(line).trim());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn every_command_of_the_document_works() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, .. } = &network;
    traffic::ping(c1, c3.address, 1)?.all_answered()?;
    let commands: BTreeSet<&str> =
        lines().into_iter().filter_map(|line| line.strip_prefix("dataplane ")).collect();
    ensure!(commands.len() >= 12, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            // The path is the installation's, as in `check && systemctl start`.
            ["check", ..] => {
                let file = daemon1.config_file();
                let file = file.to_str().context("a strange path")?;
                daemon1.cli_output(&["check", "--config", file]).ok()?;
            }
            ["monitor", ..] => {
                let monitor = daemon1.spawn(&words)?;
                monitor.wait_for_line(Stream::Stderr, |line| line.starts_with("listening"), PATIENCE)?;
                monitor.signal(libc::SIGINT)?;
                ensure!(monitor.wait(PATIENCE)?.success(), "{command}: {}", monitor.output(Stream::Stderr));
            }
            // This node has neither, and says so.
            ["bgp", ..] => drop(daemon1.cli_output(&words).ok()?),
            _ => {
                let shown = daemon1.cli_output(&words).ok()?;
                ensure!(!shown.trim().is_empty(), "{command} says nothing");
            }
        }
    }
    Ok(())
}
