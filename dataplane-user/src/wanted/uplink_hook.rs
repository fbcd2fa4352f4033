//! Where the program of an uplink runs: at tc alone, or at XDP before it.

use std::collections::BTreeMap;

use dataplane_common::uplink::{Uplink, slot};

use crate::{
    config::UplinkHook,
    kernel::netlink::{Device, Link},
    source::kernel::Mirror,
};

/// What is known of the uplinks' devices, by index.
#[derive(Debug, Default)]
pub struct Devices {
    /// What each can do.
    pub able: BTreeMap<u32, Device>,
    /// Why the kernel did not take the program.
    pub refused: BTreeMap<u32, String>,
}

/// What was decided for an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The uplink.
    pub ifindex: u32,
    /// Whether the program runs at XDP, too.
    pub xdp: bool,
    /// Why, in words.
    pub why: String,
    /// The file asks for XDP, and it cannot be.
    pub is_disappointing: bool,
}

/// Features that XDP takes from a device: many small packets make one large one there, which the stack then carries at
/// the cost of one.
const AGGREGATION: [&str; 2] = ["rx-gro-hw", "rx-lro"];

/// Where the program of each uplink runs, of a node with these links; `asked` says what the file does, and
/// `translates` whether it has rules.
pub fn choose(
    asked: UplinkHook,
    translates: bool,
    links: &[&Link],
    devices: &Devices,
    uplinks: &[&Link],
) -> Vec<Choice> {
    let mut slots = BTreeMap::new();
    for link in uplinks {
        slots.entry(slot(link.index)).or_insert(link.index);
    }
    let is_gateway = uplinks.len() > 1 && translates;
    let choose = |link: &&Link| {
        let obstacle = || {
            let taken = (slots[&slot(link.index)] != link.index)
                .then(|| "the slot for its index is another uplink's".to_owned());
            taken.or_else(|| obstacle(links, devices, link))
        };
        let (xdp, why) = match asked {
            UplinkHook::Tc => (false, "configured".to_owned()),
            UplinkHook::Xdp => match obstacle() {
                Some(obstacle) => (false, obstacle),
                None => (true, "configured".to_owned()),
            },
            UplinkHook::Auto => match drawback(devices, link, is_gateway).or_else(obstacle) {
                Some(why) => (false, why),
                None => (true, "a gateway's uplink, and its driver has native XDP".to_owned()),
            },
        };
        let is_disappointing = !xdp && asked == UplinkHook::Xdp;
        Choice { ifindex: link.index, xdp, why, is_disappointing }
    };
    uplinks.iter().map(choose).collect()
}

/// Why the program cannot run at the uplink's XDP.
fn obstacle(links: &[&Link], devices: &Devices, link: &Link) -> Option<String> {
    if let Some(refusal) = devices.refused.get(&link.index) {
        return Some(refusal.clone());
    }
    if let Some(vlan) = links.iter().find(|other| other.vlan_of == Some(link.index)) {
        return Some(format!(
            "it carries the VLAN of {}, and the device may take the tags off before XDP sees them",
            vlan.name
        ));
    }
    if link.kind.as_deref() == Some("bond") {
        return Some("it is a bond, and the program would run at its members".to_owned());
    }
    let device = devices.able.get(&link.index)?;
    (device.xdp.is_some() && !device.can(Device::XDP_NATIVE))
        .then(|| "its driver has no native XDP".to_owned())
}

/// Why XDP would make nothing faster there, or something slower.
fn drawback(devices: &Devices, link: &Link, is_gateway: bool) -> Option<String> {
    if !is_gateway {
        return Some(
            "no packet goes from one uplink to another, and tc delivers to containers as fast".to_owned(),
        );
    }
    if let Some(kind) = &link.kind {
        return Some(format!("{kind}: XDP would turn off segmentation offload, and bulk TCP would suffer"));
    }
    let Some(device) = devices.able.get(&link.index).filter(|device| device.xdp.is_some()) else {
        return Some("the kernel does not tell what its driver can do (Linux 6.3 does)".to_owned());
    };
    let feature = device.features.iter().find(|feature| AGGREGATION.contains(&feature.as_str()))?;
    Some(format!("XDP would turn off its {feature}, and bulk TCP would suffer (`ethtool -K` turns it off)"))
}

