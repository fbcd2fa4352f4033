//! What `BPF_PROG_TEST_RUN` takes besides the packet.

/// The fields of `struct __sk_buff` (`include/uapi/linux/bpf.h`) that the kernel lets a test set
/// (`convert___skb_to_skb()` in `net/bpf/test_run.c`), as far as a program could look at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The packet's mark.
    pub mark: u32,
    /// Its priority.
    pub priority: u32,
    /// The interface that it came in by.
    pub ifindex: u32,
    /// The control block that programs share.
    pub cb: [u32; 5],
    /// Its time stamp, in nanoseconds.
    pub tstamp: u64,
    /// Segments in an aggregate.
    pub gso_segs: u32,
    /// Bytes of payload in each segment of an aggregate.
    pub gso_size: u32,
}

/// `sizeof(struct __sk_buff)` since Linux 5.15.
pub(super) const LENGTH: usize = 192;

/// `struct xdp_md` of a frame of that length, as far as the kernel lets a test set it (`xdp_convert_md_to_buff()`).
pub(super) fn at_xdp(ifindex: u32, length: usize) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
    bytes[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    bytes
}

impl Context {
    /// The structure, with zero for all other fields.
    pub(super) fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let mut put =
            |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(8, &self.mark.to_ne_bytes());
        put(32, &self.priority.to_ne_bytes());
        put(40, &self.ifindex.to_ne_bytes());
        for (index, word) in self.cb.iter().enumerate() {
            put(48 + 4 * index, &word.to_ne_bytes());
        }
        put(152, &self.tstamp.to_ne_bytes());
        put(164, &self.gso_segs.to_ne_bytes());
        put(176, &self.gso_size.to_ne_bytes());
        bytes
    }

    /// What the program left in the fields.
    pub(super) fn read(bytes: &[u8; LENGTH]) -> Self {
        let word = |offset: usize| bytemuck::pod_read_unaligned::<u32>(&bytes[offset..offset + 4]);
        Self {
            mark: word(8),
            priority: word(32),
            ifindex: word(40),
            cb: [48, 52, 56, 60, 64].map(word),
            tstamp: bytemuck::pod_read_unaligned(&bytes[152..160]),
            gso_segs: word(164),
            gso_size: word(176),
        }
    }
}
