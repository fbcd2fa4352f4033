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
        GLOBAL_TRACE, MAP_ENDPOINTS, MAP_NAT_FLOWS, MAP_NAT_IN, MAP_NAT_OUT, MAP_NAT_PROGRAMS, MAP_NAT_TAKEN,
        MAP_XDP_PROGRAMS, PINNED_MAPS, PROGRAM_FOR_FIRST, PROGRAM_FROM_CONTAINER, PROGRAM_FROM_UPLINK,
        PROGRAM_NAT_OPEN, PROGRAM_NAT_SWEEP, PROGRAM_REJECT, PROGRAM_SHOW, PROGRAM_SLOTS, PROGRAM_TO_OPEN,
        PROGRAM_TO_REJECT, PROGRAM_TO_SHOW, PROGRAM_TRANSLATE_FIRST, PROGRAM_TRANSLATE_FROM_CONTAINER,
        PROGRAM_TRANSLATE_FROM_UPLINK, PROGRAM_WAITING, PROGRAM_XDP_FROM_UPLINK, PROGRAM_XDP_SHOW,
        RENEWED_MAPS, program_to_translate,
    },
    nat::settings::RECORDS_PER_WORD,
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
    /// What answers packets with ICMP errors.
    Reject,
    /// What shows packets to monitors.
    Show,
    /// The same at XDP.
    ShowAtXdp,
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
        Self::Reject,
        Self::Show,
        Self::ShowAtXdp,
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
            Self::Reject => PROGRAM_REJECT,
            Self::Show => PROGRAM_SHOW,
            Self::ShowAtXdp => PROGRAM_XDP_SHOW,
            Self::Sweep => PROGRAM_NAT_SWEEP,
        }
    }
}

/// Sizes of the maps that the configuration decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of the endpoint table.
    pub endpoints: u32,
    /// Buckets of each index of the flow table, at least one.
    pub buckets: u32,
    /// Words that tell which of its records are taken, at least one.
    pub words: u32,
}

impl Sizes {
    /// Every map whose size is decided here, with it.
    pub fn maps(&self) -> [(&'static str, u32); 5] {
        [
            (MAP_ENDPOINTS, self.endpoints),
            (MAP_NAT_OUT, self.buckets),
            (MAP_NAT_IN, self.buckets),
            (MAP_NAT_FLOWS, self.words * RECORDS_PER_WORD),
            (MAP_NAT_TAKEN, self.words),
        ]
    }
}

/// What tells a map that this program makes from others: its type (`enum bpf_map_type`), and the bytes of its keys and
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The type.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
}

/// The shapes of the maps that outlive a daemon, by name.
///
/// # Errors
///
/// Where the object was not built from this source tree.
pub fn shapes() -> Result<Vec<(&'static str, Shape)>> {
    let object = aya_obj::Object::parse(OBJECT).context("the BPF object cannot be read")?;
    let shape = |name: &&'static str| {
        let map = object.maps.get(*name).with_context(|| format!("no map {name} in the BPF object"))?;
        Ok((*name, Shape { kind: map.map_type(), key: map.key_size(), value: map.value_size() }))
    };
    PINNED_MAPS.iter().map(shape).collect()
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
        if purpose == Purpose::Attach || ![MAP_NAT_PROGRAMS, MAP_XDP_PROGRAMS].contains(name) {
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

/// Puts the programs that others go on in where those look for them: first what is gone on in last.
fn link_programs(object: &mut Ebpf) -> Result<()> {
    let at_tc = [
        (PROGRAM_TO_SHOW, Program::Show),
        (PROGRAM_TO_REJECT, Program::Reject),
        (PROGRAM_FOR_FIRST, Program::First),
        (PROGRAM_TO_OPEN, Program::Open),
        (program_to_translate(Hook::FromContainer), Program::TranslateFromContainer),
        (program_to_translate(Hook::FromUplink), Program::TranslateFromUplink),
    ];
    link(object, MAP_NAT_PROGRAMS, &at_tc)?;
    link(object, MAP_XDP_PROGRAMS, &[(PROGRAM_TO_SHOW, Program::ShowAtXdp)])
}

fn link(object: &mut Ebpf, map: &str, places: &[(u32, Program)]) -> Result<()> {
    for &(place, linked) in places {
        let fd = program(object, linked)?.fd()?.try_clone()?;
        programs(object, map)?.set(place, &fd, 0).context("cannot link the programs")?;
    }
    // Of an older version, and nobody goes on in them any more.
    let mut programs = programs(object, map)?;
    for place in (0..PROGRAM_SLOTS).filter(|place| places.iter().all(|(used, _)| used != place)) {
        match programs.clear_index(&place) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {}
            cleared => cleared.context("cannot unlink a program")?,
        }
    }
    Ok(())
}

fn programs<'a>(object: &'a mut Ebpf, map: &str) -> Result<ProgramArray<&'a mut MapData>> {
    let programs = object.map_mut(map).with_context(|| format!("no map {map} in the BPF object"))?;
    Ok(programs.try_into()?)
}

/// A program of the loaded object that runs at tc.
///
/// # Errors
///
/// Where the object has no such program: it was not built from this source tree.
pub fn classifier(object: &mut Ebpf, program: Program) -> Result<&mut SchedClassifier> {
    Ok(self::program(object, program)?.try_into()?)
}

/// The walk of the loaded object that runs at XDP.
///
/// # Errors
///
/// As [`classifier`].
pub fn xdp(object: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(program(object, Program::Walk(Hook::XdpFromUplink))?.try_into()?)
}

/// A program of the loaded object.
///
/// # Errors
///
/// As [`classifier`].
pub fn program(object: &mut Ebpf, program: Program) -> Result<&mut programs::Program> {
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
        let mut load = || match self::program(object, program)? {
            programs::Program::Xdp(program) => Ok(program.load()),
            other => Ok::<_, anyhow::Error>(<&mut SchedClassifier>::try_from(other)?.load()),
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
