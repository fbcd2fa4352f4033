//! The hooks: attached as wanted, and compared with what the kernel has there.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use dataplane_common::stats::Hook;
use tracing::{debug, info, warn};

use super::{Daemon, Stale};
use crate::{
    config::UplinkHook,
    kernel::{
        attach::{self, Place},
        object::Program,
        sysctl,
    },
};

/// How often the hooks and pins are compared with the kernel: it does not tell when a program is taken off an interface.
pub(super) const CHECK_PERIOD: Duration = Duration::from_secs(4);

impl Daemon {
    /// Looks whether every program is where it was attached and every pin in place, and has put back what is not.
    pub(super) async fn check_hooks(&mut self) {
        self.slow_path.retry();
        self.retry_routes();
        if self.routes.is_pending() {
            self.try_reconcile().await;
        }
        self.pin_failure = self.restore_pins().err().map(|error| format!("{error:#}"));
        let missing = self.missing_hooks();
        if missing.is_empty() {
            return self.log_health();
        }
        for place in &missing {
            warn!(
                interface = place.interface,
                hook = place.hook.name(),
                "the program was removed from the interface, not by this daemon: attaching it again"
            );
            self.places.remove(place);
        }
        self.stale = self.stale.max(Stale::Picture);
        self.try_reconcile().await;
    }

    /// The hooks whose program is not at the interface any more.
    fn missing_hooks(&self) -> Vec<Place> {
        let is_missing = |place: &&Place| {
            // What cannot be asked is not known to be gone.
            matches!(attach::program_id(place, self.mode, &self.pins), Ok(None)) && place.exists()
        };
        self.places.keys().filter(is_missing).cloned().collect()
    }

    /// Pins what is pinned no more.
    fn restore_pins(&mut self) -> Result<()> {
        let whole = self.pins.are_whole();
        if !self.locks.1.is_of(&self.pins) {
            self.locks.1 = self.pins.claim()?;
        }
        if !whole {
            self.pins.create()?;
        }
        let (maps, slabs) = (self.held_maps.pin_missing()?, self.datapath.pin_missing()?);
        if !whole || maps || slabs {
            warn!(
                directory = %self.config.node.bpf_dir.display(),
                "pins were removed, not by this daemon: the tables are pinned again"
            );
        }
        Ok(())
    }

    /// What to say of a hook whose program is not at its interface.
    pub(super) fn hook_complaint(place: &Place) -> String {
        format!(
            "no program is attached to {} (hook {}): somebody removed it, and it is attached again within {} s",
            place.interface,
            place.hook.name(),
            CHECK_PERIOD.as_secs()
        )
    }

    /// Attaches where a program is wanted and takes it off where it is not. One interface that cannot be
    /// attached to is a complaint and an error, and the others are attached all the same.
    pub(super) fn update_hooks(&mut self, wanted: BTreeMap<Place, Program>) -> Result<()> {
        let mut result = Ok(());
        // An interface that was renamed is where it was, with its program.
        let renamed =
            |(place, program): (Place, Program)| (place.find_in(&wanted).cloned().unwrap_or(place), program);
        self.places = std::mem::take(&mut self.places).into_iter().map(renamed).collect();
        for (place, &program) in &wanted {
            if self.places.get(place) == Some(&program) {
                continue;
            }
            if program == Program::Walk(Hook::FromContainer) && self.config.datapath.kernel_routes {
                // As Calico does: what BPF leaves to the kernel must be forwarded by it.
                if let Err(error) = sysctl::enable_forwarding(&place.interface) {
                    debug!("{error:#}");
                }
            }
            match attach::attach(&mut self.object, &self.pins, self.mode, place, program) {
                Ok(()) => drop(self.places.insert(place.clone(), program)),
                // It went, or was renamed, a moment ago; the event is on its way.
                Err(error) if !place.exists() => debug!("{error:#}"),
                Err(error) if error.is::<attach::Refused>() => self.fall_back(place, &error),
                Err(error) => {
                    self.complaints.push(format!("{error:#}"));
                    result = result.and(Err(error));
                }
            }
        }
        let stale =
            attach::attached(&self.pins, |index| self.mirror.link(index).map(|link| link.name.clone()))?;
        for place in stale.iter().chain(self.places.clone().keys()) {
            if !wanted.contains_key(place) {
                attach::detach(&self.pins, place)?;
                self.places.remove(place);
            }
        }
        result
    }

    /// Goes on with an uplink at tc alone, until its link changes.
    fn fall_back(&mut self, place: &Place, error: &anyhow::Error) {
        let why = error.root_cause().to_string();
        if let Some(choice) = self.choices.iter_mut().find(|choice| choice.ifindex == place.ifindex) {
            (choice.xdp, choice.why) = (false, why.clone());
        }
        let complaint = format!("uplink {} is served at tc, not at XDP: {why}", place.interface);
        if self.config.datapath.uplink_hook == UplinkHook::Xdp {
            self.complaints.push(complaint);
        } else {
            info!("{complaint}");
        }
        self.devices.refused.insert(place.ifindex, why);
    }
}
