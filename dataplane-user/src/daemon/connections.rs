//! Connections that the kernel decides (`netfilter = "respect"`): what the thread that carries them is told.

use anyhow::Result;
use aya::Ebpf;

use super::Daemon;
use crate::{
    config::Config,
    kernel::pinned::Pinned,
    respect::{self, Respect, Settings},
};

/// Ends what a daemon before left that decided otherwise, and starts the thread, where the kernel decides.
///
/// # Errors
///
/// As [`Respect::start`].
pub(super) fn start(config: &Config, object: &mut Ebpf) -> Result<Option<Respect>> {
    let pinned = Pinned::find(Some(&config.node.bpf_dir), &config.node.state_dir)?;
    respect::end_leftovers(&pinned, config.respects())?;
    match config.respects() {
        true => Respect::start(object, pinned, settings(config, None)).map(Some),
        false => Ok(None),
    }
}

/// What holds by that configuration.
fn settings(config: &Config, paused: Option<String>) -> Settings {
    Settings { skip_mark: config.datapath.skip_mark, skip: config.datapath.skip.clone(), paused }
}

impl Daemon {
    /// Follows configuration, policy routing and IPsec policies.
    pub(super) fn tell_respect(&self) {
        let Some(respect) = &self.respect else { return };
        let cause = if !self.rules_are_default {
            Some("there are policy routing rules (`ip rule`), by which BPF does not route")
        } else if !self.ipsec_policies.is_empty() {
            Some("there are IPsec policies (`ip xfrm policy`), which BPF does not apply")
        } else {
            None
        };
        let paused =
            cause.map(|cause| format!("{cause}: no connection is carried (`netfilter = \"respect\"`)"));
        respect.set(settings(&self.config, paused));
    }
}
