//! Which ports MASQUERADE may use: a bit for each, which the daemon sets and the programs read.
//!
//! A port that the host may give to a connection of its own, or at which a socket of the host is bound, is not among
//! them: the reply to one would go to the other. Identifiers of ICMP echo have no bits: any may be used.

/// Array of words: a row for each protocol, in it a bit for each port. It can be mapped.
pub const MAP_FLOW_PORTS: &str = "FLOW_PORTS";

/// Protocols with ports of their own.
pub const PORT_ROWS: u32 = 2;

/// The row of TCP.
pub const ROW_TCP: u32 = 0;
/// The row of UDP.
pub const ROW_UDP: u32 = 1;

/// Words of a row: 65,536 bits.
pub const WORDS_PER_ROW: u32 = (1 << 16) / 64;

/// Words of the map.
pub const PORT_WORDS: u32 = PORT_ROWS * WORDS_PER_ROW;

/// The row of an IP protocol by its number; none where every port, or identifier, may be used.
#[inline(always)]
pub const fn row(protocol: u8) -> Option<u32> {
    match protocol {
        6 => Some(ROW_TCP),
        17 => Some(ROW_UDP),
        _ => None,
    }
}

/// The word that has the port's bit.
#[inline(always)]
pub const fn word(row: u32, port: u16) -> u32 {
    row * WORDS_PER_ROW + port as u32 / 64
}

/// The port's bit in its word: set where the port may be used.
#[inline(always)]
pub const fn bit(port: u16) -> u64 {
    1 << (port % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_a_bit_of_its_own() {
        let mut words = [0; PORT_WORDS as usize];
        for row in [ROW_TCP, ROW_UDP] {
            for port in 0..=u16::MAX {
                let word = &mut words[word(row, port) as usize];
                assert_eq!(*word & bit(port), 0);
                *word |= bit(port);
            }
        }
        assert!(words.iter().all(|word| *word == u64::MAX));
        assert_eq!((row(6), row(17), row(1)), (Some(ROW_TCP), Some(ROW_UDP), None));
    }
}
