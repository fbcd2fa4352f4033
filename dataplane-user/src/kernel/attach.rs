//! The hooks: a program at tc ingress of an interface, as a TCX link or as a clsact filter; or at its XDP.

mod clsact;
mod link;
mod tcx;
mod xdp;

use std::{collections::BTreeMap, ffi::CString};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, util::KernelVersion};
use dataplane_common::stats::Hook;
use tracing::{info, warn};

use crate::{
    config::TcAttach,
    kernel::{
        object::{self, Program, classifier},
        pins::Pins,
    },
};

pub use xdp::Refused;

/// How programs are attached to tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A TCX link: Linux 6.6, kernel commit e420bed02507 ("bpf: Add fd-based tcx multi-prog infra").
    Tcx,
    /// A filter of the clsact qdisc, for older kernels.
    Clsact,
}

impl Mode {
    /// The mode that the configuration asks for on this kernel.
    pub fn choose(wanted: TcAttach) -> Self {
        match wanted {
            TcAttach::Tcx => Self::Tcx,
            TcAttach::Clsact => Self::Clsact,
            TcAttach::Auto => match KernelVersion::current() {
                Ok(version) if version < KernelVersion::new(6, 6, 0) => Self::Clsact,
                _ => Self::Tcx,
            },
        }
    }

    /// The name used in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// A place for a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The interface's index, which no other interface of the namespace gets again while it lives.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// The interface's name.
    pub interface: String,
}

impl Place {
    /// The hook on the interface.
    pub fn new(interface: &str, ifindex: u32, hook: Hook) -> Self {
        Self { ifindex, hook, interface: interface.to_owned() }
    }

    /// Whether the interface still has this name and index.
    pub fn exists(&self) -> bool {
        let Ok(name) = CString::new(self.interface.as_str()) else { return false };
        // SAFETY: the string is terminated and lives during the call.
        unsafe { libc::if_nametoindex(name.as_ptr()) == self.ifindex }
    }

    /// The programs that may be there, besides other people's.
    fn programs(&self) -> [Program; 2] {
        [Program::Walk(self.hook), Program::Waiting]
    }

    /// Whether a program with that name at this place is one of ours, or of another dataplane.
    fn is_dataplane(&self, name: Option<&str>) -> bool {
        self.programs().iter().any(|program| name == Some(program.name()))
    }

    /// The place among `places` with this interface's index and hook: this one, whatever name the interface
    /// has there.
    pub fn find_in<'a>(&self, places: &'a BTreeMap<Self, Program>) -> Option<&'a Self> {
        let first = Self { interface: String::new(), ..*self };
        let (found, _) = places.range(first..).next()?;
        ((found.ifindex, found.hook) == (self.ifindex, self.hook)).then_some(found)
    }

    /// How a program is attached there, where `mode` is the way to tc.
    pub const fn mode_name(&self, mode: Mode) -> &'static str {
        match self.hook {
            Hook::XdpFromUplink => "xdp",
            Hook::FromContainer | Hook::FromUplink => mode.name(),
        }
    }

    /// The start of the names of its pins.
    fn pin_name(&self) -> String {
        format!("{}-{}", self.hook.name(), self.ifindex)
    }
}

/// Puts the program on the interface, replacing the one that is there without a gap.
///
/// # Errors
///
/// Where another dataplane's program is there, or the kernel refuses.
pub fn attach(object: &mut Ebpf, pins: &Pins, mode: Mode, place: &Place, program: Program) -> Result<()> {
    let name = program.name();
    if place.hook == Hook::XdpFromUplink {
        xdp::attach(object::xdp(object)?, pins, place)
    } else {
        let loaded = place.programs().map(|program| Ok(classifier(object, program)?.info()?.id()));
        let loaded = loaded.into_iter().collect::<Result<Vec<u32>>>()?;
        refuse_foreign(pins, place, &loaded)?;
        let program = classifier(object, program)?;
        match mode {
            Mode::Tcx => tcx::attach(program, pins, place).and_then(|()| clsact::retire(pins, place)),
            Mode::Clsact => clsact::attach(program, name, &loaded, pins, place)
                .and_then(|()| link::remove(&link::pin(pins, place))),
        }
    }
    .with_context(|| format!("cannot attach {} to {}", place.hook.name(), place.interface))?;
    info!(interface = place.interface, program = name, mode = place.mode_name(mode), "attached");
    Ok(())
}

/// Two dataplanes on one interface would each take packets from the other, whichever way they are attached.
/// The programs with the ids `loaded` are this process's own, whose pins somebody may have removed.
fn refuse_foreign(pins: &Pins, place: &Place, loaded: &[u32]) -> Result<()> {
    let foreign = tcx::foreign(pins, place, loaded).or(clsact::foreign(pins, place, loaded)?);
    let Some(foreign) = foreign else { return Ok(()) };
    bail!(
        "{} is already driven by another dataplane ({foreign}): stop that one with `dataplane detach --config \
         FILE`, or take the interface out of this configuration",
        place.interface
    )
}

/// Takes the hook's program off the interface, whether it is still there or not.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn detach(pins: &Pins, place: &Place) -> Result<()> {
    link::remove(&link::pin(pins, place))
        .and(clsact::detach(pins, place))
        .with_context(|| format!("cannot detach {} from {}", place.hook.name(), place.interface))
}

/// The places where an earlier run attached something, by their pins; `names` turns an index into a name.
///
/// # Errors
///
/// Where the directory of pins cannot be read.
pub fn attached(pins: &Pins, names: impl Fn(u32) -> Option<String>) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for directory in [pins.links(), pins.filters()] {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries {
            let name = entry?.file_name();
            let Some(place) = name.to_str().and_then(|name| parse_pin_name(name, &names)) else {
                warn!(pin = ?name, "not a name that this program gives: left alone");
                continue;
            };
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    Ok(places)
}

fn parse_pin_name(name: &str, names: impl Fn(u32) -> Option<String>) -> Option<Place> {
    let hook = *Hook::ALL.iter().find(|hook| name.starts_with(hook.name()))?;
    let rest = name.strip_prefix(hook.name())?.strip_prefix('-')?;
    let ifindex = rest.split('-').next()?.parse().ok()?;
    Some(Place::new(&names(ifindex).unwrap_or_default(), ifindex, hook))
}

/// The id of the program at the place, if the kernel has it there and its pin is in place: the kernel is asked what is at
/// the interface.
///
/// # Errors
///
/// Where the kernel cannot be asked, or the pin is none of this program's.
pub fn program_id(place: &Place, mode: Mode, pins: &Pins) -> Result<Option<u32>> {
    match (place.hook, mode) {
        (Hook::FromContainer | Hook::FromUplink, Mode::Clsact) => clsact::program_id(pins, place),
        _ => link::program_at(&link::pin(pins, place), place.ifindex),
    }
}
