//! Where the program of an uplink runs: at tc alone, or at XDP before it.

use std::collections::BTreeMap;

use dataplane_common::uplink::{Uplink, slot};

use crate::{
    config::{Config, UplinkHook},
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

/// Where the program of each uplink runs.
pub fn choose(config: &Config, mirror: &Mirror, devices: &Devices, uplinks: &[&Link]) -> Vec<Choice> {
    let mut slots = BTreeMap::new();
    for link in uplinks {
        slots.entry(slot(link.index)).or_insert(link.index);
    }
    let is_gateway = uplinks.len() > 1 && !config.masquerade.is_empty();
    let choose = |link: &&Link| {
        let obstacle = || {
            let taken = (slots[&slot(link.index)] != link.index)
                .then(|| "the slot for its index is another uplink's".to_owned());
            taken.or_else(|| obstacle(mirror, devices, link))
        };
        let (xdp, why) = match config.datapath.uplink_hook {
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
        let is_disappointing = !xdp && config.datapath.uplink_hook == UplinkHook::Xdp;
        Choice { ifindex: link.index, xdp, why, is_disappointing }
    };
    uplinks.iter().map(choose).collect()
}

/// Why the program cannot run at the uplink's XDP.
fn obstacle(mirror: &Mirror, devices: &Devices, link: &Link) -> Option<String> {
    if let Some(refusal) = devices.refused.get(&link.index) {
        return Some(refusal.clone());
    }
    if let Some(vlan) = mirror.links().find(|other| other.vlan_of == Some(link.index)) {
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