/// The rows of the table that the program at XDP reads: none, where it runs nowhere.
pub fn table(choices: &[Choice], mirror: &Mirror, devices: &Devices) -> Vec<Uplink> {
    if !choices.iter().any(|choice| choice.xdp) {
        return Vec::new();
    }
    let row = |choice: &Choice| {
        let link = mirror.link(choice.ifindex)?;
        let device = devices.able.get(&link.index);
        let can = |features| device.is_some_and(|device| device.can(features));
        // A kernel that does not tell: a driver with XDP transmits, too, but for a veth only while its other end polls.
        let is_guess = device.is_none_or(|device| device.xdp.is_none()) && choice.xdp && link.kind.is_none();
        let mut flags = 0;
        if can(Device::XDP_TRANSMIT) || is_guess {
            flags |= Uplink::TAKES_FRAMES;
        }
        if can(Device::XDP_TRANSMIT | Device::XDP_TRANSMIT_SCATTERED) {
            flags |= Uplink::TAKES_SCATTERED;
        }
        link.up.then_some(Uplink { ifindex: link.index, mac: link.mac?, flags })
    };
    choices.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: u64 = Device::XDP_NATIVE | Device::XDP_TRANSMIT;

    fn link(index: u32, kind: Option<&str>) -> Link {
        Link {
            index,
            name: format!("eth{index}"),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet: true,
            kind: kind.map(str::to_owned),
            peer: None,
            vlan_of: None,
        }
    }

    fn devices(features: &[(u32, Option<u64>, &[&str])]) -> Devices {
        let able = features.iter().map(|(index, xdp, features)| {
            let features = features.iter().map(|feature| (*feature).to_owned()).collect();
            (*index, Device { xdp: *xdp, features })
        });
        Devices { able: able.collect(), refused: BTreeMap::new() }
    }

    /// The choice for the first of these uplinks.
    fn first(asked: UplinkHook, translates: bool, devices: &Devices, links: &[Link]) -> Choice {
        let links: Vec<&Link> = links.iter().collect();
        let uplinks: Vec<&Link> = links.iter().copied().filter(|link| link.vlan_of.is_none()).collect();
        choose(asked, translates, &links, devices, &uplinks).swap_remove(0)
    }

    #[test]
    fn a_gateway_with_native_xdp_uses_it_by_itself_and_a_node_does_not() {
        let links = [link(2, None), link(3, None)];
        let devices = devices(&[(2, Some(NATIVE), &["rx-gro"]), (3, Some(NATIVE), &[])]);
        assert!(first(UplinkHook::Auto, true, &devices, &links).xdp);
        for (translates, links) in [(false, &links[..]), (true, &links[..1])] {
            let choice = first(UplinkHook::Auto, translates, &devices, links);
            assert!(
                !choice.xdp && !choice.is_disappointing && choice.why.contains("no packet goes"),
                "{choice:?}"
            );
        }
        assert!(!first(UplinkHook::Tc, true, &devices, &links).xdp);
    }

    #[test]
    fn what_would_become_slower_stays_at_tc_unless_asked_for() {
        let cases = [
            (link(2, Some("veth")), Some(NATIVE), &[][..], "veth"),
            (link(2, None), None, &[], "Linux 6.3"),
            (link(2, None), Some(NATIVE), &["rx-gro-hw"], "turn off its rx-gro-hw"),
        ];
        for (uplink, xdp, features, why) in cases {
            let links = [uplink, link(3, None)];
            let devices = devices(&[(2, xdp, features), (3, Some(NATIVE), &[])]);
            let choice = first(UplinkHook::Auto, true, &devices, &links);
            assert!(!choice.xdp && choice.why.contains(why), "{choice:?}");
            assert!(first(UplinkHook::Xdp, true, &devices, &links).xdp, "{why}");
        }
    }

    #[test]
    fn what_cannot_be_is_said_and_disappoints_only_who_asked_for_it() {
        let vlan = Link { vlan_of: Some(2), ..link(9, Some("vlan")) };
        let mut refused = devices(&[(2, Some(NATIVE), &[])]);
        refused.refused.insert(2, "somebody else is there".to_owned());
        let native = || devices(&[(2, Some(NATIVE), &[]), (3, Some(NATIVE), &[])]);
        let cases = [
            (vec![link(2, None), link(3, None), vlan], native(), "it carries the VLAN of eth9"),
            (vec![link(2, Some("bond")), link(3, None)], native(), "bond"),
            (vec![link(2, None), link(3, None)], devices(&[(2, Some(0), &[])]), "no native XDP"),
            (vec![link(2, None), link(3, None)], refused, "somebody else is there"),
        ];
        for (links, devices, why) in cases {
            let choice = first(UplinkHook::Xdp, true, &devices, &links);
            assert!(!choice.xdp && choice.is_disappointing && choice.why.contains(why), "{choice:?}");
            let choice = first(UplinkHook::Auto, true, &devices, &links);
            assert!(!choice.xdp && !choice.is_disappointing, "{choice:?}");
        }
    }

    #[test]
    fn of_two_uplinks_with_one_slot_the_first_has_it() {
        let links = [link(3, None), link(259, None)];
        let all: Vec<&Link> = links.iter().collect();
        let devices = devices(&[(3, Some(NATIVE), &[]), (259, Some(NATIVE), &[])]);
        let choices = choose(UplinkHook::Xdp, true, &all, &devices, &all);
        assert!(choices[0].xdp && !choices[1].xdp && choices[1].why.contains("slot"), "{choices:?}");
    }
}
