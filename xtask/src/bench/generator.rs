//! The packet generator: an XDP program that the kernel runs for frames of its own, on the calling thread.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, DevMap, MapData};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use tests::harness::Namespace;
use tests::harness::packet::{Frame, Ipv4, Udp};

use super::layout::{self, FRAME, Traffic};
use super::machine;

/// Most flows: the high byte of a port has room for so many times 65,536.
pub(super) const MAX_FLOWS: u32 = 1 << 21;

// Names in the object.
const PROGRAM: &str = "generate";
const MAP_TRAFFIC: &str = "TRAFFIC";
const MAP_OUT: &str = "OUT";

/// Frames that the kernel makes between two runs of the network stack.
const BATCH: u32 = 64;

/// The port on both sides, of which the flows change one.
const PORT: u16 = 0x4e00;

/// Which side of the frames differs from flow to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vary {
    /// Source address and port: many senders to one container.
    Source,
    /// Destination address and port: one container to many.
    Destination,
}

/// Frames of 64 bytes with UDP from one node to another; of the side that varies, the last byte of the
/// address counts from 0.
pub(super) struct Flows {
    /// Source and destination MAC.
    pub(super) macs: [[u8; 6]; 2],
    /// Source and destination address.
    pub(super) addresses: [[u8; 4]; 2],
    /// Which side varies.
    pub(super) vary: Vary,
    /// How many there are: a power of two, at most [`MAX_FLOWS`].
    pub(super) flows: u32,
    /// The first of many /26 and their number, where each flow goes to one of them in place of the destination.
    pub(super) spread: Option<(Ipv4Addr, u32)>,
}

/// What a run of the generator came to.
pub(super) struct Run {
    /// Frames made.
    pub(super) sent: u32,
    /// Time for making, carrying and sinking them, all on one CPU. What the kernel takes to begin and to end such a run,
    /// some 25 ms of grace periods, is not in it.
    pub(super) elapsed: Duration,
}

/// A loaded generator that sends by one interface.
pub(super) struct Generator<'a> {
    object: Ebpf,
    traffic: Mutex<Array<MapData, Words>>,
    place: &'a Namespace,
    cpu: usize,
}

impl<'a> Generator<'a> {
    /// Loads it to send by that interface of the namespace; the other end receives the frames.
    pub(super) fn new(object: &Path, place: &'a Namespace, interface: &str, cpu: usize) -> Result<Self> {
        let ifindex = place.ifindex(interface)?;
        // The map looks the device up in the namespace of who writes it.
        let mut object = place.enter(|| load(object, ifindex))?;
        let traffic = object.take_map(MAP_TRAFFIC).context("no map of traffic in the object")?;
        Ok(Self { object, traffic: Mutex::new(traffic.try_into()?), place, cpu })
    }

    /// Makes these flows from now on.
    pub(super) fn aim(&mut self, flows: &Flows) -> Result<()> {
        self.pace(flows, 0)
    }

    /// Makes these flows from now on, a frame every `interval` nanoseconds; of the frames that a run is told to make,
    /// those that are not due are not sent.
    pub(super) fn pace(&mut self, flows: &Flows, interval: u64) -> Result<()> {
        self.set_traffic(Traffic { interval, ..flows.traffic()? })
    }

    /// Frames that were sent since it was told its flows.
    pub(super) fn sent(&self) -> Result<u64> {
        Ok(self.traffic()?.made)
    }

    fn lock(&self) -> MutexGuard<'_, Array<MapData, Words>> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traffic(&self) -> Result<Traffic> {
        Ok(self.lock().get(&0, 0)?.0)
    }

    fn set_traffic(&self, traffic: Traffic) -> Result<()> {
        self.lock().set(0, Words(traffic), 0).context("cannot tell the generator its flows")
    }

    /// Makes that many frames.
    pub(super) fn run(&self, frames: u32) -> Result<Run> {
        let program: &Xdp = self.object.program(PROGRAM).context("no generator in the object")?.try_into()?;
        let cpu = self.cpu;
        self.set_traffic(Traffic { began: 0, ..self.traffic()? })?;
        let whole = self.place.enter(|| {
            machine::take_cpu(cpu)?;
            let mut options = TestRunOptions::new();
            options.data_in = Some(&[0; FRAME]);
            options.repeat = frames;
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let begin = Instant::now();
            program.test_run(options).context("the generator did not run")?;
            Ok(begin.elapsed())
        })?;
        let traffic = self.traffic()?;
        let made = traffic.reached_with.saturating_sub(traffic.began_with);
        // Of a few frames, and of those that are sent at their time, only the whole is known.
        let elapsed = if made < 2 * layout::MARK || traffic.interval != 0 {
            whole
        } else {
            Duration::from_nanos(traffic.reached - traffic.began).mul_f64(f64::from(frames) / made as f64)
        };
        Ok(Run { sent: frames, elapsed })
    }
}

fn load(object: &Path, ifindex: u32) -> Result<Ebpf> {
    let mut object = Ebpf::load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
    let map = object.map_mut(MAP_OUT).context("no map of devices in the object")?;
    DevMap::try_from(map)?.set(0, ifindex, None, 0).context("cannot aim the generator at the interface")?;
    let program: &mut Xdp = object.program_mut(PROGRAM).context("no generator in the object")?.try_into()?;
    program.load().context("the kernel refused the generator")?;
    Ok(object)
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Words(Traffic);

// SAFETY: transparent over integers without padding between or after them.
unsafe impl aya::Pod for Words {}

const _: () = assert!(size_of::<Traffic>() == FRAME + 80);

impl Flows {
    fn traffic(&self) -> Result<Traffic> {
        ensure!(self.flows.is_power_of_two() && self.flows <= MAX_FLOWS, "{} flows", self.flows);
        let [source, mut destination] = self.addresses;
        let (first, prefixes) = self.spread.map_or((0, 0), |(first, prefixes)| (first.into(), prefixes));
        if self.spread.is_some() {
            destination = [0; 4];
        }
        let headers = 14 + 20 + 8;
        let mut udp = Udp::new(PORT, PORT, [0; FRAME - 14 - 20 - 8]);
        udp.checksum = Some(0);
        let bytes = Frame::new(self.macs[0], self.macs[1], Ipv4::new(source, destination, udp)).bytes();
        ensure!(bytes.len() == FRAME, "a frame of {} bytes has headers of {headers}", bytes.len());
        let mut frame = [0; FRAME / 8];
        for (word, bytes) in frame.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let address_byte = match self.vary {
            Vary::Source => layout::SOURCE_BYTE,
            Vary::Destination => layout::DESTINATION_BYTE,
        };
        let port_high = u32::from(PORT >> 8);
        let flow_mask = self.flows - 1;
        Ok(Traffic {
            frame,
            address_byte,
            flow_mask,
            port_high,
            first,
            prefixes,
            reserved: 0,
            made: 0,
            interval: 0,
            due: 0,
            began: 0,
            began_with: 0,
            reached: 0,
            reached_with: 0,
        })
    }
}
