//! What must be asked of the kernel besides: MAC addresses behind veths, and what the uplinks' devices can do.

use anyhow::Result;
use dataplane_common::net::MacAddr;
use tracing::{debug, warn};

use super::Daemon;
use crate::{
    kernel::netlink::{Device, Link},
    wanted,
};

impl Daemon {
    /// Asks for the MACs of the containers behind veths that may be endpoints and are not known yet.
    pub(super) async fn learn_macs(&mut self) -> Result<()> {
        let mirror = &self.mirror;
        self.former_macs.retain(|index, _| mirror.link(*index).is_some());
        let configured = self.config.endpoints.iter().filter_map(|e| self.mirror.link_by_name(&e.interface));
        let discovered = wanted::discovered(&self.config, &self.mirror);
        let discovered = discovered.iter().filter_map(|(_, index)| self.mirror.link(*index));
        let unknown: Vec<Link> = configured
            .chain(discovered)
            .filter(|link| !self.macs.contains_key(&link.index))
            .cloned()
            .collect();
        for link in unknown {
            let Some(peer) = link.peer else { continue };
            match self.netlink.peer_mac(peer).await {
                Ok(Some(mac)) => {
                    self.macs.insert(link.index, mac);
                    self.follow_mac(&link, mac).await;
                }
                // It is on its way in or out; an event follows.
                Ok(None) => debug!("no peer behind {} now", link.name),
                Err(error) => warn!("cannot ask for the peer of {}: {error:#}", link.name),
            }
        }
        Ok(())
    }

    /// Has the kernel follow a container's new MAC address, too: it would find out half a minute later, when its neighbour
    /// entry fails.
    async fn follow_mac(&mut self, link: &Link, mac: MacAddr) {
        let Some(former) = self.former_macs.remove(&link.index).filter(|former| *former != mac) else {
            return;
        };
        if let Err(error) = self.netlink.change_neighbours(link.index, former, mac).await {
            warn!("the kernel does not follow the new MAC address behind {} at once: {error:#}", link.name);
        }
    }

    /// Asks what the uplinks' devices can do, where that is not known. What cannot be learned keeps nothing from being
    /// forwarded: tc serves every device.
    pub(super) async fn learn_devices(&mut self) {
        for link in wanted::uplink_links(&self.config, &self.mirror, &self.found_uplinks) {
            if !self.devices.able.contains_key(&link.index) {
                let device = self.netlink.device(link.index).await.unwrap_or_else(|error| {
                    warn!("{} is taken for one that tells nothing of XDP: {error:#}", link.name);
                    Device::default()
                });
                self.devices.able.insert(link.index, device);
            }
        }
    }
}
