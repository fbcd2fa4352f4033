//! A monitor's side of the pinned maps: its slot, its ring buffer, and what it was not shown.
//!
//! No daemon takes part. A slot is on lease ([`LEASE`]): one that nobody renews is free, and the programs then do no more
//! than where nobody ever listened.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, RawFd},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{ArrayOfMaps, Map, MapData, MapInfo, PerCpuArray, RingBuf};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use dataplane_common::{
    atomic::Word32,
    monitor::{Budgets, Event, LEASE, MONITOR_SLOTS, Monitor, Monitors, PERIOD_SHIFT, RING_BYTES},
    names::{MAP_MONITOR_BUDGETS, MAP_MONITOR_RINGS, MAP_MONITORS},
    net::Ipv4Be,
    reason::Reason,
};

use super::{
    mapping::Mapping,
    pinned::{Pinned, Value},
};

/// What a monitor wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The reasons, as [`Monitor::reasons`] has them.
    pub reasons: u64,
    /// Index of the interface that packets came in by; any if there is none.
    pub ifindex: Option<u32>,
    /// One of the packet's addresses; any packet if there is none.
    pub address: Option<Ipv4Addr>,
    /// Events for each reason, on each CPU, in each period of about a second.
    pub limit: u32,
}

/// A slot that is held, and given back when this is dropped.
pub struct Listener {
    path: PathBuf,
    id: u32,
    monitors: Mapping<Monitors>,
    slot: u32,
    ring: RingBuf<MapData>,
    ring_id: u32,
    budgets: PerCpuArray<MapData, Value<Budgets>>,
    /// What had not been shown to whoever had the slot before, or was told of already, by reason.
    told: Vec<u64>,
}

impl Listener {
    /// Takes a free slot of the pinned maps, and makes the programs show what is wanted.
    ///
    /// # Errors
    ///
    /// Where no data path of this version is there, or every slot is taken.
    pub fn new(pinned: &Pinned, wanted: &Wanted) -> Result<Self> {
        let path = pinned.directory().join(MAP_MONITORS);
        // Before the map is opened: one that takes its place in between is noticed with the first renewal.
        let id = pinned.data(MAP_MONITORS)?.info()?.id();
        let monitors = pinned.mapping(MAP_MONITORS, 1)?;
        let mut rings: ArrayOfMaps<MapData, RingBuf<MapData>> = pinned.open(MAP_MONITOR_RINGS)?;
        let budgets = pinned.open(MAP_MONITOR_BUDGETS)?;
        let (ring, ring_id) = new_ring()?;

        let slot = claim(all(&monitors)?)?;
        let mut listener = Self { path, id, monitors, slot, ring, ring_id, budgets, told: Vec::new() };
        let monitor = listener.monitor()?;
        // Whoever had the slot is gone: until the ring is replaced, events go into one that nobody reads.
        monitor.reasons.store(0);
        monitor.owner.store(ring_id);
        monitor.ifindex.store(wanted.ifindex.unwrap_or(0));
        monitor.address.store(wanted.address.map_or(0, |address| Ipv4Be::from(address).to_wire()));
        monitor.limit.store(wanted.limit);
        rings.set(slot, &listener.ring, 0).context("cannot hand over the ring buffer")?;
        listener.told = listener.suppressed_so_far()?;
        listener.monitor()?.reasons.store(wanted.reasons);
        listener.renew()?;
        Ok(listener)
    }

    /// Renews the lease; at least once in each period.
    ///
    /// # Errors
    ///
    /// Where the maps were taken away meanwhile (the programs that are attached now have others, or there are none), or
    /// the slot was, because the lease had ended.
    pub fn renew(&self) -> Result<()> {
        let id = MapInfo::from_pin(&self.path).map(|map| map.id()).ok();
        ensure!(
            id == Some(self.id),
            "the data path was detached or its tables were rebuilt: nothing more is shown by this monitor, start \
             another"
        );
        let (monitors, monitor) = (all(&self.monitors)?, self.monitor()?);
        ensure!(
            monitor.owner.load() == self.ring_id,
            "this monitor was stopped for so long that another one took its place: start it again"
        );
        let until = now() + LEASE;
        monitor.until.store(until);
        raise(&monitors.until, until);
        Ok(())
    }

    /// Packets that were not shown since the last call, by reason, without zeros.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn suppressed(&mut self) -> Result<Vec<(Reason, u64)>> {
        let now = self.suppressed_so_far()?;
        let before = std::mem::replace(&mut self.told, now);
        let grown = Reason::ALL.iter().zip(self.told.iter().zip(before));
        Ok(grown
            .map(|(reason, (now, before))| (*reason, now - before))
            .filter(|(_, count)| *count != 0)
            .collect())
    }

    fn suppressed_so_far(&self) -> Result<Vec<u64>> {
        let cpus = self.budgets.get(&self.slot, 0).context("cannot read what was not shown")?;
        let sum =
            |reason: &Reason| cpus.iter().map(|Value(row)| row.by_reason[*reason as usize].suppressed).sum();
        Ok(Reason::ALL.iter().map(sum).collect())
    }

    fn monitor(&self) -> Result<&Monitor> {
        all(&self.monitors)?.slots.get(self.slot as usize).context("no such slot")
    }
}

/// The events that are there; more may come after the last.
impl Iterator for Listener {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        bytemuck::try_pod_read_unaligned(item.get(..size_of::<Event>())?).ok()
    }
}

impl AsRawFd for Listener {
    /// Readable when there are events.
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let (Ok(monitors), Ok(monitor)) = (all(&self.monitors), self.monitor()) else { return };
        if monitor.owner.load() != self.ring_id {
            return;
        }
        monitor.until.store(0);
        // The last one switches off. Who begins meanwhile has changed the word, or changes it afterwards.
        loop {
            let until = monitors.until.load();
            let latest = monitors.slots.iter().map(|slot| slot.until.load()).max().unwrap_or(0);
            if monitors.until.replace(until, latest.min(until)) {
                break;
            }
        }
    }
}

fn all(mapping: &Mapping<Monitors>) -> Result<&Monitors> {
    mapping.values().first().context("the map of monitors is empty")
}

/// Takes the first slot whose lease is over.
fn claim(monitors: &Monitors) -> Result<u32> {
    let now = now();
    for (monitor, slot) in monitors.slots.iter().zip(0..) {
        let until = monitor.until.load();
        if until < now && monitor.until.replace(until, now + LEASE) {
            return Ok(slot);
        }
    }
    bail!("{MONITOR_SLOTS} monitors are listening already, which is as many as can: end one of them")
}

/// Makes the word at least that.
fn raise(word: &Word32, least: u32) {
    loop {
        let value = word.load();
        if value >= least || word.replace(value, least) {
            return;
        }
    }
}

/// A ring buffer, with the kernel's id of it.
fn new_ring() -> Result<(RingBuf<MapData>, u32)> {
    let ring = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, RING_BYTES, 0);
    let ring = MapData::create(ring, "monitor_ring", None).context("cannot make a ring buffer")?;
    let id = ring.info()?.id();
    Ok((Map::from_map_data(ring)?.try_into()?, id))
}

/// Time since the start of the machine, by the clock of `bpf_ktime_get_ns`.
pub fn since_start() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The period that it is.
fn now() -> u32 {
    (since_start().as_nanos() as u64 >> PERIOD_SHIFT) as u32
}
