//! What the generator and `cargo xtask bench` share; both include this file.

/// Bytes of a frame, without the frame check sequence.
pub const FRAME: usize = 64;

/// Frames of one kind and how they differ: the generator's state.
///
/// A flow is a number below [`MAX_FLOWS`]. Its low byte becomes the last byte of one address, its high byte
/// the low byte of the port on the same side.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// The frame, with a zero in both bytes that vary and the IPv4 checksum for that.
    pub frame: [u64; FRAME / 8],
    /// Offset of the address byte that varies: [`SOURCE_BYTE`] or [`DESTINATION_BYTE`].
    pub address_byte: u32,
    /// Flows less one; their number is a power of two.
    pub flow_mask: u32,
    /// Frames made so far.
    pub made: u64,
}

/// Most flows.
pub const MAX_FLOWS: u32 = 1 << 16;

/// Offset of the IPv4 checksum in the frame.
pub const CHECKSUM: usize = 24;

/// Offset of the last byte of the source address.
pub const SOURCE_BYTE: u32 = 29;

/// Offset of the last byte of the destination address.
pub const DESTINATION_BYTE: u32 = 33;

/// From the last byte of an address to the low byte of the UDP port on its side: the headers have the source
/// before the destination in both cases, addresses 4 and ports 2 bytes apart.
pub const fn port_byte(address_byte: u32) -> u32 {
    if address_byte == SOURCE_BYTE { 35 } else { 37 }
}

/// Program that makes frames and redirects them to the first device of [`MAP_OUT`].
pub const PROGRAM_GENERATE: &str = "generate";
/// Program that counts frames in [`MAP_SUNK`] and drops them.
pub const PROGRAM_SINK: &str = "sink";
/// Map of one [`Traffic`].
pub const MAP_TRAFFIC: &str = "TRAFFIC";
/// Map of devices with one slot.
pub const MAP_OUT: &str = "OUT";
/// Per-CPU map of one count.
pub const MAP_SUNK: &str = "SUNK";
