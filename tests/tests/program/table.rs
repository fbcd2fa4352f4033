//! The tables in real BPF maps: what the daemon leaves there, and finds again.

#[path = "table/maps.rs"]
mod maps;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use bytemuck::Zeroable as _;
use dataplane::{
    datapath::{Claim, Full},
    wanted::Destination,
};
use dataplane_common::{
    endpoint::Endpoint,
    net::{Ipv4Be, MacAddr, MacPair},
    next_hop::NextHop,
    reason::Reason,
    stats::Hook,
};
use ipnet::Ipv4Net;
use tests::harness::{
    packet::{Frame, Ipv4},
    skip::skip_without_root,
};

use crate::{
    packets::udp,
    programs::{Interface, MAX_ENDPOINTS, Packet, Programs, SIZES, action},
};

fn endpoint(address: Ipv4Addr, veth: Interface) -> Destination {
    Destination::Endpoint(Endpoint {
        address: address.into(),
        ifindex: veth.ifindex,
        mtu: 1500,
        macs: MacPair::new(MacAddr::new([0x02, 0xc0, 0, 0, 0, 1]), veth.mac),
        flags: 0,
        reserved: [0; 9],
    })
}

fn container(number: u32) -> Ipv4Addr {
    (Ipv4Addr::new(172, 19, 35, 0).to_bits() + number).into()
}

/// A datagram to that address, come in by an uplink.
fn inbound(to: Ipv4Addr, uplink: Interface) -> Packet {
    let frame = Frame::new([2; 6], uplink.mac.octets(), Ipv4::new([203, 0, 113, 9], to, udp()));
    Packet { hook: Hook::FromUplink, ifindex: uplink.ifindex, frame: frame.bytes(), gso_size: 0 }
}

#[test]
fn a_daemon_takes_over_what_another_left() -> Result<()> {
    if skip_without_root("a_daemon_takes_over_what_another_left") {
        return Ok(());
    }
    let mut programs = Programs::new(&["cali1", "eth0"], SIZES)?;
    let (cali1, eth0) = (programs.interface("cali1"), programs.interface("eth0"));
    let routes: Vec<(Ipv4Net, Destination)> = vec![
        ("172.19.35.0/24".parse()?, Destination::Block),
        (container(2).into(), endpoint(container(2), cali1)),
        (container(3).into(), endpoint(container(3), cali1)),
        ("224.0.0.0/4".parse()?, Destination::Kernel(Reason::Multicast)),
    ];
    programs.enter(|runner| {
        for (prefix, destination) in &routes {
            runner.set(*prefix, *destination)?;
        }
        runner.run(&inbound(container(2), eth0))?;
        let counts = runner.counts()?;

        let mut follower = runner.reopen()?;
        assert_eq!(follower.prefixes().len(), routes.len());
        for (prefix, destination) in &routes {
            assert_eq!(follower.get(*prefix), Some(*destination), "{prefix}");
        }
        assert_eq!(follower.endpoint_slots(), (2, MAX_ENDPOINTS));
        assert_eq!(follower.lookup(container(9)), Some(("172.19.35.0/24".parse()?, Destination::Block)));
        let kept = follower.counters()?.into_iter().filter(|(.., counter)| counter.packets > 0);
        assert_eq!(kept.collect::<Vec<_>>(), counts);

        // The programs that were there before see what the follower writes, and that it overwrites no slot.
        follower.set(container(4).into(), Some(endpoint(container(4), eth0)), Claim::Own)?;
        follower.set(container(2).into(), None, Claim::Own)?;
        let action_for = |address| inbound(address, eth0);
        assert_eq!(runner.run(&action_for(container(4)))?.action, action::REDIRECT);
        assert_eq!(runner.run(&action_for(container(3)))?.action, action::REDIRECT);
        assert_eq!(runner.run(&action_for(container(2)))?.action, action::DROP);
        Ok(())
    })
}

#[test]
fn a_table_that_is_damaged_is_not_taken_over() -> Result<()> {
    if skip_without_root("a_table_that_is_damaged_is_not_taken_over") {
        return Ok(());
    }
    let mut network = crate::network::Network::new()?;
    network.programs.enter(|runner| {
        let error = runner.reopen().err().context("it was taken over")?;
        assert!(format!("{error:#}").contains("the table must be rebuilt"), "{error:#}");
        Ok(())
    })
}

#[test]
fn a_full_endpoint_table_says_so_and_stays_as_it_is() -> Result<()> {
    if skip_without_root("a_full_endpoint_table_says_so_and_stays_as_it_is") {
        return Ok(());
    }
    let mut programs = Programs::new(&["cali1", "eth0"], SIZES)?;
    let (cali1, eth0) = (programs.interface("cali1"), programs.interface("eth0"));
    programs.enter(|runner| {
        for number in 0..MAX_ENDPOINTS {
            runner.set(container(number).into(), endpoint(container(number), cali1))?;
        }
        let (next, wanted) = (container(MAX_ENDPOINTS), endpoint(container(MAX_ENDPOINTS), cali1));
        let error = runner.set(next.into(), wanted).err().context("there was room")?;
        assert!(format!("{error:#}").contains("raise `datapath.max-endpoints`"), "{error:#}");
        assert_eq!(runner.datapath().get(next.into()), None);
        assert_eq!(runner.run(&inbound(next, eth0))?.action, action::PASS);

        // One that goes makes room, and its slot is another's from then on.
        runner.set(container(7).into(), None)?;
        runner.set(next.into(), wanted)?;
        assert_eq!(runner.datapath().endpoint_slots(), (MAX_ENDPOINTS as usize, MAX_ENDPOINTS));
        for number in 0..=MAX_ENDPOINTS {
            let found = runner.run(&inbound(container(number), eth0))?.action;
            assert_eq!(found, if number == 7 { action::PASS } else { action::REDIRECT }, "{number}");
        }
        Ok(())
    })
}

/// As many routers as others announce: the node's own routes still find room.
#[test]
fn learned_routes_leave_room_in_the_next_hop_table() -> Result<()> {
    if skip_without_root("learned_routes_leave_room_in_the_next_hop_table") {
        return Ok(());
    }
    let mut programs = Programs::new(&["cali1", "eth0"], SIZES)?;
    let eth0 = programs.interface("eth0");
    programs.enter(|runner| {
        let datapath = runner.datapath();
        let by = |router: u32| {
            let gateway = Ipv4Be::from_host(0x0a8d_0000 + router);
            Some(Destination::NextHop(NextHop {
                gateway,
                ifindex: eth0.ifindex,
                mtu: 1500,
                ..NextHop::zeroed()
            }))
        };
        let prefix = |number: u32| Ipv4Net::from(Ipv4Addr::from_bits(0x0b00_0000 + number));
        let (_, all) = datapath.next_hop_slots();
        let learned = datapath.room(Full::NextHops, Claim::Learned) as u32;
        assert!((all / 2..all).contains(&learned), "{learned} of {all}");
        for number in 0..learned {
            datapath.set(prefix(number), by(number), Claim::Learned)?;
        }
        let refused =
            datapath.set(prefix(learned), by(learned), Claim::Learned).err().context("there was room")?;
        assert_eq!(refused.downcast_ref(), Some(&Full::NextHops));
        // By a router that is there already, and the node's own.
        datapath.set(prefix(learned), by(0), Claim::Learned)?;
        datapath.set(prefix(learned + 1), by(learned), Claim::Own)?;
        datapath.set(prefix(0), by(learned + 1), Claim::Own)
    })
}
