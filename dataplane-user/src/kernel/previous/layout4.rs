//! Layout 4 of the flow table, written down once more: it is read as it was when the layout has changed since.

use dataplane_common::{
    atomic::Word64,
    family::V4,
    flow::{
        record::Known,
        state::{Progress, State},
        tuple::Tuple,
    },
};

use super::{Layout, settings};

const SETTINGS_WORDS: usize = 264;

/// Layout 4.
pub(super) const LAYOUT: Layout = Layout {
    version: 4,
    settings_map: "FLOW_SETTINGS",
    records_map: "FLOW_RECORDS",
    record_words: 8,
    counts_map: Some("FLOW_COUNTS"),
    settings: settings::<SETTINGS_WORDS>,
    seed: 0,
    max_flows_per_source: 4,
    flow,
};

/// ```text
/// word 0  life: deadline 32, generation 16, marks 8, state 8 bits; state 0 is no flow
///      1  the original's destination address 32, source address 32
///      2  service 16, flags 8, protocol 8, destination port 16, source port 16
///    3-4  what it is bound to, policy
///      5  the reply's destination address 32, source address 32
///      6  tick at which it began 32, destination port 16, source port 16
///
/// counters: original 0, reply 1: bytes 52 bits, with the packets' upper 12 bits above
///        2: the packets' lower 32 bits of the reply 32, of the original 32
/// ```
fn flow(record: &[Word64], counts: &[Word64]) -> Option<Known<V4>> {
    let [life, addresses, key, _, _, reply, reply_ports, _] = record else { return None };
    let [bytes @ .., packets] = counts else { return None };
    let [bytes_original, bytes_reply] = bytes else { return None };
    let (life, key, reply_ports) = (life.load(), key.load(), reply_ports.load());
    let bytes = [bytes_original.load(), bytes_reply.load()];
    let packets = [packets.load() & 0xffff_ffff, packets.load() >> 32];
    let state = State::from_number(life as u8);
    (state != State::Dead).then(|| Known {
        original: Tuple::from_words(&addresses.load(), key),
        reply: Tuple::from_words(&reply.load(), reply_ports & 0xffff_ffff | key & 0xff << 32),
        flags: (key >> 40) as u8,
        progress: Progress { state, marks: (life >> 8) as u8 },
        deadline: (life >> 32) as u32,
        opened: (reply_ports >> 32) as u32,
        bytes: bytes.map(|word| word & ((1 << 52) - 1)),
        packets: [0, 1].map(|index| bytes[index] >> 52 << 32 | packets[index]),
    })
}

/// While this is the layout that programs write, both say the same of it.
#[cfg(all(test, not(feature = "next-layout")))]
mod tests {
    use std::mem::{offset_of, transmute};

    use dataplane_common::{
        flow::{
            counts::Counts,
            record::{Flow, Life},
            settings::Settings,
            state::Direction,
        },
        names::LAYOUT_VERSION,
    };

    use super::*;

    #[test]
    fn the_reader_agrees_with_the_programs() {
        assert_eq!(LAYOUT_VERSION, LAYOUT.version);
        assert_eq!(size_of::<Flow<V4>>(), 8 * LAYOUT.record_words);
        assert_eq!(size_of::<Settings>(), 4 * SETTINGS_WORDS);
        assert_eq!(offset_of!(Settings, seed), 4 * LAYOUT.seed);
        assert_eq!(offset_of!(Settings, max_flows_per_source), 4 * LAYOUT.max_flows_per_source);
        // No two bytes are the same, and the state is one.
        let mut bytes: [u8; 64] = std::array::from_fn(|index| 0x40 + index as u8);
        bytes[0] = State::TcpClosing as u8;
        let counted: [u8; 24] = std::array::from_fn(|index| 0x80 + index as u8);
        // SAFETY: words, every value of which is valid.
        let record: [Word64; 8] = unsafe { transmute(bytes) };
        // SAFETY: as above.
        let counts: [Word64; 3] = unsafe { transmute(counted) };
        // SAFETY: as above; the record is aligned as a flow is where it is written below.
        let written: Flow<V4> = unsafe { transmute(bytes) };
        // SAFETY: words, every value of which is valid.
        let written_counts: Counts = unsafe { transmute(counted) };
        let read = flow(&record, &counts).unwrap();
        let life = Life::from_bits(written.life.load());
        assert_eq!((read.original, read.reply), (written.original(), written.reply()));
        assert_eq!(read.flags, written.flags());
        assert_eq!((read.progress, read.deadline), (life.progress(), life.deadline()));
        assert_eq!(read.opened, written.opened());
        for direction in Direction::BOTH {
            assert_eq!(read.bytes[direction as usize], written_counts.bytes(direction));
            assert_eq!(read.packets[direction as usize], written_counts.packets(direction));
        }
    }

    #[test]
    fn a_record_without_a_flow_is_none() {
        let [zero, one] = [[0; 8], [1; 8]].map(|words| words.map(Word64::new));
        assert_eq!(flow(&zero, &zero[..3]), None);
        assert_eq!(flow(&one[..7], &one[..3]), None);
        assert_eq!(flow(&one, &one[..2]), None);
    }
}
