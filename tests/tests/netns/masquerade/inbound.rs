//! Connections that begin outside, towards a container's own address: answers go back as they came.

use anyhow::{Result, ensure};
use tests::harness::traffic::{self, TcpPair, UdpPair};

use super::{Egress, FAR, NODE, require_root};

#[test]
fn answers_go_back_as_they_came() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    net.outside.ip(&format!("route add 172.19.35.0/24 via {NODE}"))?;
    // Connected sockets: an answer from another address or port does not reach them.
    traffic::ping(&net.outside, net.c1.address, 3)?.all_answered()?;
    let udp = UdpPair::new(&net.outside, &net.c1, net.c1.address)?;
    let seen_as = udp.exchange(b"from outside")?;
    ensure!(seen_as == udp.client.local_addr()?, "the container sees {seen_as}");
    let tcp = TcpPair::connect(&net.outside, &net.c1, net.c1.address)?;
    tcp.exchange()?;
    tcp.download(100_000)?;
    // What the container begins itself is translated as ever, to the same host, too.
    for to in [FAR, net.outside.address] {
        ensure!(UdpPair::new(&net.c1, &net.outside, to)?.exchange(b"from inside")?.ip() == NODE);
    }
    udp.exchange(b"still there")?;
    tcp.exchange()?;
    Ok(())
}
