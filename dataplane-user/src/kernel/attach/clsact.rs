//! clsact filters, for kernels before TCX. The filter's place in the qdisc stands in the name of the pin.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::programs::SchedClassifier;

use super::Place;
use crate::kernel::{
    netlink::{
        Refusal,
        filters::{self, Filter},
    },
    pins::Pins,
};

/// What the name of a pin says.
struct Pinned {
    path: PathBuf,
    priority: u16,
    handle: u32,
    qdisc_is_ours: bool,
}

/// The end of the name of a pin that is about to take another's place.
const NEW: &str = "-new";

/// The first priority that the kernel gives (`tcf_auto_prio()` in net/sched/cls_api.c).
const FIRST_PRIORITY: u16 = 0xc000;

/// How often a place is chosen while others add filters, too.
const ATTEMPTS: usize = 5;

fn pinned(pins: &Pins, place: &Place) -> Result<Option<Pinned>> {
    let start = format!("{}-", place.pin_name());
    let Ok(entries) = fs::read_dir(pins.filters()) else { return Ok(None) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&start)) else { continue };
        if rest.ends_with(NEW) {
            continue;
        }
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

/// Where the pin of that filter is. Priority 0 is nobody's: the pin stands for the qdisc alone.
fn path(pins: &Pins, place: &Place, priority: u16, handle: u32, qdisc_is_ours: bool) -> PathBuf {
    let suffix = if qdisc_is_ours { "-q" } else { "" };
    pins.filters().join(format!("{}-{priority}-{handle}{suffix}", place.pin_name()))
}

/// Replaces the filter of an earlier run, or adds one.
///
/// The pin is there before what it stands for, so that whenever this process is killed the next one knows its own.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &str,
    loaded: &[u32],
    pins: &Pins,
    place: &Place,
) -> Result<()> {
    let filters = filters::of_interface(place.ifindex)?;
    let old = match pinned(pins, place)? {
        Some(old) => Some(old),
        None => adopt(program, loaded, pins, place, &filters)?,
    };
    if let Some(old) = old.as_ref().filter(|old| filters.iter().any(|filter| is_own(filter, old, place))) {
        filters::replace(place.ifindex, (old.priority, old.handle), program.fd()?.as_fd(), name)?;
        return pin_again(program, &old.path);
    }
    let pin = add_qdisc(program, pins, place, old)?;
    add(program, name, pins, place, pin)
}

/// Pins the program again where somebody removed the pin of a filter that this daemon added: one with a program of these
/// ids. Nobody knows then whose the qdisc is: it stays.
fn adopt(
    program: &mut SchedClassifier,
    loaded: &[u32],
    pins: &Pins,
    place: &Place,
    filters: &[Filter],
) -> Result<Option<Pinned>> {
    let is_loaded = |filter: &&Filter| filter.program.is_some_and(|id| loaded.contains(&id));
    let Some(filter) = filters.iter().find(is_loaded) else { return Ok(None) };
    let (priority, handle) = (filter.priority, filter.handle);
    let path = path(pins, place, priority, handle, false);
    pin(program, &path)?;
    Ok(Some(Pinned { path, priority, handle, qdisc_is_ours: false }))
}

/// Adds the qdisc if there is none. Gives the pin that there is for this place now.
fn add_qdisc(
    program: &mut SchedClassifier,
    pins: &Pins,
    place: &Place,
    old: Option<Pinned>,
) -> Result<Option<Pinned>> {
    if filters::has_qdisc(place.ifindex)? {
        return Ok(old);
    }
    let (path, priority, handle) = (path(pins, place, 0, 0, true), 0, 0);
    match &old {
        Some(old) => rename(&old.path, &path)?,
        None => pin(program, &path)?,
    }
    let marker = Pinned { path, priority, handle, qdisc_is_ours: true };
    match filters::add_clsact(place.ifindex) {
        Ok(()) => Ok(Some(marker)),
        // Somebody else's, which stays when ours goes.
        Err(error) if is_taken(&error) => {
            remove_pin(&marker)?;
            Ok(None)
        }
        Err(error) => {
            remove_pin(&marker)?;
            Err(error).context("cannot add the clsact qdisc")
        }
    }
}

