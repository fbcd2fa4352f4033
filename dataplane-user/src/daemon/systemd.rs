//! What the service manager is told (sd_notify(3)). Without one there is nobody to tell, which is no error.

use std::future;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior};

/// The data path is in step.
pub(super) fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// The file is read again; [`ready`] follows, whatever becomes of it.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
    }
}

/// The daemon ends.
pub(super) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// How often a sign of life is wanted, if one is: the manager restarts a daemon that gives none for twice as long.
pub(super) fn watchdog() -> Option<Interval> {
    let mut interval = tokio::time::interval(sd_notify::watchdog_enabled()? / 2);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(interval)
}

/// Gives a sign of life when it is time. The daemon's loop waits for this with all else: where that hangs, no sign comes.
pub(super) async fn tick(watchdog: &mut Option<Interval>) {
    let Some(interval) = watchdog else { return future::pending().await };
    interval.tick().await;
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}
