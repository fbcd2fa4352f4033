//! What devices can do: generic netlink, families `netdev` (Linux 6.3, Documentation/netlink/specs/netdev.yaml) and
//! `ethtool` (Linux 5.6, Documentation/networking/ethtool-netlink.rst).

use anyhow::{Result, bail};
use netlink_packet_core::{NLM_F_ACK, NetlinkMessage};

use super::{
    decode::{Message, for_each_attribute, split, text_of, u32_of, u64_of},
    exchange::{Answer, Requests},
    raw::{self, Raw, attribute},
    types::Event,
};

/// `struct genlmsghdr`.
const HEADER: usize = 4;
const VERSION: u8 = 1;
const NLA_F_NESTED: u16 = 1 << 15;

/// The family of families (`linux/genetlink.h`).
mod control {
    pub const ID: u16 = 0x10;
    pub const GET_FAMILY: u8 = 3;
    pub const FAMILY_ID: u16 = 1;
    pub const FAMILY_NAME: u16 = 2;
    pub const GROUPS: u16 = 7;
    pub const GROUP_NAME: u16 = 1;
    pub const GROUP_ID: u16 = 2;
}

/// `linux/netdev.h`.
mod netdev {
    pub const NAME: &str = "netdev";
    pub const EVENTS: &str = "mgmt";
    pub const DEV_GET: u8 = 1;
    pub const CHANGED: u8 = 4;
    pub const IFINDEX: u16 = 1;
    pub const XDP_FEATURES: u16 = 3;
}

/// `linux/ethtool_netlink.h`.
mod ethtool {
    pub const NAME: &str = "ethtool";
    pub const FEATURES_GET: u8 = 11;
    pub const FEATURES_HEADER: u16 = 1;
    pub const DEV_INDEX: u16 = 1;
    pub const FEATURES_ACTIVE: u16 = 4;
    pub const BITSET_BITS: u16 = 3;
    pub const BIT_NAME: u16 = 2;
}

/// What a device can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `NETDEV_XDP_ACT_*` of `linux/netdev.h`; `None` where the kernel does not tell.
    pub xdp: Option<u64>,
    /// The names of its features that are on, as `ethtool -k` shows them.
    pub features: Vec<String>,
}

impl Device {
    /// XDP programs run in the driver and may redirect (`NETDEV_XDP_ACT_BASIC`, `_REDIRECT`).
    pub const XDP_NATIVE: u64 = 1 | 2;
    /// Frames can be redirected to it (`NETDEV_XDP_ACT_NDO_XMIT`).
    pub const XDP_TRANSMIT: u64 = 4;
    /// Those in several pieces, too (`NETDEV_XDP_ACT_NDO_XMIT_SG`).
    pub const XDP_TRANSMIT_SCATTERED: u64 = 64;

    /// Whether it can do all of that; no, where that is not known.
    pub fn can(&self, features: u64) -> bool {
        self.xdp.is_some_and(|xdp| xdp & features == features)
    }
}

fn request(family: u16, command: u8, attributes: &[u8]) -> NetlinkMessage<Raw> {
    raw::request(family, NLM_F_ACK, [&[command, VERSION, 0, 0], attributes].concat())
}

/// A family, as this kernel has it.
#[derive(Default)]
struct Family {
    id: u16,
    groups: Vec<(String, u32)>,
}

