//! The BPF object: built with this crate, embedded in it, loaded from it.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapError, ProgramArray},
    programs::{self, ProgramError, SchedClassifier, Xdp},
};
use dataplane_common::{
    flow::settings::RECORDS_PER_WORD,
    names::{
        GLOBAL_RESPECT, GLOBAL_TRACE, MAP_ENDPOINTS, MAP_FLOW_COUNTS, MAP_FLOW_INDEX, MAP_FLOW_PROGRAMS,
        MAP_FLOW_RECORDS, MAP_FLOW_TAKEN, MAP_XDP_PROGRAMS, PINNED_MAPS, PROGRAM_DECIDE_FROM_CONTAINER,
        PROGRAM_DECIDE_FROM_UPLINK, PROGRAM_FLOW_FIRST, PROGRAM_FLOW_INSERT, PROGRAM_FLOW_OFFER,
        PROGRAM_FLOW_SEARCH, PROGRAM_FLOW_SWEEP, PROGRAM_FOR_FIRST, PROGRAM_FOR_TRACKED,
        PROGRAM_FROM_CONTAINER, PROGRAM_FROM_UPLINK, PROGRAM_REJECT, PROGRAM_SHOW, PROGRAM_SLOTS,
        PROGRAM_TO_INSERT, PROGRAM_TO_REJECT, PROGRAM_TO_SEARCH, PROGRAM_TO_SHOW,
        PROGRAM_TRACKED_FROM_UPLINK, PROGRAM_WAITING, PROGRAM_XDP_FROM_UPLINK, PROGRAM_XDP_SHOW,
        RENEWED_MAPS, program_to_decide,
    },
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
    /// What decides about containers' packets of no known flow.
    DecideFromContainer,
    /// The same for packets by an uplink.
    DecideFromUplink,
    /// What goes on with packets by an uplink whose answers must be known as answers.
    Tracked,
    /// What searches ports for flows.
    Search,
    /// What inserts flows.
    Insert,
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
    /// What takes over flows that the kernel decided; it is run and never attached.
    Offer,
}

impl Program {
    /// Every program.
    pub const ALL: &[Self] = &[
        Self::Walk(Hook::FromContainer),
        Self::Walk(Hook::FromUplink),
        Self::Walk(Hook::XdpFromUplink),
        Self::Waiting,
        Self::DecideFromContainer,
        Self::DecideFromUplink,
        Self::Tracked,
        Self::Search,
        Self::Insert,
        Self::First,
        Self::Reject,
        Self::Show,
        Self::ShowAtXdp,
        Self::Sweep,
        Self::Offer,
    ];

    /// Its name in the object and in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Walk(Hook::FromContainer) => PROGRAM_FROM_CONTAINER,
            Self::Walk(Hook::FromUplink) => PROGRAM_FROM_UPLINK,
            Self::Walk(Hook::XdpFromUplink) => PROGRAM_XDP_FROM_UPLINK,
            Self::Waiting => PROGRAM_WAITING,
            Self::DecideFromContainer => PROGRAM_DECIDE_FROM_CONTAINER,
            Self::DecideFromUplink => PROGRAM_DECIDE_FROM_UPLINK,
            Self::Tracked => PROGRAM_TRACKED_FROM_UPLINK,
            Self::Search => PROGRAM_FLOW_SEARCH,
            Self::Insert => PROGRAM_FLOW_INSERT,
            Self::First => PROGRAM_FLOW_FIRST,
            Self::Reject => PROGRAM_REJECT,
            Self::Show => PROGRAM_SHOW,
            Self::ShowAtXdp => PROGRAM_XDP_SHOW,
            Self::Sweep => PROGRAM_FLOW_SWEEP,
            Self::Offer => PROGRAM_FLOW_OFFER,
        }
    }
}

/// What the configuration decides: sizes of maps, and whether the kernel decides about connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of the endpoint table.
    pub endpoints: u32,
    /// Buckets of the flow table's index, at least one.
    pub buckets: u32,
    /// Words that tell which of its records are taken, at least one.
    pub words: u32,
    /// Whether the kernel decides (`netfilter = "respect"`).
    pub respect: bool,
}

impl Sizes {
    /// Every map whose size is decided here, with it.
    pub fn maps(&self) -> [(&'static str, u32); 5] {
        [
            (MAP_ENDPOINTS, self.endpoints),
            (MAP_FLOW_INDEX, self.buckets),
            (MAP_FLOW_RECORDS, self.words * RECORDS_PER_WORD),
            (MAP_FLOW_COUNTS, self.words * RECORDS_PER_WORD),
            (MAP_FLOW_TAKEN, self.words),
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
    let respect = u8::from(sizes.respect);
    loader.override_global(GLOBAL_RESPECT, &respect, true);
    for (name, size) in sizes.maps() {
        loader.map_max_entries(name, size);
    }
    for name in PINNED_MAPS.iter().chain(RENEWED_MAPS) {
        // A traced packet goes on in the traced copies, not in those that the attached ones go on in.
        if purpose == Purpose::Attach || ![MAP_FLOW_PROGRAMS, MAP_XDP_PROGRAMS].contains(name) {
            loader.map_pin_path(name, maps.join(name));
        }
    }
    let mut object = loader.load(OBJECT).context(
        "cannot create the BPF maps (needs CAP_BPF and CAP_NET_ADMIN, or root; kernel 6.1 or newer)",
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
        (PROGRAM_TO_INSERT, Program::Insert),
        (PROGRAM_TO_SEARCH, Program::Search),
        (program_to_decide(Hook::FromContainer), Program::DecideFromContainer),
        (program_to_decide(Hook::FromUplink), Program::DecideFromUplink),
        (PROGRAM_FOR_TRACKED, Program::Tracked),
    ];
    link(object, MAP_FLOW_PROGRAMS, &at_tc)?;
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
    for (trace, respect) in [(0u8, 0u8), (1, 0), (0, 1), (1, 1)] {
        let mut loader = EbpfLoader::new();
        loader.override_global(GLOBAL_TRACE, &trace, true);
        loader.override_global(GLOBAL_RESPECT, &respect, true);
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
