//! The benchmarks' packet generator and sink.
//!
//! The generator runs in `BPF_PROG_TEST_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES`, which hands it the same pages
//! again and again, as the path under test left them: it writes every byte of every frame.

#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the xdp macro wraps the functions in undocumented ones")]

mod layout;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, DevMap, PerCpuArray},
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::layout::{DESTINATION_BYTE, FRAME, MARK, SOURCE_BYTE, Traffic};

/// Offset of the IPv4 checksum in the frame.
const CHECKSUM: usize = 24;

#[btf_map]
static TRAFFIC: Array<Traffic, 1> = Array::new();

#[btf_map]
static OUT: DevMap<1> = DevMap::new();

#[btf_map]
static SUNK: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Makes the next frame and sends it out.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    let Some(traffic) = TRAFFIC.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    if start + FRAME > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: one generator runs at a time.
    let traffic = unsafe { &mut *traffic };
    if traffic.interval != 0 && !is_due(traffic) {
        return xdp_action::XDP_DROP;
    }
    note_time(traffic);
    let flow = traffic.made as u32 & traffic.flow_mask;
    traffic.made += 1;
    let frame = start as *mut u8;
    for (index, word) in traffic.frame.iter().enumerate() {
        // SAFETY: the frame was checked to have these bytes; packets may be misaligned.
        unsafe { frame.add(index * 8).cast::<u64>().write_unaligned(*word) };
    }
    if traffic.first != 0 {
        spread(frame, flow, traffic);
    } else if traffic.address_byte == SOURCE_BYTE {
        vary(frame, SOURCE_BYTE, flow, traffic.port_high);
    } else {
        vary(frame, DESTINATION_BYTE, flow, traffic.port_high);
    }
    OUT.redirect(0, 0).unwrap_or(xdp_action::XDP_ABORTED)
}

/// The low byte of the UDP port on the side of the address.
const fn port_byte(address_byte: u32) -> u32 {
    if address_byte == SOURCE_BYTE { 35 } else { 37 }
}

/// Puts the flow's bytes into the frame, whose checksum is for zeros there.
#[inline(always)]
fn vary(frame: *mut u8, address_byte: u32, flow: u32, port_high: u32) {
    let low = flow & 0xff;
    // SAFETY: the caller checked the frame's length, and all offsets are below it.
    unsafe {
        frame.add(address_byte as usize).write(low as u8);
        frame.add(port_byte(address_byte) as usize).write((flow >> 8) as u8);
        frame.add(port_byte(address_byte) as usize - 1).write((port_high + (flow >> 16)) as u8);
        // The byte is the low one of a 16-bit word: it adds itself to the sum (RFC 1624).
        let checksum = frame.add(CHECKSUM).cast::<u16>();
        let sum = u32::from(!u16::from_be(checksum.read_unaligned())) + low;
        let sum = (sum & 0xffff) + (sum >> 16);
        checksum.write_unaligned((!(sum as u16)).to_be());
    }
}

/// Takes the time of the first frame, and of each that may turn out to be near the last.
#[inline(always)]
fn note_time(traffic: &mut Traffic) {
    if traffic.began != 0 && !traffic.made.is_multiple_of(MARK) {
        return;
    }
    // SAFETY: the helper takes nothing and only reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if traffic.began == 0 {
        (traffic.began, traffic.began_with) = (now, traffic.made);
    }
    (traffic.reached, traffic.reached_with) = (now, traffic.made);
}

/// Whether it is time for the next frame, of which the time is then noted.
#[inline(always)]
fn is_due(traffic: &mut Traffic) -> bool {
    // SAFETY: the helper takes nothing and only reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if now < traffic.due {
        return false;
    }
    // After a pause there is no rush: what was not sent in time is not sent at all.
    traffic.due = if traffic.due + MOST_LATE < now { now } else { traffic.due } + traffic.interval;
    true
}

/// Nanoseconds after which a frame is not made up for.
const MOST_LATE: u64 = 100_000;

/// Gives the frame an address of the flow's prefix, in place of zeros.
#[inline(always)]
fn spread(frame: *mut u8, flow: u32, traffic: &Traffic) {
    // Fibonacci hashing: neighbouring flows go far apart.
    let prefix = (u64::from(flow.wrapping_mul(0x9e37_79b1)) * u64::from(traffic.prefixes)) >> 32;
    let address = traffic.first + ((prefix as u32) << 6) + 1;
    // SAFETY: the caller checked the frame's length, and all offsets are below it.
    unsafe {
        frame.add(DESTINATION_BYTE as usize - 3).cast::<u32>().write_unaligned(address.to_be());
        let checksum = frame.add(CHECKSUM).cast::<u16>();
        let sum = u32::from(!u16::from_be(checksum.read_unaligned())) + (address >> 16) + (address & 0xffff);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        checksum.write_unaligned((!(sum as u16)).to_be());
    }
}

/// Counts the frame and drops it.
#[xdp]
pub fn sink(_: XdpContext) -> u32 {
    if let Some(sunk) = SUNK.get_ptr_mut(0) {
        // SAFETY: the value is this CPU's own, and nothing else writes it while the program runs.
        unsafe { *sunk += 1 };
    }
    xdp_action::XDP_DROP
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: the verifier proves that no panic can be reached: bounds are checked before each access.
    unsafe { core::hint::unreachable_unchecked() }
}
