//! Requests that change the daemon, and the answers to all.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use tracing::{debug, error, info};

use super::{Daemon, remove_everything, systemd};
use crate::control::{Answer, BadFile, Request, server::Pending};

impl Daemon {
    pub(super) async fn serve_reload(&mut self) -> Result<Vec<String>> {
        systemd::reloading();
        let result = self.reload().await;
        self.metrics.note_reload(&result);
        if let Err(error) = &result {
            error!("cannot reload: {error:#}");
        }
        systemd::ready();
        result
    }

    /// Answers a request; true when the daemon is to end.
    pub(super) async fn serve(&mut self, pending: Pending) -> bool {
        // Whoever gave up does not expect that it still happens.
        if pending.is_abandoned() {
            debug!("a client went away before its request was begun: {:?}", pending.request);
            return false;
        }
        let Pending { request, answer, .. } = pending;
        let ends = matches!(request, Request::Detach);
        let result = match request {
            Request::Reload => {
                self.serve_reload().await.and_then(|warnings| Ok(serde_json::to_value(warnings)?))
            }
            Request::Detach => self.detach().await.and_then(|left| Ok(serde_json::to_value(left)?)),
            other => self.answer(other).await,
        };
        if let (true, Err(error)) = (ends, &result) {
            error!("detached in part, and ending: {error:#}");
        } else if ends {
            info!("detached: everything is removed");
        }
        // A client that went away gets no answer.
        let _ = answer.send(match result {
            Ok(value) => Answer::Ok(value),
            Err(error) if error.is::<BadFile>() => Answer::BadFile(error.to_string()),
            Err(error) => Answer::Error(format!("{error:#}")),
        });
        if ends {
            // The connection writes the answer on this thread before the runtime ends.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ends
    }

    /// Goes as far as it can: what stays behind the next `dataplane detach` finds by its pins.
    async fn detach(&mut self) -> Result<Vec<PathBuf>> {
        let ended = self.end_bgp().await;
        let ports = self.host_ports.put_back();
        let left = remove_everything(&self.pins, &self.netlink).await?;
        ended.and(ports).map(|()| left)
    }
}
