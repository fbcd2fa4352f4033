//! Fragmentation and reassembly (RFC 791, 3.2).

use anyhow::{Result, ensure};

use super::{Ipv4, L4};

impl Ipv4 {
    /// The packet in fragments of at most `size` bytes of payload each, a multiple of eight.
    ///
    /// Checksums of the payload are over the whole, as a host or router leaves them.
    ///
    /// # Panics
    /// If the size is no multiple of eight.
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        assert!(size > 0 && size.is_multiple_of(8), "fragments of {size} bytes are not possible");
        let whole = self.payload.bytes(self.source, self.destination);
        let count = whole.len().div_ceil(size);
        let protocol = self.payload.protocol();
        let fragment = |(index, piece): (usize, &[u8])| Self {
            dont_fragment: false,
            more_fragments: self.more_fragments || index + 1 < count,
            fragment_offset: self.fragment_offset + (index * size / 8) as u16,
            payload: L4::Raw(protocol, piece.to_vec()),
            ..self.clone()
        };
        whole.chunks(size).enumerate().map(fragment).collect()
    }

    /// The packet that these fragments, in any order, are of; its header is the first one's.
    ///
    /// # Errors
    /// If one is missing, is there twice, or is of another packet.
    pub fn reassemble(fragments: &[Self]) -> Result<Self> {
        let mut sorted: Vec<&Self> = fragments.iter().collect();
        sorted.sort_by_key(|fragment| fragment.fragment_offset);
        let mut whole = Vec::new();
        for fragment in &sorted {
            let key =
                |packet: &Self| (packet.source, packet.destination, packet.id, packet.payload.protocol());
            ensure!(key(fragment) == key(sorted[0]), "fragments of two packets: {fragments:?}");
            let offset = usize::from(fragment.fragment_offset) * 8;
            ensure!(offset == whole.len(), "after {} bytes comes the fragment at {offset}", whole.len());
            whole.extend(fragment.payload.bytes(fragment.source, fragment.destination));
        }
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
            anyhow::bail!("no fragments");
        };
        ensure!(!last.more_fragments, "the last fragment is missing");
        let payload = L4::Raw(first.payload.protocol(), whole);
        let packet = Self { more_fragments: false, checksum: None, payload, ..(*first).clone() };
        // Only now can the payload be read, and its checksum be verified.
        Self::parse(&packet.bytes())
    }
}
