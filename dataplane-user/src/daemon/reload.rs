//! `dataplane reload`, and SIGHUP.

use std::{fmt, path::Path};

use anyhow::{Context as _, Result};
use tracing::{info, warn};

use super::{Daemon, Stale};
use crate::{
    config::{self, Config},
    control::BadFile,
    kernel::attach::Mode,
    source::bgp::Settings,
};

/// A file that holds, of which something is still to be put in place: that is tried again by time.
#[derive(Debug)]
pub(super) struct Incomplete(String);

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Incomplete {}

impl Daemon {
    /// Reads the file again. What cannot change in a running daemon is refused, and nothing changes then.
    pub(super) async fn reload(&mut self) -> Result<Vec<String>> {
        let Some(file) = self.config_file.clone() else {
            anyhow::bail!("this daemon runs without a file: there is nothing to read again");
        };
        let mut loaded = config::load(&file).map_err(|failure| {
            BadFile(format!("{failure}\nnothing was changed; the daemon goes on as before"))
        })?;
        self.places_given.apply(&mut loaded.config);
        refuse_fixed(&self.config, &loaded.config, &file)?;
        let speaker = loaded.config.bgp.as_ref().map(Settings::new).transpose();
        let speaker = speaker.with_context(|| format!("{}: nothing was changed", file.display()))?;
        self.withdraw_blocks(&loaded.config).await;
        let differences = self.config.differences(&loaded.config);
        let before = std::mem::replace(&mut self.config, loaded.config);
        if before.datapath.kernel_routes != self.config.datapath.kernel_routes {
            self.slow_path.look_at(self.by_routers());
        }
        let mode = Mode::choose(self.config.datapath.tc_attach);
        if mode != self.mode {
            // All are attached anew, which takes off what was attached the other way.
            self.places.clear();
            self.mode = mode;
        }
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        for warning in &warnings {
            warn!("{warning}");
        }
        // What the kernel refused it may take by now.
        self.devices.refused.clear();
        self.configure_metrics().await;
        // From here on the new file holds. What fails is said to the operator, and tried again by time.
        self.stale = self.stale.max(Stale::Picture);
        let speaker = self.configure_bgp(speaker).await;
        let result = self.catch_up().await.and(speaker);
        if result.is_err() {
            self.stale = self.stale.max(Stale::Picture);
        }
        let failure = result.as_ref().err().map(|error| {
            let text =
                format!("{}: it holds now, but not all of it is in place yet: {error:#}", file.display());
            anyhow::Error::new(Incomplete(text))
        });
        self.retry.note(result);
        match failure {
            Some(failure) => Err(failure),
            None => {
                let what = if differences.is_empty() {
                    "nothing changed".to_owned()
                } else {
                    differences.join("; ")
                };
                info!("read {} again: {what}", file.display());
                self.log_health();
                Ok(warnings)
            }
        }
    }
}

/// The keys that name what a running daemon stands on.
fn refuse_fixed(old: &Config, new: &Config, file: &Path) -> Result<()> {
    let fixed = [
        ("node.state-dir", old.node.state_dir != new.node.state_dir),
        ("node.bpf-dir", old.node.bpf_dir != new.node.bpf_dir),
        ("datapath.max-endpoints", old.datapath.max_endpoints != new.datapath.max_endpoints),
        ("datapath.netfilter", old.datapath.netfilter != new.datapath.netfilter),
        ("datapath.max-routes", old.datapath.max_routes != new.datapath.max_routes),
        ("datapath.max-flows", old.datapath.max_flows != new.datapath.max_flows),
        ("whether there is any [[masquerade]]", old.masquerade.is_empty() != new.masquerade.is_empty()),
        ("log", old.log != new.log),
    ];
    let changed: Vec<_> = fixed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
    if changed.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "{}: {} cannot change while the daemon runs: restart it (it forwards meanwhile), or put the old value \
         back; nothing was changed",
        file.display(),
        changed.join(", ")
    )
}
