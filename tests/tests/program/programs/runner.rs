//! Running the loaded programs.

#[path = "frames.rs"]
mod frames;
#[path = "outcome.rs"]
mod outcome;

use std::{
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, Map, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{TcAttachType, tc},
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use dataplane::{
    datapath::{Claim, Datapath},
    kernel::{
        flow_ports::FlowPorts,
        monitor::{Listener, Wanted},
        nat::{Limits, Nat},
        object::{self, Program, Purpose, Sizes},
        offers::Offers,
        pinned::Pinned,
        pins::Pins,
        table::{Mapped, Memory as _},
        uplinks::Uplinks,
    },
    wanted::Destination,
};
use dataplane_common::{
    flow::{offer::Offer, record::ticks, rule::Rule, state::State},
    names::{
        MAP_FLOW_PROGRAMS, MAP_REJECTION, MAP_ROUTE_ROOT, MAP_ROUTE_SLABS, MAP_TRACE_LOG, program_to_decide,
    },
    ports::PORT_WORDS,
    reason::Reason,
    reject::Rejection,
    route::Entry,
    stats::{Counter, Hook},
    trace::{Step, StepCode, TRACE_STEPS, TraceLog},
};
use ipnet::Ipv4Net;

use outcome::difference;
pub use outcome::{Counted, Counts, Ran, Traced};

use super::{
    Context, Packet, SIZES, context,
    flows::{Contents, FlowMaps},
    root_index,
};

const MAX_ROUTES: u32 = 32_768;

/// With its head- and tailroom, a frame must fit a page of 4 KiB.
pub const LONGEST_FRAME: usize = 3600;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Log(TraceLog);

// SAFETY: transparent over a type that is plain old data already.
unsafe impl aya::Pod for Log {}

/// The programs and their tables, for a thread that is in their namespace.
pub struct Runner {
    maps: PathBuf,
    counting: Ebpf,
    recording: Ebpf,
    datapath: Datapath,
    nat: Nat,
    flows: FlowMaps,
    uplinks: Uplinks,
    offers: Offers,
    /// The uplinks that are served at XDP.
    at_xdp: Vec<u32>,
    rejections: PerCpuArray<MapData, [u8; size_of::<Rejection>()]>,
    log: Array<MapData, Log>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("maps", &self.maps).finish_non_exhaustive()
    }
}

impl Runner {
    /// Loads both copies, with the maps pinned in `maps`.
    pub(super) fn load(maps: &Path, sizes: Sizes) -> Result<Self> {
        let mut counting = object::load(maps, sizes, Purpose::Attach)?;
        let mut recording = object::load(maps, sizes, Purpose::Trace)?;
        let datapath = Datapath::open(&mut counting, &slabs(maps), MAX_ROUTES)?;
        let (nat, flows) = (Nat::open(&mut counting)?, FlowMaps::open(maps)?);
        FlowPorts::open(&mut counting)?.apply(&[u64::MAX; PORT_WORDS as usize]);
        let uplinks = Uplinks::open(&mut counting)?;
        let offers = Offers::open(&mut counting, maps)?;
        let log = recording.take_map(MAP_TRACE_LOG).context("no trace log in the BPF object")?;
        let log = Array::try_from(log)?;
        let rejections = Map::from_map_data(MapData::from_pin(maps.join(MAP_REJECTION))?)?;
        let rejections = PerCpuArray::try_from(rejections)?;
        Ok(Self {
            maps: maps.to_owned(),
            counting,
            recording,
            datapath,
            nat,
            flows,
            uplinks,
            offers,
            at_xdp: Vec::new(),
            rejections,
            log,
            buffer: Vec::new(),
        })
    }

    /// The tables, as the daemon fills them.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Makes the tables say that for the prefix; `None` takes the route away.
    ///
    /// # Errors
    /// If a table is full.
    pub fn set(&mut self, prefix: Ipv4Net, destination: impl Into<Option<Destination>>) -> Result<()> {
        self.datapath.set(prefix, destination.into(), Claim::Own)
    }