/// Adds the filter before all that are there, as the kernel does for who asks for no priority.
fn add(
    program: &mut SchedClassifier,
    name: &str,
    pins: &Pins,
    place: &Place,
    mut current: Option<Pinned>,
) -> Result<()> {
    let qdisc_is_ours = current.as_ref().is_some_and(|pin| pin.qdisc_is_ours);
    for attempt in 1.. {
        let filters = filters::of_interface(place.ifindex)?;
        let first = filters.iter().map(|filter| filter.priority).min();
        let priority = first.map_or(FIRST_PRIORITY, |first| (first - 1).max(1));
        let there = filters.iter().filter(|filter| filter.priority == priority);
        let handle = there.map(|filter| filter.handle).max().unwrap_or(0) + 1;
        let path = path(pins, place, priority, handle, qdisc_is_ours);
        match &current {
            Some(current) => rename(&current.path, &path)?,
            None => pin(program, &path)?,
        }
        match filters::add(place.ifindex, (priority, handle), program.fd()?.as_fd(), name) {
            Ok(()) => {
                return if current.is_some() { pin_again(program, &path) } else { Ok(()) };
            }
            // Somebody was faster.
            Err(error) if attempt < ATTEMPTS && is_taken(&error) => {}
            Err(error) => return Err(error).context("cannot add the tc filter"),
        }
        current = Some(Pinned { path, priority, handle, qdisc_is_ours });
    }
    Ok(())
}

fn is_taken(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.errno == libc::EEXIST)
}

fn pin(program: &mut SchedClassifier, path: &Path) -> Result<()> {
    program.pin(path).with_context(|| format!("cannot pin the program at {}", path.display()))
}

/// Makes a pin that is there one of this program.
fn pin_again(program: &mut SchedClassifier, path: &Path) -> Result<()> {
    let new = PathBuf::from(format!("{}{NEW}", path.display()));
    remove(&new)?;
    pin(program, &new)?;
    rename(&new, path)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot rename the pin {} to {}", from.display(), to.display()))
}

/// Another dataplane's filter on the interface, in words.
pub(super) fn foreign(pins: &Pins, place: &Place, loaded: &[u32]) -> Result<Option<String>> {
    let own = pinned(pins, place)?;
    let foreign = filters::of_interface(place.ifindex)?.into_iter().find(|filter| {
        place.is_dataplane(filter.name.as_deref())
            && !filter.program.is_some_and(|id| loaded.contains(&id))
            && !own.as_ref().is_some_and(|own| is_own(filter, own, place))
    });
    Ok(foreign.map(|filter| format!("tc filter with priority {}", filter.priority)))
}

/// Whether it is the filter that the pin stands for, and not one that somebody added where ours was to be.
fn is_own(filter: &Filter, pinned: &Pinned, place: &Place) -> bool {
    (filter.priority, filter.handle) == (pinned.priority, pinned.handle)
        && place.is_dataplane(filter.name.as_deref())
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
    rename(&pinned.path, &path(pins, place, 0, 0, true))
}

fn delete_filter(place: &Place, pinned: &Pinned) -> Result<()> {
    if filters::of_interface(place.ifindex)?.iter().any(|filter| is_own(filter, pinned, place)) {
        filters::delete(place.ifindex, pinned.priority, pinned.handle)?;
    }
    Ok(())
}

fn remove_pin(pinned: &Pinned) -> Result<()> {
    remove(&PathBuf::from(format!("{}{NEW}", pinned.path.display())))?;
    remove(&pinned.path)
}

fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pin {}", pin.display()))
        }
        _ => Ok(()),
    }
}

/// The id of the program in the filter, if that is at the interface.
pub(super) fn program_id(pins: &Pins, place: &Place) -> Result<Option<u32>> {
    let Some(pinned) = pinned(pins, place)? else { return Ok(None) };
    let filters = filters::of_interface(place.ifindex)?;
    Ok(filters.iter().find(|filter| is_own(filter, &pinned, place)).and_then(|filter| filter.program))
}
