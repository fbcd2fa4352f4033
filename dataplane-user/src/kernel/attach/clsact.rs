//! clsact filters, for kernels before TCX. The filter's place in the qdisc stands in the name of the pin.

use std::{fs, io, mem, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::programs::{
    ProgramInfo, SchedClassifier,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError, TcHandle},
};

use super::Place;
use crate::kernel::{
    netlink::filters::{self, Filter},
    pins::Pins,
};

/// What the name of a pin says.
struct Pinned {
    path: PathBuf,
    priority: u16,
    handle: u32,
    qdisc_is_ours: bool,
}

fn pinned(pins: &Pins, place: &Place) -> Result<Option<Pinned>> {
    let start = format!("{}-", place.pin_name());
    let Ok(entries) = fs::read_dir(pins.filters()) else { return Ok(None) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&start)) else { continue };
        let mut parts = rest.split('-');
        let (Some(Ok(priority)), Some(Ok(handle))) =
            (parts.next().map(str::parse), parts.next().map(str::parse))
        else {
            bail!("{} is not a name that this program gives: remove it", entry.path().display());
        };
        let qdisc_is_ours = parts.next() == Some("q");
        return Ok(Some(Pinned { path: entry.path(), priority, handle, qdisc_is_ours }));
    }
    Ok(None)
}

/// Replaces the filter of an earlier run, or adds one with a priority and handle that the kernel chooses.
pub(super) fn attach(program: &mut SchedClassifier, pins: &Pins, place: &Place) -> Result<()> {
    let old = pinned(pins, place)?;
    let filters = filters::of_interface(place.ifindex)?;
    let replaces = old.as_ref().filter(|old| filters.iter().any(|filter| is_at(filter, old)));
    let mut qdisc_is_ours = old.as_ref().is_some_and(|old| old.qdisc_is_ours);
    let link = if let Some(old) = replaces {
        let link = SchedClassifierLink::attached(
            &place.interface,
            TcAttachType::Ingress,
            old.priority,
            TcHandle::from(old.handle),
            None,
        )?;
        program.attach_to_link(link)?
    } else {
        match tc::qdisc_add_clsact(&place.interface) {
            Ok(()) => qdisc_is_ours = true,
            // Somebody else's, which stays when ours goes.
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(error).context("cannot add the clsact qdisc"),
        }
        let options = TcAttachOptions::Netlink(NlOptions::default());
        program.attach_with_options(&place.interface, TcAttachType::Ingress, options)?
    };
    let link = program.take_link(link)?;
    let (priority, handle) = (link.priority()?, u32::from(link.handle()?));
    // Dropping the link would remove the filter, which is to outlive this process.
    mem::forget(link);
    if let Some(old) = old {
        fs::remove_file(&old.path).with_context(|| format!("cannot remove {}", old.path.display()))?;
    }
    let suffix = if qdisc_is_ours { "-q" } else { "" };
    let pin = pins.filters().join(format!("{}-{priority}-{handle}{suffix}", place.pin_name()));
    program.pin(&pin).with_context(|| format!("cannot pin the program at {}", pin.display()))
}

/// Another dataplane's filter on the interface, in words.
pub(super) fn foreign(pins: &Pins, place: &Place) -> Result<Option<String>> {
    let own = pinned(pins, place)?;
    let foreign = filters::of_interface(place.ifindex)?.into_iter().find(|filter| {
        place.is_dataplane(filter.name.as_deref()) && !own.as_ref().is_some_and(|own| is_at(filter, own))
    });
    Ok(foreign.map(|filter| format!("tc filter with priority {}", filter.priority)))
}

fn is_at(filter: &Filter, pinned: &Pinned) -> bool {
    filter.priority == pinned.priority && filter.handle == pinned.handle
}

/// Removes the filter, and the qdisc where this program added it and nobody else uses it.
pub(super) fn detach(pins: &Pins, place: &Place) -> Result<()> {
    let Some(pinned) = pinned(pins, place)? else { return Ok(()) };
    delete_filter(place, &pinned)?;
    let is_unused = || -> Result<bool> {
        Ok(filters::of_interface(place.ifindex)?.is_empty() && filters::at_egress(place.ifindex)?.is_empty())
    };
    if pinned.qdisc_is_ours && is_unused()? {
        filters::delete_clsact(place.ifindex)?;
    }
    remove_pin(&pinned)
}

/// Removes the filter alone, after a TCX link has taken its place: a qdisc of ours stays until [`detach`].
///
/// The kernel takes an interface out of service for a moment when its clsact qdisc comes or goes, and drops what
/// is sent by it meanwhile (`qdisc_graft()` in net/sched/sch_api.c).
pub(super) fn retire(pins: &Pins, place: &Place) -> Result<()> {
    let Some(pinned) = pinned(pins, place)? else { return Ok(()) };
    delete_filter(place, &pinned)?;
    if !pinned.qdisc_is_ours {
        return remove_pin(&pinned);
    }
    // Priority 0 is nobody's, so that the name is never taken for that of a filter that somebody adds later.
    let marker = pins.filters().join(format!("{}-0-0-q", place.pin_name()));
    fs::rename(&pinned.path, &marker)
        .with_context(|| format!("cannot rename the pin to {}", marker.display()))
}

fn delete_filter(place: &Place, pinned: &Pinned) -> Result<()> {
    if filters::of_interface(place.ifindex)?.iter().any(|filter| is_at(filter, pinned)) {
        filters::delete(place.ifindex, pinned.priority, pinned.handle)?;
    }
    Ok(())
}

fn remove_pin(pinned: &Pinned) -> Result<()> {
    match fs::remove_file(&pinned.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("cannot remove the pin"),
        _ => Ok(()),
    }
}

/// The id of the program in the filter.
pub(super) fn program_id(pins: &Pins, place: &Place) -> Option<u32> {
    let pinned = pinned(pins, place).ok()??;
    ProgramInfo::from_pin(&pinned.path).ok().map(|info| info.id())
}