    /// Opens the tables once more, as a daemon does that follows another.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn reopen(&self) -> Result<Datapath> {
        Datapath::open(&mut object::load(&self.maps, SIZES, Purpose::Attach)?, &slabs(&self.maps), MAX_ROUTES)
    }

    /// Writes the word of a /16 into the root of the route table, past all that keeps the table sound.
    ///
    /// # Errors
    /// If the pinned maps cannot be opened.
    pub fn poke(&mut self, network: Ipv4Addr, word: Entry) -> Result<()> {
        let map =
            |name: &str| -> Result<Map> { Ok(Map::from_map_data(MapData::from_pin(self.maps.join(name))?)?) };
        let memory = Mapped::new(map(MAP_ROUTE_ROOT)?, map(MAP_ROUTE_SLABS)?)?;
        memory.root()[root_index(network)].store(word.to_bits(), Ordering::Release);
        Ok(())
    }

    /// Translates by these rules, as the daemon sets them, with so many flows at most.
    ///
    /// # Errors
    /// If the maps cannot be written.
    pub fn translate(&mut self, rules: &[Rule], max_flows: u32, max_flows_per_source: u32) -> Result<()> {
        let timeouts = State::ALL.iter().map(|state| (*state, ticks(state.default_timeout())));
        let buckets = SIZES.buckets;
        let timeouts = timeouts.collect();
        self.nat.configure(&Limits { buckets, max_flows, max_flows_per_source, timeouts })?;
        let Self { nat, datapath, .. } = self;
        nat.set_rules(rules, Vec::new(), || datapath.synchronize())?;
        Ok(())
    }

    /// Listens to what is dropped and passed, as `dataplane monitor` does.
    ///
    /// # Errors
    /// If the pinned maps cannot be opened, or all places are taken.
    pub fn listen(&self, wanted: &Wanted) -> Result<Listener> {
        let bpf_dir = self.maps.ancestors().find(|above| Pins::new(above).maps() == self.maps);
        Listener::new(&Pinned::find(Some(bpf_dir.context("no pins")?), Path::new("/"))?, wanted)
    }

    /// Sweeps the whole flow table once.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn sweep(&mut self) -> Result<()> {
        self.nat.sweep(&mut self.counting, 1)
    }

    /// Hands connections over that the kernel decided.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hand_over(&mut self, offers: &mut [Offer]) -> Result<()> {
        self.offers.hand_over(offers)
    }

    /// The flow table, with the shares of those sources.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn flows(&self, sources: &[Ipv4Addr]) -> Result<Contents> {
        self.flows.read(self.nat.settings().seed, sources)
    }

    /// Checks that the flow table is sound: [`Contents::check`].
    ///
    /// # Errors
    /// If it is not.
    pub fn check_flows(&self) -> Result<()> {
        self.flows(&[])?.check(self.nat.settings(), self.flows.shares()?)
    }

    /// Takes every lock of the flow table as if another CPU had it, or gives it back.
    ///
    /// # Errors
    /// If the maps cannot be written.
    pub fn lock_flows(&mut self, held: bool) -> Result<()> {
        self.flows.lock(held)
    }

    /// Takes the programs away that packets go on in.
    ///
    /// # Errors
    /// If the maps cannot be written.
    pub fn unlink_programs(&mut self) -> Result<()> {
        for object in [&mut self.counting, &mut self.recording] {
            let map = object.map_mut(MAP_FLOW_PROGRAMS).context("no array of programs in the BPF object")?;
            let mut programs: ProgramArray<_> = map.try_into()?;
            for place in Hook::TC {
                programs.clear_index(&program_to_decide(*place))?;
            }
        }
        Ok(())
    }

    /// Attaches the counting copy of a hook's program to the ingress of an interface.
    pub(super) fn attach(&mut self, hook: Hook, interface: &str) -> Result<()> {
        // Needed below Linux 6.6, which has TCX; the interface is the test's own, so that none is there.
        tc::qdisc_add_clsact(interface).with_context(|| format!("no clsact qdisc at {interface}"))?;
        object::classifier(&mut self.counting, Program::Walk(hook))?
            .attach(interface, TcAttachType::Ingress)
            .with_context(|| format!("cannot attach to {interface}"))?;
        Ok(())
    }

    /// Instructions that the verifier looked at for a program, in the counting copy and in the recording one;
    /// none before Linux 5.16.
    ///
    /// # Errors
    /// If the kernel does not tell of its programs.
    pub fn verified(&mut self, program: Program) -> Result<[Option<u32>; 2]> {
        let verified = |object| -> Result<Option<u32>> {
            let info = object::program(object, program)?.info()?;
            Ok(info.verified_instruction_count())
        };
        Ok([verified(&mut self.counting)?, verified(&mut self.recording)?])
    }

    /// Runs the counting copy.
    ///
    /// # Errors
    /// If the kernel does not take the packet: see [`Packet::can_be_run`].
    pub fn run(&mut self, packet: &Packet) -> Result<Ran> {
        let program = Program::Walk(packet.hook);
        run(&mut self.counting, &mut self.buffer, program, &packet.frame, packet.context())
    }

    /// Runs any program of the counting copy, with any context.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_program(&mut self, program: Program, frame: &[u8], context: Context) -> Result<Ran> {
        run(&mut self.counting, &mut self.buffer, program, frame, context)
    }

    /// Runs the counting copy, and says what it counted.
    ///
    /// # Errors
    /// As [`Self::run`], or if the counters cannot be read.
    pub fn run_counted(&mut self, packet: &Packet) -> Result<Counted> {
        self.allow_errors()?;
        let before = self.datapath.counters()?;
        let ran = self.run(packet)?;
        Ok(Counted { ran, moved: difference(&before, &self.datapath.counters()?) })
    }

    /// Has the programs send ICMP errors as if none had been sent for long.
    fn allow_errors(&mut self) -> Result<()> {
        let values = PerCpuValues::try_from(vec![
            [0; size_of::<Rejection>()];
            nr_cpus().map_err(|(_, error)| error)?
        ])?;
        Ok(self.rejections.set(0, values, 0)?)
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        Ok(self
            .datapath
            .counters()?
            .into_iter()
            .filter(|(.., counter)| *counter != Counter::default())
            .collect())
    }

    /// Runs the recording copy.
    ///
    /// # Errors
    /// As [`Self::run`], or if it leaves no verdict.
    pub fn trace(&mut self, packet: &Packet) -> Result<Traced> {
        let program = Program::Walk(packet.hook);
        self.record(|runner| {
            run(&mut runner.recording, &mut runner.buffer, program, &packet.frame, packet.context())
        })
    }

    fn record(&mut self, work: impl FnOnce(&mut Self) -> Result<Ran>) -> Result<Traced> {
        self.log.set(0, Log(TraceLog::zeroed()), 0)?;
        let ran = work(self)?;
        let Log(log) = self.log.get(&0, 0)?;
        let count = log.count as usize;
        ensure!((1..=TRACE_STEPS).contains(&count), "{count} steps were recorded, of at most {TRACE_STEPS}");
        let mut steps = Vec::with_capacity(count);
        for Step { code, words } in &log.steps[..count] {
            steps.push((StepCode::from_number(*code).context("an unknown step")?, *words));
        }
        let Some((StepCode::Verdict, [number, ..])) = steps.pop() else {
            anyhow::bail!("no verdict at the end of {steps:?}");
        };
        let reason = Reason::from_number(number).context("an unknown reason")?;
        Ok(Traced { ran, steps, reason })
    }
}

