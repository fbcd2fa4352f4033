//! The BPF object: built with this crate, embedded in it, loaded from it.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapError, ProgramArray},
    programs::{self, ProgramError, SchedClassifier, Xdp},
};
use dataplane_common::{
    names::{
        GLOBAL_TRACE, MAP_ENDPOINTS, MAP_NAT_FLOWS, MAP_NAT_PROGRAMS, MAP_NAT_REFS, MAP_NAT_TAGS,
        PINNED_MAPS, PROGRAM_FOR_FIRST, PROGRAM_FROM_CONTAINER, PROGRAM_FROM_UPLINK, PROGRAM_NAT_OPEN,
        PROGRAM_NAT_SWEEP, PROGRAM_SLOTS, PROGRAM_TO_OPEN, PROGRAM_TRANSLATE_FIRST,
        PROGRAM_TRANSLATE_FROM_CONTAINER, PROGRAM_TRANSLATE_FROM_UPLINK, PROGRAM_WAITING,
        PROGRAM_XDP_FROM_UPLINK, RENEWED_MAPS, program_to_translate,
    },
    nat::bucket::LANES,
    stats::Hook,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dataplane-ebpf.o"));

/// What a load is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be attached: counts, and records no steps.
    Attach,
    /// To be run by `BPF_PROG_TEST_RUN`: records the steps of each walk, and counts nothing.
    Trace,
}

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Program {
    /// The walk of a hook.
    Walk(Hook),
    /// What holds the place of a walk that is not wanted yet.
    Waiting,
    /// What goes on with containers' packets of no known flow.
    TranslateFromContainer,
    /// The same for packets by an uplink.
    TranslateFromUplink,
    /// What opens flows.
    Open,
    /// What ends the walk of a new flow's first packet.
    First,
    /// What sweeps the flow table; it is run and never attached.
    Sweep,
}

impl Program {
    /// Every program.
    pub const ALL: &[Self] = &[
        Self::Walk(Hook::FromContainer),
        Self::Walk(Hook::FromUplink),
        Self::Walk(Hook::XdpFromUplink),
        Self::Waiting,
        Self::TranslateFromContainer,
        Self::TranslateFromUplink,
        Self::Open,
        Self::First,
        Self::Sweep,
    ];

    /// Its name in the object and in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Walk(Hook::FromContainer) => PROGRAM_FROM_CONTAINER,
            Self::Walk(Hook::FromUplink) => PROGRAM_FROM_UPLINK,
            Self::Walk(Hook::XdpFromUplink) => PROGRAM_XDP_FROM_UPLINK,
            Self::Waiting => PROGRAM_WAITING,
            Self::TranslateFromContainer => PROGRAM_TRANSLATE_FROM_CONTAINER,
            Self::TranslateFromUplink => PROGRAM_TRANSLATE_FROM_UPLINK,
            Self::Open => PROGRAM_NAT_OPEN,
            Self::First => PROGRAM_TRANSLATE_FIRST,
            Self::Sweep => PROGRAM_NAT_SWEEP,
        }
    }
}

/// Sizes of the maps that the configuration decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of the endpoint table.
    pub endpoints: u32,
    /// Buckets of the flow table, at least one.
    pub buckets: u32,
}

impl Sizes {
    /// Every map whose size is decided here, with it.
    pub fn maps(&self) -> [(&'static str, u32); 4] {
        [
            (MAP_ENDPOINTS, self.endpoints),
            (MAP_NAT_TAGS, self.buckets),
            (MAP_NAT_REFS, self.buckets),
            (MAP_NAT_FLOWS, self.buckets * LANES),
        ]
    }
}

/// Creates the maps that are not pinned yet in `maps`, opens those that are, and loads every program.
///
/// # Errors
///
/// Where the kernel refuses a map or a program; a program's error carries the verifier's log.
pub fn load(maps: &Path, sizes: Sizes, purpose: Purpose) -> Result<Ebpf> {
    let trace = u8::from(purpose == Purpose::Trace);
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_TRACE, &trace, true);
    for (name, size) in sizes.maps() {
        loader.map_max_entries(name, size);
    }
    for name in PINNED_MAPS.iter().chain(RENEWED_MAPS) {
        // A traced packet goes on in the traced copies, not in those that the attached ones go on in.
        if purpose == Purpose::Attach || *name != MAP_NAT_PROGRAMS {
            loader.map_pin_path(name, maps.join(name));
        }
    }
    let mut object = loader.load(OBJECT).context(
        "cannot create the BPF maps (needs CAP_BPF and CAP_NET_ADMIN, or root; kernel 6.1 or newer with BTF)",
    )?;
    load_programs(&mut object)?;
    link_programs(&mut object)?;
    Ok(object)
}

