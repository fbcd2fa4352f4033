//! Layouts 2 and 3 of the flow table, written down once more: it is read as it was when the layout has changed since.
//! They differ in the indexes alone, which nobody reads who reads the records.

use dataplane_common::{
    atomic::Word64,
    nat::{
        flow::Known,
        state::{Progress, State},
        tuple::Tuple,
    },
    net::Ipv4Be,
};

use super::{Layout, settings};

const SETTINGS_WORDS: usize = 264;

/// Layout 2.
pub(super) const LAYOUT: Layout = Layout {
    version: 2,
    record_words: 8,
    settings: settings::<SETTINGS_WORDS>,
    seed: 0,
    max_flows_per_source: 4,
    flow,
};

/// ```text
/// word 0  life: deadline 32, generation 16, marks 8, state 8 bits; state 0 is no flow
///      1  destination address 32, source address 32
///      2  protocol 16, translated port 16, destination port 16, source port 16
///      3  tick at which it began 32, translated address 32
///    4-5  bytes out, in
///    6-7  packets out, in
/// ```
fn flow(record: &[Word64]) -> Option<Known> {
    let &[
        ref life,
        ref addresses,
        ref ports,
        ref translated,
        ref bytes @ ..,
        ref packets_out,
        ref packets_in,
    ] = record
    else {
        return None;
    };
    let [bytes_out, bytes_in] = bytes else { return None };
    let (life, addresses, ports, translated) =
        (life.load(), addresses.load(), ports.load(), translated.load());
    let state = State::from_number(life as u8);
    (state != State::Dead).then(|| Known {
        original: Tuple {
            protocol: (ports >> 48) as u8,
            source: Ipv4Be::from_wire(addresses as u32),
            source_port: ports as u16,
            destination: Ipv4Be::from_wire((addresses >> 32) as u32),
            destination_port: (ports >> 16) as u16,
        },
        address: Ipv4Be::from_wire(translated as u32),
        port: (ports >> 32) as u16,
        progress: Progress { state, marks: (life >> 8) as u8 },
        deadline: (life >> 32) as u32,
        opened: (translated >> 32) as u32,
        bytes: [bytes_out.load(), bytes_in.load()],
        packets: [packets_out.load(), packets_in.load()],
    })
}

/// Layout 3.
pub(super) const LAYOUT_3: Layout = Layout { version: 3, ..LAYOUT };

/// While this is the layout that programs write, both say the same of it.
#[cfg(all(test, not(feature = "next-layout")))]
mod tests {
    use std::mem::{offset_of, transmute};

    use dataplane_common::{
        names::LAYOUT_VERSION,
        nat::{
            flow::{Flow, Life},
            settings::Settings,
            state::Direction,
        },
    };

    use super::*;

    #[test]
    fn the_reader_agrees_with_the_programs() {
        assert_eq!(LAYOUT_VERSION, LAYOUT_3.version);
        assert_eq!(size_of::<Flow>(), 8 * LAYOUT.record_words);
        assert_eq!(size_of::<Settings>(), 4 * SETTINGS_WORDS);
        assert_eq!(offset_of!(Settings, seed), 4 * LAYOUT.seed);
        assert_eq!(offset_of!(Settings, max_flows_per_source), 4 * LAYOUT.max_flows_per_source);
        // No two bytes are the same, and the state is one.
        let mut bytes: [u8; 64] = std::array::from_fn(|index| 0x40 + index as u8);
        bytes[0] = State::TcpClosing as u8;
        // SAFETY: words, every value of which is valid.
        let record: [Word64; 8] = unsafe { transmute(bytes) };
        // SAFETY: as above; the record is aligned as a flow is where it is written below.
        let written: Flow = unsafe { transmute(bytes) };
        let read = flow(&record).unwrap();
        let life = Life::from_bits(written.life.load());
        assert_eq!(read.original, written.original());
        assert_eq!((read.address, read.port), (written.translated_address(), written.translated_port()));
        assert_eq!((read.progress, read.deadline), (life.progress(), life.deadline()));
        assert_eq!(read.opened, written.opened());
        for direction in [Direction::Out, Direction::In] {
            assert_eq!(read.bytes[direction as usize], written.bytes(direction));
            assert_eq!(read.packets[direction as usize], written.packets(direction));
        }
    }

    #[test]
    fn a_record_without_a_flow_is_none() {
        assert_eq!(flow(&[const { Word64::new(0) }; 8]), None);
        assert_eq!(flow(&[const { Word64::new(1) }; 7]), None);
    }
}
