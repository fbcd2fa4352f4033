//! TCX links: pinned, so that they outlive the daemon, and updated in place by the next one.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, tc::TcAttachType};

use super::{Place, link};
use crate::kernel::pins::Pins;

/// Updates the pinned link to the program, or makes one at the end of the chain, so that other programs on
/// the interface keep seeing what they saw.
pub(super) fn attach(program: &mut SchedClassifier, pins: &Pins, place: &Place) -> Result<()> {
    let pin = link::pin(pins, place);
    if let Some(found) = link::open(&pin)? {
        let link = found.try_into().with_context(|| link::not_ours(&pin))?;
        if let Ok(id) = program.attach_to_link(link) {
            // The pin keeps the link; the copy of its descriptor is closed here.
            drop(program.take_link(id)?);
            return Ok(());
        }
        // The link lost its interface (ENOLINK): the name stands for a new one.
        link::forget(&pin)?;
    }
    // By index: the name may be another interface's by now.
    let link = link::create_tcx(program.fd()?.as_fd(), place.ifindex).context("cannot make a TCX link")?;
    link::keep_fd(link.as_fd(), &pin)
}

/// Another dataplane's program in the chain, in words.
pub(super) fn foreign(pins: &Pins, place: &Place, loaded: &[u32]) -> Option<String> {
    // One interface has one program of ours: with a link of our own there, it is that one.
    if link::open(&link::pin(pins, place)).is_ok_and(|link| link.is_some()) {
        return None;
    }
    // A kernel before TCX has no such programs, and says so with an error.
    let (_, programs) = SchedClassifier::query_tcx(&place.interface, TcAttachType::Ingress).ok()?;
    let is_foreign = |id| !loaded.contains(&id);
    let foreign =
        programs.iter().find(|info| place.is_dataplane(info.name_as_str()) && is_foreign(info.id()))?;
    Some(format!("TCX program {}", foreign.id()))
}
