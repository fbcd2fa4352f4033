//! Where generated packets end: counted there, and gone.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::PerCpuArray;
use aya::programs::{Xdp, XdpMode};
use tests::harness::Namespace;

// Names in the object.
const PROGRAM: &str = "sink";
const MAP_SUNK: &str = "SUNK";

/// A sink: the cheapest that does not favour any of the paths that end in it.
pub(super) enum Sink<'a> {
    /// Drops all UDP that comes into a namespace, in the raw table: before connection tracking, routing and
    /// sockets. For packets that end as socket buffers in any case.
    RawTable(&'a Namespace),
    /// Drops every frame that a link receives, in XDP: the nearest thing to a NIC's transmit ring.
    Xdp(Box<Ebpf>),
    /// Somewhere that counts by itself.
    Counted(Box<dyn Fn() -> Result<u64> + 'a>),
}

impl<'a> Sink<'a> {
    /// Puts it there; it goes with the namespace.
    pub(super) fn in_raw_table(place: &'a Namespace) -> Result<Self> {
        place
            .run(["iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "DROP"])
            .ok()
            .context("the sink in a container is a rule of iptables' raw table")?;
        Ok(Self::RawTable(place))
    }

    /// Attaches it to the interface; it goes with this value.
    pub(super) fn in_xdp(object: &Path, place: &Namespace, interface: &str) -> Result<Self> {
        Ok(Self::Xdp(Box::new(attach(object, PROGRAM, place, interface)?)))
    }

    /// Packets that came until now.
    pub(super) fn count(&self) -> Result<u64> {
        match self {
            Self::RawTable(place) => {
                let list =
                    place.run(["iptables", "-w", "-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n"]).ok()?;
                let rule = list.lines().find(|line| line.contains("DROP"));
                let packets = rule.and_then(|line| line.split_whitespace().next());
                packets
                    .and_then(|count| count.parse().ok())
                    .with_context(|| format!("no count of packets in:\n{list}"))
            }
            Self::Counted(count) => count(),
            Self::Xdp(object) => {
                let map = object.map(MAP_SUNK).context("no map of sunk packets in the object")?;
                let sunk: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
                Ok(sunk.get(&0, 0)?.iter().sum())
            }
        }
    }
}

fn attach(object: &Path, program: &str, place: &Namespace, interface: &str) -> Result<Ebpf> {
    place.enter(|| {
        let mut object =
            Ebpf::load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
        let loaded = object.program_mut(program).with_context(|| format!("no {program} in the object"))?;
        let loaded: &mut Xdp = loaded.try_into()?;
        loaded.load().with_context(|| format!("the kernel refused the program {program}"))?;
        loaded
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("cannot attach {program} to {interface}"))?;
        Ok(object)
    })
}
