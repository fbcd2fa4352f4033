//! Traffic between namespaces, and what the kernel counted of it.

mod counters;
mod full;
mod load;
mod probe;
mod tcp;
mod udp;

pub use self::{
    counters::{ip_forw_datagrams, snmp, tcp_losses, tcp_retransmissions},
    full::{Way, under_load},
    load::{Account, Load},
    probe::{Hop, Ping, ping, ping_with, traceroute, traceroute_with},
    tcp::{TcpPair, Transfer, tcp_download, tcp_transfer},
    udp::{UdpPair, udp_exchange},
};