/// `None` where the kernel does not have it.
async fn family(requests: &Requests, name: &str) -> Result<Option<Family>> {
    let name = attribute(control::FAMILY_NAME, &[name.as_bytes(), &[0]].concat());
    let mut family = Family::default();
    let answer = requests.exchange(request(control::ID, control::GET_FAMILY, &name), |payload| {
        let (_, attributes) = split::<HEADER>(payload)?;
        for_each_attribute(attributes, |kind, value| {
            match kind {
                control::FAMILY_ID => family.id = u16::from_ne_bytes(value.try_into()?),
                control::GROUPS => for_each_attribute(value, |_, group| {
                    family.groups.push(read_group(group)?);
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })
    });
    Ok(match answer.await? {
        Answer::Complete | Answer::Interrupted => Some(family),
        Answer::Refused(refusal) if refusal.errno == libc::ENOENT => None,
        Answer::Refused(refusal) => return Err(refusal.into()),
    })
}

fn read_group(attributes: &[u8]) -> Result<(String, u32)> {
    let mut group = (String::new(), 0);
    for_each_attribute(attributes, |kind, value| {
        match kind {
            control::GROUP_NAME => group.0 = text_of(value),
            control::GROUP_ID => group.1 = u32_of(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(group)
}

/// The group that hears of changes.
pub(super) async fn event_group(requests: &Requests) -> Result<Option<u32>> {
    let Some(family) = family(requests, netdev::NAME).await? else { return Ok(None) };
    Ok(family.groups.into_iter().find(|(name, _)| name == netdev::EVENTS).map(|(_, id)| id))
}

/// Asks for everything about a device.
pub(super) async fn ask(requests: &Requests, ifindex: u32) -> Result<Device> {
    let mut device = Device::default();
    if let Some(family) = family(requests, netdev::NAME).await? {
        let which = attribute(netdev::IFINDEX, &ifindex.to_ne_bytes());
        let answer = requests.exchange(request(family.id, netdev::DEV_GET, &which), |payload| {
            device.xdp = read_device(payload)?.1;
            Ok(())
        });
        forgive_absence(answer.await?)?;
    }
    if let Some(family) = family(requests, ethtool::NAME).await? {
        let which = attribute(ethtool::DEV_INDEX, &ifindex.to_ne_bytes());
        let header = attribute(ethtool::FEATURES_HEADER | NLA_F_NESTED, &which);
        let answer = requests.exchange(request(family.id, ethtool::FEATURES_GET, &header), |payload| {
            device.features = read_features(payload)?;
            Ok(())
        });
        forgive_absence(answer.await?)?;
    }
    Ok(device)
}

/// A device may go at any moment, and an old kernel may know the family and not the request.
fn forgive_absence(answer: Answer) -> Result<()> {
    match answer {
        Answer::Refused(refusal) if !matches!(refusal.errno, libc::ENODEV | libc::EOPNOTSUPP) => {
            bail!(refusal)
        }
        _ => Ok(()),
    }
}

fn read_device(payload: &[u8]) -> Result<(u32, Option<u64>)> {
    let (_, attributes) = split::<HEADER>(payload)?;
    let (mut ifindex, mut xdp) = (0, None);
    for_each_attribute(attributes, |kind, value| {
        match kind {
            netdev::IFINDEX => ifindex = u32_of(value)?,
            netdev::XDP_FEATURES => xdp = Some(u64_of(value)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok((ifindex, xdp))
}

/// The names of the bits that are set in the set of active features.
fn read_features(payload: &[u8]) -> Result<Vec<String>> {
    let (_, attributes) = split::<HEADER>(payload)?;
    let mut names = Vec::new();
    let within = |attributes: &[u8], wanted: u16, each: &mut dyn FnMut(&[u8]) -> Result<()>| {
        for_each_attribute(attributes, |kind, value| if kind == wanted { each(value) } else { Ok(()) })
    };
    within(attributes, ethtool::FEATURES_ACTIVE, &mut |set| {
        within(set, ethtool::BITSET_BITS, &mut |bits| {
            for_each_attribute(bits, |_, bit| {
                within(bit, ethtool::BIT_NAME, &mut |name| {
                    names.push(text_of(name));
                    Ok(())
                })
            })
        })
    })?;
    Ok(names)
}

/// The event that a message of the group is.
pub(super) fn event(message: &Message<'_>, _netnsid: Option<i32>) -> Result<Option<Event>> {
    let (header, _) = split::<HEADER>(message.payload)?;
    if header[0] != netdev::CHANGED {
        return Ok(None);
    }
    Ok(Some(Event::Device(read_device(message.payload)?.0)))
}
