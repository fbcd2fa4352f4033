//! TCX links: pinned, so that they outlive the daemon, and updated in place by the next one.

use anyhow::{Context as _, Result};
use aya::programs::{
    LinkOrder, SchedClassifier,
    links::FdLink,
    tc::{TcAttachOptions, TcAttachType},
};

use super::{Place, link};
use crate::kernel::{object::Program, pins::Pins};

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
    let order = TcAttachOptions::TcxOrder(LinkOrder::last());
    let id = program.attach_with_options(&place.interface, TcAttachType::Ingress, order)?;
    let link: FdLink = program.take_link(id)?.try_into().context("not a TCX link")?;
    link::keep(link, &pin)
}

/// Another dataplane's program in the chain, in words.
pub(super) fn foreign(pins: &Pins, place: &Place) -> Option<String> {
    // One interface has one program of ours: with a link of our own there, it is that one.
    if link::open(&link::pin(pins, place)).is_ok_and(|link| link.is_some()) {
        return None;
    }
    // A kernel before TCX has no such programs, and says so with an error.
    let (_, programs) = SchedClassifier::query_tcx(&place.interface, TcAttachType::Ingress).ok()?;
    let foreign = programs.iter().find(|program| place.is_dataplane(program.name_as_str()))?;
    Some(format!("TCX program {}", foreign.id()))
}

/// Whether the program that holds a walk's place is at the interface.
pub(super) fn is_waiting(place: &Place) -> bool {
    let query = SchedClassifier::query_tcx(&place.interface, TcAttachType::Ingress);
    query.is_ok_and(|(_, programs)| {
        programs.iter().any(|info| info.name_as_str() == Some(Program::Waiting.name()))
    })
}

/// The id of the program at the interface.
pub(super) fn program_id(pins: &Pins, place: &Place) -> Option<u32> {
    if let Ok((_, programs)) = SchedClassifier::query_tcx(&place.interface, TcAttachType::Ingress) {
        let own = programs.into_iter().find(|info| place.is_dataplane(info.name_as_str()));
        return own.map(|info| info.id());
    }
    // Without CAP_SYS_ADMIN the kernel does not open programs by their ids, and so tells no names.
    link::program_id(&link::pin(pins, place))
}
