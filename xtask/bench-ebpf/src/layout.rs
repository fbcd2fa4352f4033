//! What the generator and `cargo xtask bench` share; both include this file.

/// Bytes of a frame, without the frame check sequence.
pub const FRAME: usize = 64;

/// Frames of one kind and how they differ: the generator's state.
///
/// A flow is a number. Its low byte becomes the last byte of one address, the next one the low byte of the port on
/// the same side, and what is left is added to that port's high byte.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// The frame, with a zero in both bytes that vary and the IPv4 checksum for that.
    pub frame: [u64; FRAME / 8],
    /// Offset of the address byte that varies: [`SOURCE_BYTE`] or [`DESTINATION_BYTE`].
    pub address_byte: u32,
    /// Flows less one; their number is a power of two.
    pub flow_mask: u32,
    /// High byte of the port that varies, for the first 65,536 flows.
    pub port_high: u32,
    /// Where the flows go to a prefix each, chosen at random: the address of the first /26 of many in a row, host
    /// byte order. The frame then has zeros in the whole destination address. 0 where not.
    pub first: u32,
    /// How many prefixes there are.
    pub prefixes: u32,
    /// Fills the structure.
    pub reserved: u32,
    /// Frames made so far.
    pub made: u64,
    /// Nanoseconds from one frame to the next; 0 for as many as can be made.
    pub interval: u64,
    /// When the next frame is due, on the kernel's monotonic clock.
    pub due: u64,
    /// When the first frame of this run was made, on the same clock; 0 asks for it.
    pub began: u64,
    /// The number of that frame.
    pub began_with: u64,
    /// When a frame was made last whose number is a multiple of [`MARK`].
    pub reached: u64,
    /// The number of that frame.
    pub reached_with: u64,
}

/// Frames from one look at the clock to the next.
pub const MARK: u64 = 64;

/// Offset of the last byte of the source address.
pub const SOURCE_BYTE: u32 = 29;

/// Offset of the last byte of the destination address.
pub const DESTINATION_BYTE: u32 = 33;
