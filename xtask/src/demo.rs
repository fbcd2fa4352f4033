//! `cargo xtask demo`: two nodes with containers, made of network namespaces, and the daemons' work on them,
//! step by step.
//!
//! No guard of the harness cleans up here: [`place::remove`] does, after a run as for `--remove`, from what is on
//! the machine and not from what this process remembers. So there is one way, and it is taken every time.

mod ending;
mod interrupt;
mod network;
mod place;
mod screen;
mod site;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

use ::tests::harness::{keep, names};
use anyhow::{Result, bail};

use crate::build::{self, Profile};
use crate::process;
use crate::setup::{self, Need};
use network::Network;
use place::Place;
use screen::Screen;
use site::Site;

/// What to do with the demo.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave it up at the end, and say how to look around in it
    #[arg(long)]
    keep: bool,
    /// Remove one that was left up: daemons, pins, namespaces, files
    #[arg(long, conflicts_with = "keep")]
    remove: bool,
    /// Where the programs of the head node's two uplinks run
    #[arg(long, value_name = "HOOK", default_value = "auto", conflicts_with = "remove")]
    uplink_hook: UplinkHook,
}

/// `datapath.uplink-hook` of the head node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum UplinkHook {
    /// The daemon chooses: tc, since these uplinks are veths
    Auto,
    /// At tc alone
    Tc,
    /// At XDP, and at tc what XDP leaves to it
    Xdp,
}

/// Sets up, builds, shows every step, and removes everything unless it is to be kept.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !process::is_root() {
        let command = if args.remove { "demo --remove" } else { "demo" };
        bail!(
            "the demo loads BPF programs and makes network namespaces, which needs root; run `{}`",
            setup::as_root(command)
        );
    }
    if args.remove {
        return remove();
    }
    // Said before minutes of compiling, not after.
    place::demand_free()?;
    setup::ensure(&[Need::Build, Need::Demo])?;
    let binary = build::binary(Profile::Release)?;

    let begin = Instant::now();
    interrupt::watch()?;
    keep::request();
    names::fix(place::PREFIX);
    let place = Place::take(binary)?;
    let mut screen = Screen::new();
    let shown = show(&place, &mut screen, args);
    if let Some(signal) = interrupt::caught() {
        drop(shown);
        place.remove()?;
        eprintln!("\ninterrupted: the demo is removed");
        return Ok(ExitCode::from(interrupt::exit_status(signal)));
    }
    let Shown { green, red, site } = shown?;
    ending::sum_up(&screen, green, red, site.is_some(), begin.elapsed())?;
    match site {
        Some(site) if args.keep => {
            ending::kept(&screen, &site)?;
            drop(site);
            place.keep();
        }
        site => {
            drop(site);
            place.remove()?;
            ending::next(&screen)?;
        }
    }
    Ok(if red == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of the steps.
struct Shown<'a> {
    green: usize,
    red: usize,
    /// What is up; none if it could not be made.
    site: Option<Site<'a>>,
}

/// Makes the network, starts the daemons, and goes through the steps; an error is one of the output only.
fn show<'a>(place: &'a Place, screen: &mut Screen, args: &Args) -> Result<Shown<'a>> {
    let red_after = |green| Shown { green, red: 1, site: None };
    screen.print(network::INTRODUCTION)?;
    screen.print(&format!("`dataplane` stands for {}.\n", place.shown_binary().display()))?;
    let build = |told: &mut screen::Told<'_>| Network::build(args.uplink_hook, told);
    let Some(network) = screen.step("The network: two nodes, four containers", build)? else {
        return Ok(red_after(0));
    };
    let start = |told: &mut screen::Told<'_>| Site::start(place, network, told);
    let Some(site) = screen.step("A daemon on each node", start)? else { return Ok(red_after(1)) };
    let (mut green, mut red) = (2, 0);
    let detach = (!args.keep).then_some(&steps::DETACH);
    for step in steps::STEPS.iter().chain(detach) {
        if interrupt::caught().is_some() {
            break;
        }
        match screen.step(step.title, |told| (step.check)(&site, told))? {
            Some(()) => green += 1,
            None => red += 1,
        }
    }
    Ok(Shown { green, red, site: Some(site) })
}

/// `--remove`.
fn remove() -> Result<ExitCode> {
    match place::found()? {
        place::Found::Nothing => println!("there is no demo to remove"),
        place::Found::Running { pid } => bail!("{}", place::running(&pid)),
        place::Found::Kept => {
            let remaining = place::remove()?;
            println!("the demo is removed: its daemons, pins, namespaces and files");
            for note in remaining {
                println!("{note}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
