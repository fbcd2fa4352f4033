//! TCX links: pinned, so that they outlive the daemon, and updated in place by the next one.

use std::{fs, io, path::PathBuf};

use anyhow::{Context as _, Result};
use aya::{
    programs::{
        LinkOrder, SchedClassifier,
        links::{FdLink, LinkError, PinnedLink},
        tc::{TcAttachOptions, TcAttachType},
    },
    sys::SyscallError,
};

use super::{Place, link};
use crate::kernel::pins::Pins;

fn pin(pins: &Pins, place: &Place) -> PathBuf {
    pins.links().join(place.pin_name())
}

/// Updates the pinned link to the program, or makes one at the end of the chain, so that other programs on
/// the interface keep seeing what they saw.
pub(super) fn attach(program: &mut SchedClassifier, pins: &Pins, place: &Place) -> Result<()> {
    let pin = pin(pins, place);
    match PinnedLink::from_pin(&pin) {
        Ok(link) => {
            let link = FdLink::from(link).try_into().context("the pin is not a TCX link")?;
            if let Ok(id) = program.attach_to_link(link) {
                // The pin keeps the link; the copy of its descriptor is closed here.
                drop(program.take_link(id)?);
                return Ok(());
            }
            // The link lost its interface (ENOLINK): the name stands for a new one.
            fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
        }
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", pin.display())),
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::last());
    let id = program.attach_with_options(&place.interface, TcAttachType::Ingress, order)?;
    let link: FdLink = program.take_link(id)?.try_into().context("not a TCX link")?;
    link.pin(&pin).with_context(|| format!("cannot pin the link at {}", pin.display()))?;
    Ok(())
}

/// Another dataplane's program in the chain, in words.
pub(super) fn foreign(pins: &Pins, place: &Place) -> Option<String> {
    // One interface has one program of ours: with a link of our own there, it is that one.
    if PinnedLink::from_pin(pin(pins, place)).is_ok() {
        return None;
    }
    // A kernel before TCX has no such programs, and says so with an error.
    let (_, programs) = SchedClassifier::query_tcx(&place.interface, TcAttachType::Ingress).ok()?;
    let foreign = programs.iter().find(|program| place.is_dataplane(program.name_as_str()))?;
    Some(format!("TCX program {}", foreign.id()))
}

/// Takes the link off its interface, and removes the pin.
pub(super) fn detach(pins: &Pins, place: &Place) -> Result<()> {
    let pin = pin(pins, place);
    link::detach(&pin).with_context(|| format!("cannot detach the link at {}", pin.display()))?;
    match fs::remove_file(&pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("cannot remove the pin"),
        _ => Ok(()),
    }
}

/// The id of the program at the interface.
pub(super) fn program_id(pins: &Pins, place: &Place) -> Option<u32> {
    if let Ok((_, programs)) = SchedClassifier::query_tcx(&place.interface, TcAttachType::Ingress) {
        let own = programs.into_iter().find(|info| place.is_dataplane(info.name_as_str()));
        return own.map(|info| info.id());
    }
    // Without CAP_SYS_ADMIN the kernel does not open programs by their ids, and so tells no names.
    let link = FdLink::from(PinnedLink::from_pin(pin(pins, place)).ok()?);
    Some(link.info().ok()?.program_id())
}
