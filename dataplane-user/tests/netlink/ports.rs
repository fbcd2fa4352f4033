//! The host's sockets and the sysctls of its ports.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Result, ensure};
use dataplane::{
    kernel::{
        netlink::{BoundSocket, Sockets, Transport},
        reserved_ports::{PortSysctls, ReservedPorts},
    },
    port_set::PortSet,
};

use super::harness::on_a_node;

const LIST: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

fn bound_to(address: impl Into<Option<Ipv4Addr>>, port: u16) -> BoundSocket {
    BoundSocket { address: address.into(), port }
}

#[test]
fn sockets_are_listed_with_what_they_are_bound_to() {
    on_a_node(|| async {
        let sockets = Sockets::default();
        let loopback = Ipv4Addr::LOCALHOST;
        let _any = UdpSocket::bind("0.0.0.0:20000")?;
        let _both = UdpSocket::bind("[::]:20001")?;
        let _one = UdpSocket::bind("127.0.0.1:20002")?;
        let _below = UdpSocket::bind("127.0.0.1:19999")?;
        let _other_family = UdpSocket::bind("[::1]:20003")?;
        let mut found = sockets.bound(Transport::Udp, 20000).await?;
        found.sort_by_key(|socket| socket.port);
        let wanted = [bound_to(None, 20000), bound_to(None, 20001), bound_to(loopback, 20002)];
        ensure!(found == wanted, "{found:?}");
        ensure!(sockets.bound(Transport::Tcp, 20000).await?.is_empty());

        let listener = TcpListener::bind("127.0.0.1:20004")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let found = sockets.bound(Transport::Tcp, 1).await?;
        for port in [20004, client.local_addr()?.port()] {
            ensure!(found.contains(&bound_to(loopback, port)), "{found:?}");
        }
        Ok(())
    });
}

#[test]
fn more_sockets_than_a_datagram_has_room_for() {
    on_a_node(|| async {
        let bound = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
        // As many as the usual limit of open files has room for, and more than a datagram.
        let held = (20000..20900).map(bound).collect::<Result<Vec<_>, _>>()?;
        let found = Sockets::default().bound(Transport::Udp, 20000).await?;
        ensure!(found.len() == held.len(), "{} of {}", found.len(), held.len());
        Ok(())
    });
}

#[test]
fn ports_are_reserved_and_put_back() {
    on_a_node(|| async {
        let state_dir = tempfile::tempdir()?;
        let ports = |text: &str| PortSet::parse(text).unwrap();
        let reserved = ReservedPorts::new(state_dir.path());
        ensure!(PortSysctls::default().ephemeral()? == (32768..=60999));
        fs::write(LIST, "8080,50000")?;
        reserved.set(&ports("40960-60999"))?;
        ensure!(fs::read_to_string(LIST)?.trim() == "8080,40960-60999");
        // Somebody else adds to the list, with sysctl(8).
        fs::write(LIST, "8080,9000,40960-60999")?;
        let read = reserved.read()?;
        ensure!(read.others == ports("8080,9000,50000"), "{read:?}");
        reserved.put_back()?;
        ensure!(fs::read_to_string(LIST)?.trim() == "8080,9000,50000");
        ensure!(fs::read_dir(state_dir.path())?.next().is_none());
        Ok(())
    });
}

#[test]
fn a_long_list_is_read_and_written_as_a_whole() {
    on_a_node(|| async {
        let state_dir = tempfile::tempdir()?;
        let (odd, even): (PortSet, PortSet) =
            ((1..=u16::MAX).step_by(2).collect(), (40000..50000).step_by(2).collect());
        fs::write(LIST, odd.to_string())?;
        ensure!(PortSysctls::default().reserved()? == odd);
        let reserved = ReservedPorts::new(state_dir.path());
        reserved.set(&even)?;
        ensure!(PortSysctls::default().reserved()? == &odd | &even);
        reserved.put_back()?;
        ensure!(PortSysctls::default().reserved()? == odd);
        Ok(())
    });
}
