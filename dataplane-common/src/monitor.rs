//! How a monitor says what it wants to see, and what the programs then show it.
//!
//! A monitor has a slot: a [`Monitor`] that says what it wants, a ring buffer of its own, and [`Budgets`]. Every slot
//! is on lease: the programs stop by themselves when a monitor no longer renews its own, however it ended.

use bytemuck::{Pod, Zeroable};

use crate::{
    atomic::{Word32, Word64},
    net::Ipv4Be,
    reason::{Class, Reason},
    stats::REASON_SLOTS,
};

/// Monitors at a time.
pub const MONITOR_SLOTS: u32 = 4;

/// Bytes of each monitor's ring buffer: room for some 1900 events.
pub const RING_BYTES: u32 = 1 << 18;

/// A period of `bpf_ktime_get_ns` (`CLOCK_MONOTONIC`) is `1 << PERIOD_SHIFT` nanoseconds: a good second.
pub const PERIOD_SHIFT: u32 = 30;

/// Periods that a lease lasts after the one in which it was renewed.
pub const LEASE: u32 = 2;

/// The first bytes of a packet that an event shows: enough for the ports behind the longest IPv4 header, and for those
/// of the packet that an ICMP error quotes.
pub const SNAPSHOT: usize = 96;

/// All monitors. All zero: nobody listens.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Monitors {
    /// The last period in which somebody may be listening; 0 if nobody is. The programs look at this alone.
    pub until: Word32,
    reserved: [u32; 7],
    /// The slots.
    pub slots: [Monitor; MONITOR_SLOTS as usize],
}

/// What one monitor wants to see.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Monitor {
    /// The last period of the lease; 0 for a slot that is free.
    pub until: Word32,
    /// Events shown for each reason, on each CPU, in each period. What exceeds it is counted.
    pub limit: Word32,
    /// Only packets that came in by this interface; 0 for any.
    pub ifindex: Word32,
    /// Only IPv4 packets from or to this address, as [`Ipv4Be::to_wire`] has it; 0 for any packet.
    pub address: Word32,
    /// The reasons: the bit `1 << number` for each.
    pub reasons: Word64,
    /// Kernel's id of the ring buffer of the monitor that has the slot.
    pub owner: Word32,
    reserved: u32,
}

/// The bit of a reason in [`Monitor::reasons`], by its number.
#[inline(always)]
pub const fn bit(reason: u32) -> u64 {
    1 << (reason & 63)
}

const _: () = assert!(REASON_SLOTS == 64 && size_of::<Monitor>() == 32);

/// The bits of every reason of that class.
pub const fn bits(class: Class) -> u64 {
    let (mut bits, mut index) = (0, 0);
    while index < Reason::ALL.len() {
        if Reason::ALL[index].class() as u8 == class as u8 {
            bits |= bit(index as u32);
        }
        index += 1;
    }
    bits
}

impl Monitor {
    /// Whether a packet is to be shown, by all but its addresses; the reason by its number.
    #[inline(always)]
    pub fn wants(&self, period: u32, reason: u32, ifindex: u32) -> bool {
        let wanted = self.ifindex.load();
        period <= self.until.load()
            && self.reasons.load() & bit(reason) != 0
            && (wanted == 0 || wanted == ifindex)
    }

    /// Whether packets with these addresses are to be shown.
    #[inline(always)]
    pub fn wants_addresses(&self, source: Ipv4Be, destination: Ipv4Be) -> bool {
        let wanted = self.address.load();
        wanted == source.to_wire() || wanted == destination.to_wire()
    }
}

/// What one CPU may still show a monitor for one reason, and what it did not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Budget {
    /// The period that `used` is of.
    pub period: u32,
    /// Events shown in it.
    pub used: u32,
    /// Packets not shown since the map was made: beyond the limit, or when the ring buffer was full.
    pub suppressed: u64,
}

impl Budget {
    /// Takes one event out of the budget; counts a packet that is not in it.
    #[inline(always)]
    pub fn take(&mut self, period: u32, limit: u32) -> bool {
        if self.period != period {
            (self.period, self.used) = (period, 0);
        }
        let is_left = self.used < limit;
        if is_left {
            self.used += 1;
        } else {
            self.suppressed += 1;
        }
        is_left
    }
}

/// One CPU's budgets for one monitor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Budgets {
    /// One per reason, by its number.
    pub by_reason: [Budget; REASON_SLOTS],
}

/// A packet that was dropped or left to the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Number of the hook.
    pub hook: u32,
    /// Number of the reason.
    pub reason: u32,
    /// The interface that the packet came in by.
    pub ifindex: u32,
    /// Length of the frame in bytes, Ethernet header included; for an aggregate, that of the whole.
    pub length: u32,
    /// Bytes of payload in each segment of an aggregate; 0 for a single packet.
    pub segment: u32,
    /// How many of `bytes` are the packet's.
    pub captured: u32,
    /// The packet from its Ethernet header on, as the walk left it: untranslated, but for what fails afterwards.
    pub bytes: [u8; SNAPSHOT],
}

const _: () = assert!(size_of::<Event>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_per_period() {
        let mut budget = Budget::default();
        let taken = |budget: &mut Budget, period| (0..5).filter(|_| budget.take(period, 3)).count();
        assert_eq!(taken(&mut budget, 7), 3);
        assert_eq!((budget.used, budget.suppressed), (3, 2));
        assert_eq!(taken(&mut budget, 8), 3);
        assert_eq!(budget.suppressed, 4);
    }

    #[test]
    fn a_monitor_sees_what_it_asked_for() {
        let (drop, pass) = (Reason::NoEndpoint as u32, Reason::ToHost as u32);
        let monitor = Monitor::default();
        assert!(!monitor.wants(1, drop, 3), "nobody asked");
        monitor.until.store(9);
        monitor.reasons.store(bits(Class::Drop));
        assert!(monitor.wants(9, drop, 3) && !monitor.wants(9, pass, 3));
        assert!(!monitor.wants(10, drop, 3), "the lease is over");
        monitor.ifindex.store(4);
        assert!(!monitor.wants(9, drop, 3) && monitor.wants(9, drop, 4));
        let [one, two, three] = [1, 2, 3].map(|last| Ipv4Be::from(core::net::Ipv4Addr::new(10, 0, 0, last)));
        monitor.address.store(two.to_wire());
        assert!(monitor.wants_addresses(one, two) && monitor.wants_addresses(two, one));
        assert!(!monitor.wants_addresses(one, three));
    }

    #[test]
    fn classes_share_no_reason() {
        let all = [Class::Forward, Class::Pass, Class::Drop].map(bits);
        assert_eq!(all.iter().map(|bits| bits.count_ones()).sum::<u32>() as usize, Reason::ALL.len());
        assert_eq!(all[0] | all[1] | all[2], (1 << Reason::ALL.len()) - 1);
    }
}
