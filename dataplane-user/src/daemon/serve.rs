//! Requests that change the daemon, and the answers to all.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::oneshot;
use tracing::info;

use super::{Daemon, remove_everything, systemd};
use crate::control::{Answer, BadFile, Request};

impl Daemon {
    pub(super) async fn serve_reload(&mut self) -> Result<Vec<String>> {
        systemd::reloading();
        let result = self.reload().await;
        self.metrics.note_reload(result.is_ok());
        systemd::ready();
        result
    }

    /// Answers a request; true when the daemon is to end.
    pub(super) async fn serve(&mut self, request: Request, answer: oneshot::Sender<Answer>) -> bool {
        let ends = matches!(request, Request::Detach);
        let result = match request {
            Request::Reload => {
                self.serve_reload().await.and_then(|warnings| Ok(serde_json::to_value(warnings)?))
            }
            Request::Detach => self.detach().await.map(|()| serde_json::Value::Null),
            other => self.answer(other).await,
        };
        let failed = result.is_err();
        // A client that went away gets no answer.
        let _ = answer.send(match result {
            Ok(value) => Answer::Ok(value),
            Err(error) if error.is::<BadFile>() => Answer::BadFile(error.to_string()),
            Err(error) => Answer::Error(format!("{error:#}")),
        });
        if ends && !failed {
            info!("detached: everything is removed");
            // The connection writes the answer on this thread before the runtime ends.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ends && !failed
    }

    async fn detach(&mut self) -> Result<()> {
        self.end_bgp().await?;
        remove_everything(&self.pins, &self.netlink).await?;
        self.host_ports.put_back()
    }
}
