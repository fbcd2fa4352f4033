//! What the programs show to monitors.

use anyhow::{Result, ensure};
use dataplane::kernel::monitor::{Listener, Wanted};
use dataplane_common::{
    monitor::{Event, MONITOR_SLOTS, SNAPSHOT, bits},
    reason::{Class, Reason},
};
use tests::harness::skip::skip_without_root;

use crate::{
    network::{Network, OUTSIDE},
    packets::{Sent, inbound, tcp, udp},
    programs::Runner,
};

const EVERYTHING: Wanted =
    Wanted { reasons: bits(Class::Drop) | bits(Class::Pass), ifindex: None, address: None, limit: 1000 };

fn events(listener: &mut Listener) -> Vec<Event> {
    listener.collect()
}

/// Runs the packets, and gives the reasons that the listener was shown.
fn reasons(runner: &mut Runner, listener: &mut Listener, packets: &[Sent]) -> Result<Vec<u32>> {
    for sent in packets {
        runner.run(&sent.packet())?;
    }
    Ok(events(listener).iter().map(|event| event.reason).collect())
}

#[test]
fn an_event_has_the_packet_as_it_came() -> Result<()> {
    if skip_without_root("an_event_has_the_packet_as_it_came") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let cases = [
        (network.c1.sends([172, 19, 35, 99], udp()), Reason::NoEndpoint),
        (network.c1.sends([172, 19, 35, 99], tcp(3000)).in_segments_of(1448), Reason::NoEndpoint),
        (network.c1.sends([10, 141, 0, 1], udp()), Reason::ToHost),
        (inbound(network.eth0, OUTSIDE, [172, 19, 40, 99], udp()), Reason::NoEndpoint),
        (
            inbound(network.eth0, OUTSIDE, [192, 0, 2, 1], udp()).altered(|frame| frame.truncate(34)),
            Reason::Malformed,
        ),
    ];
    network.programs.enter(|runner| {
        let mut listener = runner.listen(&EVERYTHING)?;
        for (sent, reason) in &cases {
            let packet = sent.packet();
            runner.run(&packet)?;
            let shown = events(&mut listener);
            ensure!(shown.len() == 1, "{} events for {sent:?}", shown.len());
            let captured = packet.frame.len().min(SNAPSHOT);
            let event = shown[0];
            assert_eq!((event.hook, event.reason), (packet.hook as u32, *reason as u32), "{sent:?}");
            assert_eq!((event.ifindex, event.length), (packet.ifindex, packet.frame.len() as u32));
            assert_eq!((event.segment, event.captured), (packet.gso_size.into(), captured as u32));
            assert_eq!(event.bytes[..captured], packet.frame[..captured]);
        }
        assert!(listener.suppressed()?.is_empty());
        Ok(())
    })
}

#[test]
fn only_what_is_wanted_is_shown() -> Result<()> {
    if skip_without_root("only_what_is_wanted_is_shown") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let n = &network;
    let packets = [
        n.c1.sends([172, 19, 35, 99], udp()),
        n.c1.sends([10, 141, 0, 1], udp()),
        n.c1.sends(n.c2.address, udp()),
        n.c2.sends([172, 19, 35, 98], udp()),
        inbound(n.eth0, OUTSIDE, [172, 19, 35, 99], udp()),
    ];
    let (dropped, passed) = (Reason::NoEndpoint as u32, Reason::ToHost as u32);
    let cases = [
        (EVERYTHING, vec![dropped, passed, dropped, dropped]),
        (Wanted { reasons: bits(Class::Drop), ..EVERYTHING }, vec![dropped; 3]),
        (Wanted { reasons: bits(Class::Pass), ..EVERYTHING }, vec![passed]),
        (Wanted { ifindex: Some(n.c2.veth.ifindex), ..EVERYTHING }, vec![dropped]),
        (Wanted { address: Some([172, 19, 35, 99].into()), ..EVERYTHING }, vec![dropped; 2]),
        (Wanted { address: Some(n.c1.address), ..EVERYTHING }, vec![dropped, passed]),
        (Wanted { address: Some([192, 0, 2, 77].into()), ..EVERYTHING }, vec![]),
    ];
    network.programs.enter(|runner| {
        for (wanted, expected) in cases {
            let mut listener = runner.listen(&wanted)?;
            assert_eq!(reasons(runner, &mut listener, &packets)?, expected, "{wanted:?}");
        }
        Ok(())
    })
}

