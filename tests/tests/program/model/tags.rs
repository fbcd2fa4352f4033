//! Priority tags, which are no tags.

use dataplane_common::reason::Reason;

use super::number;
use crate::programs::Packet;

/// The packet as it goes on: a priority tag is none. Where one is taken off, the kernel puts the next tag beside the
/// packet.
///
/// # Errors
/// The bytes and the reason, where there are more of them than two, half a one, or another tag that is beside the packet.
pub(super) fn without_priority_tags(packet: &Packet) -> Result<Packet, (Vec<u8>, Reason)> {
    let mut packet = packet.clone();
    let mut beside = None;
    for count in 0.. {
        let frame = &mut packet.frame;
        if frame.len() < 14 {
            break;
        }
        let tag = |frame: &[u8]| {
            let is_tag = matches!(number(&frame[12..14]), 0x8100 | 0x88a8);
            is_tag.then(|| frame.get(14..16).map(number))
        };
        let control = match (beside, tag(frame)) {
            (Some(control), _) | (None, Some(Some(control))) => control,
            (None, Some(None)) => return Err((packet.frame, Reason::Vlan)),
            (None, None) => break,
        };
        if control & 0xfff != 0 {
            break;
        }
        let take = |frame: &mut Vec<u8>| {
            if frame.len() < 18 {
                return Err((frame.clone(), Reason::Malformed));
            }
            frame.drain(12..16);
            Ok(())
        };
        if count == 2 {
            return Err((packet.frame, Reason::Malformed));
        }
        if beside.take().is_none() {
            take(frame)?;
        }
        if let Some(next) = tag(frame) {
            take(frame)?;
            beside = next;
        }
    }
    if beside.is_some() { Err((packet.frame, Reason::Vlan)) } else { Ok(packet) }
}
