//! The frame and the context of a traced packet.

use dataplane_common::{checksum, net::MacAddr};

use super::{Probe, Protocol, TcpFlag};

const TTL: u8 = 64;
const PAYLOAD: usize = 18;

/// Offset of `ifindex` in the kernel's `struct __sk_buff` (`include/uapi/linux/bpf.h`), the ABI of the context.
const IFINDEX: usize = 40;

/// A context that says only by which interface the packet came in.
///
/// The kernel takes the first bytes of the structure and zero for the rest.
pub(super) fn context(ifindex: u32) -> [u8; IFINDEX + 4] {
    let mut context = [0; IFINDEX + 4];
    context[IFINDEX..].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// The same for XDP: all of `struct xdp_md`, of which the kernel wants the length of the frame, too.
pub(super) fn xdp_context(ifindex: u32, length: usize) -> [u8; 24] {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&(length as u32).to_ne_bytes()); // `data_end`
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes()); // `ingress_ifindex`
    context
}

/// An Ethernet frame of the least length, addressed to the interface.
pub(super) fn build(probe: &Probe, destination_mac: MacAddr) -> Vec<u8> {
    let transport = transport(probe);
    let protocol = match probe.protocol {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let mut ip = [0u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((20 + transport.len()) as u16).to_be_bytes());
    ip[6] = 0x40; // don't fragment
    ip[8] = TTL;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&probe.source.octets());
    ip[16..20].copy_from_slice(&probe.destination.octets());
    let sum = checksum::of_header(&bytemuck::pod_read_unaligned(&ip));
    ip[10..12].copy_from_slice(&sum.to_ne_bytes());

    let mut frame = Vec::new();
    frame.extend_from_slice(&destination_mac.octets());
    frame.extend_from_slice(&[0x02, 0, 0, 0, 0, 1]); // a locally administered sender
    frame.extend_from_slice(&[0x08, 0x00]);
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&transport);
    frame
}

/// The transport header and some payload; its checksum stays zero, since no step of a walk reads it.
fn transport(probe: &Probe) -> Vec<u8> {
    let [source, destination] = [probe.source_port.to_be_bytes(), probe.destination_port.to_be_bytes()];
    let mut bytes = match probe.protocol {
        Protocol::Icmp => vec![8, 0, 0, 0, source[0], source[1], 0, 1],
        Protocol::Udp => {
            let length = (8 + PAYLOAD) as u16;
            [source, destination, length.to_be_bytes(), [0, 0]].concat()
        }
        Protocol::Tcp => {
            let mut header = [source, destination].concat();
            let flags = probe.tcp_flags.iter().fold(0, |flags, flag| flags | *flag as u8);
            let acknowledged = u32::from(probe.tcp_flags.contains(&TcpFlag::Ack));
            header.extend(1_u32.to_be_bytes());
            header.extend(acknowledged.to_be_bytes());
            header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            header
        }
    };
    bytes.resize(bytes.len() + PAYLOAD, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_an_intact_header_of_the_right_length() {
        for (protocol, length) in [(Protocol::Icmp, 26), (Protocol::Udp, 26), (Protocol::Tcp, 38)] {
            let probe = Probe {
                interface: "cali1".to_owned(),
                protocol,
                source: [172, 19, 35, 2].into(),
                source_port: 1,
                destination: [172, 19, 36, 2].into(),
                destination_port: 2,
                tcp_flags: vec![TcpFlag::Syn, TcpFlag::Ack],
            };
            let frame = build(&probe, MacAddr::new([1; 6]));
            assert_eq!(frame.len(), 34 + length);
            assert!(protocol != Protocol::Tcp || frame[34 + 13] == 0x12, "SYN and ACK");
            assert!(checksum::header_is_intact(&bytemuck::pod_read_unaligned(&frame[14..34])));
        }
    }
}