#[test]
fn monitors_do_not_disturb_each_other() -> Result<()> {
    if skip_without_root("monitors_do_not_disturb_each_other") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let sent = [network.c1.sends([172, 19, 35, 99], udp())];
    let dropped = Reason::NoEndpoint as u32;
    network.programs.enter(|runner| {
        let mut listeners =
            (0..MONITOR_SLOTS).map(|_| runner.listen(&EVERYTHING)).collect::<Result<Vec<_>>>()?;
        for sent in &sent {
            runner.run(&sent.packet())?;
        }
        for listener in &mut listeners {
            assert_eq!(reasons(runner, listener, &[])?, [dropped]);
        }
        let one_more = runner.listen(&EVERYTHING).err().map(|error| error.to_string());
        ensure!(one_more.as_ref().is_some_and(|error| error.contains("end one of them")), "{one_more:?}");
        // One ends: the others see what they saw, and its place is free.
        drop(listeners.remove(1));
        assert_eq!(reasons(runner, &mut listeners[2], &sent)?, [dropped]);
        let mut another = runner.listen(&EVERYTHING)?;
        assert_eq!(reasons(runner, &mut another, &sent)?, [dropped]);
        drop((another, listeners));
        let mut afterwards = runner.listen(&EVERYTHING)?;
        assert!(reasons(runner, &mut afterwards, &[])?.is_empty());
        Ok(())
    })
}

#[test]
fn what_exceeds_the_limit_is_counted() -> Result<()> {
    if skip_without_root("what_exceeds_the_limit_is_counted") {
        return Ok(());
    }
    const PACKETS: usize = 2000;
    let mut network = Network::new()?;
    let flood = vec![network.c1.sends([172, 19, 35, 99], udp()); PACKETS];
    let other = [network.c1.sends([10, 141, 0, 1], udp())];
    network.programs.enter(|runner| {
        let mut listener = runner.listen(&Wanted { limit: 3, ..EVERYTHING })?;
        // Nobody renews it meanwhile: that the run is done within the lease is not for this test to rely on.
        let shown = reasons(runner, &mut listener, &flood)?.len();
        let suppressed = listener.suppressed()?;
        ensure!(shown >= 3, "{shown} shown");
        let [(Reason::NoEndpoint, count)] = suppressed[..] else { panic!("{suppressed:?}") };
        ensure!(shown + count as usize <= PACKETS, "{shown} shown and {count} not, of {PACKETS}");
        assert!(listener.suppressed()?.is_empty(), "told twice");
        // Another reason has a budget of its own.
        listener.renew()?;
        assert_eq!(reasons(runner, &mut listener, &other)?, [Reason::ToHost as u32]);
        Ok(())
    })
}

#[test]
fn a_full_ring_is_counted() -> Result<()> {
    if skip_without_root("a_full_ring_is_counted") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let packet = network.c1.sends([172, 19, 35, 99], udp()).packet();
    network.programs.enter(|runner| {
        let mut listener = runner.listen(&Wanted { limit: u32::MAX, ..EVERYTHING })?;
        const PACKETS: usize = 4000;
        for _ in 0..PACKETS {
            listener.renew()?;
            runner.run(&packet)?;
        }
        let (shown, suppressed) = (events(&mut listener).len(), listener.suppressed()?);
        assert_eq!(suppressed, [(Reason::NoEndpoint, (PACKETS - shown) as u64)]);
        runner.run(&packet)?;
        assert_eq!(events(&mut listener).len(), 1, "it goes on when there is room again");
        Ok(())
    })
}