impl Packet {
    /// Whether every kernel runs a program on it: a frame, at most what a page holds, and with a whole header
    /// if it is an IP packet, which Linux 6.18 insists on and 6.6 does not.
    pub fn can_be_run(&self) -> bool {
        let least = match self.frame.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => 14,
        };
        (least..=LONGEST_FRAME).contains(&self.frame.len())
    }

    fn context(&self) -> Context {
        let gso_size = u32::from(self.gso_size);
        let gso_segs = if gso_size == 0 { 0 } else { (self.frame.len() as u32).div_ceil(gso_size) };
        Context { ifindex: self.ifindex, gso_size, gso_segs, ..Context::default() }
    }
}

fn run(
    object: &mut Ebpf,
    buffer: &mut Vec<u8>,
    program: Program,
    frame: &[u8],
    context: Context,
) -> Result<Ran> {
    // Programs may make a packet longer: then this is too small, and the kernel says so.
    buffer.resize(frame.len() + 64, 0);
    let mut after = [0; context::LENGTH];
    let result = object::classifier(object, program)?
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(buffer),
            ctx_in: Some(&context.bytes()),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        })
        .with_context(|| format!("BPF_PROG_TEST_RUN of {} on {} bytes", program.name(), frame.len()))?;
    Ok(Ran {
        action: result.return_value as i32,
        bytes: buffer[..result.data_size_out as usize].to_vec(),
        context: Context::read(&after),
    })
}

/// Where the slabs of the route table are pinned.
fn slabs(maps: &Path) -> PathBuf {
    maps.with_file_name("slabs")
}
