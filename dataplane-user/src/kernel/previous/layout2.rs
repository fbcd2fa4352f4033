//! Layouts 2 and 3 of the flow table, written down once more: it is read as it was when the layout has changed since.
//! They differ in the indexes alone, which nobody reads who reads the records.

use dataplane_common::{
    atomic::Word64,
    family::V4,
    flow::{
        record::{Known, flags},
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
    settings_map: "NAT_SETTINGS",
    records_map: "NAT_FLOWS",
    record_words: 8,
    counts_map: None,
    settings: settings::<SETTINGS_WORDS>,
    seed: 0,
    max_flows_per_source: 4,
    flow,
};

/// Layout 3.
pub(super) const LAYOUT_3: Layout = Layout { version: 3, ..LAYOUT };

/// ```text
/// word 0  life: deadline 32, generation 16, marks 8, state 8 bits; state 0 is no flow
///      1  destination address 32, source address 32
///      2  protocol 16, translated port 16, destination port 16, source port 16
///      3  tick at which it began 32, translated address 32
///    4-5  bytes out, in
///    6-7  packets out, in
/// ```
fn flow(record: &[Word64], _counts: &[Word64]) -> Option<Known<V4>> {
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
    let original = Tuple {
        protocol: (ports >> 48) as u8,
        source: Ipv4Be::from_wire(addresses as u32),
        source_port: ports as u16,
        destination: Ipv4Be::from_wire((addresses >> 32) as u32),
        destination_port: (ports >> 16) as u16,
    };
    let reply = Tuple {
        destination: Ipv4Be::from_wire(translated as u32),
        destination_port: (ports >> 32) as u16,
        ..original.reversed()
    };
    (state != State::Dead).then(|| Known {
        original,
        reply,
        flags: flags::SNAT | flags::BY_MASQUERADE,
        progress: Progress { state, marks: (life >> 8) as u8 },
        deadline: (life >> 32) as u32,
        opened: (translated >> 32) as u32,
        bytes: [bytes_out.load(), bytes_in.load()],
        packets: [packets_out.load(), packets_in.load()],
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// A record as version 0.1.0 before layout 4 has written it: 172.19.35.2:40000 to 192.0.2.1:443 as 198.51.100.2:61007.
    #[test]
    fn a_record_of_layout_3_is_read() {
        let address = |text: &str| Ipv4Be::from(text.parse::<Ipv4Addr>().unwrap());
        let pair = |low: Ipv4Be, high: u32| u64::from(low.to_wire()) | u64::from(high) << 32;
        let words = [
            1000 << 32 | 7 << 16 | 1 << 8 | State::TcpClosing as u64,
            pair(address("172.19.35.2"), address("192.0.2.1").to_wire()),
            40_000 | 443 << 16 | 61_007 << 32 | 6 << 48,
            pair(address("198.51.100.2"), 900),
            11,
            12,
            13,
            14,
        ]
        .map(Word64::new);
        let known = flow(&words, &[]).unwrap();
        assert_eq!((known.original.source, known.original.source_port), (address("172.19.35.2"), 40_000));
        assert_eq!((known.reply.source, known.reply.source_port), (address("192.0.2.1"), 443));
        assert_eq!(
            (known.reply.destination, known.reply.destination_port),
            (address("198.51.100.2"), 61_007)
        );
        assert_eq!((known.original.protocol, known.reply.protocol), (6, 6));
        assert_eq!(known.progress, Progress { state: State::TcpClosing, marks: 1 });
        assert_eq!((known.deadline, known.opened), (1000, 900));
        assert_eq!((known.bytes, known.packets), ([11, 12], [13, 14]));
    }

    #[test]
    fn a_record_without_a_flow_is_none() {
        assert_eq!(flow(&[const { Word64::new(0) }; 8], &[]), None);
        assert_eq!(flow(&[const { Word64::new(1) }; 7], &[]), None);
    }
}
