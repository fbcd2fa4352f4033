//! The BGP speaker's part in the daemon: its routes go into the data path, and what the node has goes to its peers.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use ipnet::Ipv4Net;
use tracing::info;

use super::Daemon;
use crate::{
    config::Config,
    control::answers,
    rib::Source,
    source::bgp::{News, Settings, Speaker, Surroundings},
};

/// The next news of the speaker, if there is one; else it waits for ever.
pub(super) async fn next(speaker: &mut Option<Speaker>) -> Result<News> {
    match speaker {
        Some(speaker) => speaker.next().await,
        None => std::future::pending().await,
    }
}

impl Daemon {
    /// Starts the speaker, where there is one.
    ///
    /// # Errors
    ///
    /// Where a password file cannot be used.
    pub(super) fn start_bgp(&mut self) -> Result<()> {
        let Some(bgp) = &self.config.bgp else { return Ok(()) };
        // An earlier run left at least the node's own addresses.
        let preserved = self.routes.is_pending() || !self.held.is_empty();
        self.speaker = Some(Speaker::start(Settings::new(bgp)?, preserved)?);
        Ok(())
    }

    /// Follows another configuration of the speaker's; `settings` as read from it, `None` where there is to be no speaker.
    ///
    /// # Errors
    ///
    /// Where the speaker cannot be started: [`Self::start_missing_speaker`] tries again. As [`Self::apply_offers`].
    pub(super) async fn configure_bgp(&mut self, settings: Option<Settings>) -> Result<()> {
        match (&self.speaker, settings) {
            (Some(speaker), Some(settings)) => speaker.configure(settings),
            (None, Some(settings)) => self.speaker = Some(Speaker::start(settings, false)?),
            (_, None) => self.end_bgp().await?,
        }
        Ok(())
    }

    /// Starts the speaker that a reload could not start.
    pub(super) fn start_missing_speaker(&mut self) -> Result<()> {
        match &self.config.bgp {
            Some(bgp) if self.speaker.is_none() => {
                self.speaker = Some(Speaker::start(Settings::new(bgp)?, false)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends the speaker, and withdraws all that it learned; its peers are told.
    ///
    /// # Errors
    ///
    /// As [`Self::apply_offers`].
    pub(super) async fn end_bgp(&mut self) -> Result<()> {
        let Some(speaker) = self.speaker.take() else { return Ok(()) };
        speaker.shut_down().await;
        let learned: Vec<Ipv4Net> = self.rib.of(Source::Bgp).map(|(prefix, _)| prefix).collect();
        self.offer(Source::Bgp, learned.into_iter().map(|prefix| (prefix, None)));
        self.sweep_leftovers()
    }

    /// Takes what the speaker has to say into the data path.
    pub(super) fn heed(&mut self, news: News) {
        let result = match news {
            News::Changes(changes) => {
                self.offer(Source::Bgp, changes);
                self.apply_offers()
            }
            News::Converged => {
                info!("BGP: every peer has told its routes, or was waited for long enough");
                self.sweep_leftovers()
            }
        };
        // A success here says nothing of what else failed.
        if result.is_err() {
            self.retry.note(result);
        }
    }

    /// Withdraws what `config` no longer has, and waits a moment until the peers know, so that they send nothing
    /// more when the data path forgets it.
    pub(super) async fn withdraw_blocks(&self, config: &Config) {
        if let Some(speaker) = &self.speaker {
            let wanted = self.announced(config);
            speaker.announce(self.announced(&self.config).intersection(&wanted).copied().collect()).await;
        }
    }

    /// Tells the speaker what there is to announce, and what it must know of the node.
    pub(super) fn tell_speaker(&mut self) {
        let Some(speaker) = &self.speaker else { return };
        let surroundings = self.surroundings();
        if self.surroundings.as_ref() != Some(&surroundings) {
            speaker.set_surroundings(surroundings.clone());
            self.surroundings = Some(surroundings);
        }
        speaker.set_announced(self.announced(&self.config));
    }

    /// The blocks, and the containers outside them: one that took its address along, for instance.
    fn announced(&self, config: &Config) -> BTreeSet<Ipv4Net> {
        let outside = |address: &Ipv4Addr| !config.blocks.iter().any(|block| block.contains(address));
        let containers = self.containers(config).into_iter().filter(outside).map(Ipv4Net::from);
        config.blocks.iter().copied().chain(containers).collect()
    }

    fn containers(&self, config: &Config) -> BTreeSet<Ipv4Addr> {
        let configured = config.endpoints.iter().map(|endpoint| endpoint.address);
        self.policy.endpoints.iter().map(|(address, _)| *address).chain(configured).collect()
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            addresses: self.mirror.local_addresses().collect(),
            containers: self.containers(&self.config),
            blocks: self.config.blocks.iter().copied().collect(),
            connected: self.mirror.connected(),
            reach: self.mirror.reach(&self.policy),
        }
    }

    /// How the peers are.
    pub(super) async fn bgp_peers(&self) -> Result<Vec<answers::BgpPeer>> {
        match &self.speaker {
            Some(speaker) => speaker.peers().await,
            None => Ok(Vec::new()),
        }
    }

    /// A part of what was learned by BGP, and with the last part what is announced.
    pub(super) async fn bgp_routes(
        &self,
        refused: bool,
        after: Option<Ipv4Net>,
    ) -> Result<answers::BgpRoutes> {
        match &self.speaker {
            Some(speaker) => speaker.routes(refused, after).await,
            None => Ok(answers::BgpRoutes::default()),
        }
    }
}