/// Puts the programs that others go on in where those look for them.
fn link_programs(object: &mut Ebpf) -> Result<()> {
    let places = [
        (PROGRAM_FOR_FIRST, Program::First),
        (PROGRAM_TO_OPEN, Program::Open),
        (program_to_translate(Hook::FromContainer), Program::TranslateFromContainer),
        (program_to_translate(Hook::FromUplink), Program::TranslateFromUplink),
    ];
    for (place, program) in places {
        let program = classifier(object, program)?.fd()?.try_clone()?;
        programs(object)?.set(place, &program, 0).context("cannot link the programs")?;
    }
    // Older programs that nobody goes on in any more.
    let mut programs = programs(object)?;
    for place in (0..PROGRAM_SLOTS).filter(|place| places.iter().all(|(used, _)| used != place)) {
        match programs.clear_index(&place) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {}
            cleared => cleared.context("cannot unlink a program")?,
        }
    }
    Ok(())
}

fn programs(object: &mut Ebpf) -> Result<ProgramArray<&mut MapData>> {
    let programs = object.map_mut(MAP_NAT_PROGRAMS).context("no array of programs in the BPF object")?;
    Ok(programs.try_into()?)
}

/// A program of the loaded object that runs at tc.
///
/// # Errors
///
/// Where the object has no such program: it was not built from this source tree.
pub fn classifier(object: &mut Ebpf, program: Program) -> Result<&mut SchedClassifier> {
    Ok(find(object, program)?.try_into()?)
}

/// The program of the loaded object that runs at XDP.
///
/// # Errors
///
/// As [`classifier`].
pub fn xdp(object: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(find(object, Program::Walk(Hook::XdpFromUplink))?.try_into()?)
}

fn find(object: &mut Ebpf, program: Program) -> Result<&mut programs::Program> {
    let name = program.name();
    object.program_mut(name).ok_or_else(|| anyhow!("no program {name} in the BPF object"))
}

/// Whether this kernel takes the programs and maps: everything is loaded, for either purpose, and let go again.
///
/// # Errors
///
/// As [`load`].
pub fn check() -> Result<()> {
    for trace in [0u8, 1] {
        let mut loader = EbpfLoader::new();
        loader.override_global(GLOBAL_TRACE, &trace, true);
        let mut object = loader.load(OBJECT).context("cannot create the BPF maps")?;
        load_programs(&mut object)?;
    }
    Ok(())
}

/// How often a program is loaded while signals come in between, as libbpf's `PROG_LOAD_ATTEMPTS`.
const ATTEMPTS: usize = 5;

/// Whether a signal ended the verifier's work (`do_check()` in kernel/bpf/verifier.c).
fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::WouldBlock)
}

fn load_programs(object: &mut Ebpf) -> Result<()> {
    for &program in Program::ALL {
        let mut load = || match program {
            Program::Walk(Hook::XdpFromUplink) => Ok(xdp(object)?.load()),
            program => Ok::<_, anyhow::Error>(classifier(object, program)?.load()),
        };
        let mut loaded = load()?;
        for _ in 1..ATTEMPTS {
            if !loaded.as_ref().is_err_and(is_interrupted) {
                break;
            }
            loaded = load()?;
        }
        loaded.with_context(|| format!("the kernel refused the program {}", program.name()))?;
    }
    Ok(())
}
