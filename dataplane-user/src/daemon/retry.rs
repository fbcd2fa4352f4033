//! What failed is tried again by time, whatever else happens meanwhile.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};
use tracing::error;

/// How long a step that failed waits for its next attempt.
const PERIOD: Duration = Duration::from_secs(2);

/// The last failure, and when the next attempt is due.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failure: Option<(Instant, String)>,
}

impl Retry {
    /// Notes how an attempt went. After a failure the time of the next attempt stands, however many others fail before it.
    pub(super) fn note(&mut self, result: Result<()>) {
        match result {
            Ok(()) => self.failure = None,
            Err(error) => {
                let text = format!("{error:#}");
                match &mut self.failure {
                    Some((_, before)) if *before == text => {}
                    Some((_, before)) => {
                        error!("cannot update the data path, trying again: {text}");
                        *before = text;
                    }
                    None => {
                        error!("cannot update the data path, trying again: {text}");
                        self.failure = Some((Instant::now() + PERIOD, text));
                    }
                }
            }
        }
    }

    /// Returns when the next attempt is due: never, where nothing failed.
    pub(super) async fn due(&self) {
        match self.failure {
            Some((at, _)) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// The attempt that was due is made now; should it fail, the next one is due a period later.
    pub(super) fn restart(&mut self) {
        if let Some((at, _)) = &mut self.failure {
            *at = Instant::now() + PERIOD;
        }
    }

    /// What is pending, and why.
    pub(super) fn complaint(&self) -> Option<String> {
        let (_, error) = self.failure.as_ref()?;
        let seconds = PERIOD.as_secs();
        Some(format!("the data path is not up to date, an update is tried every {seconds} s: {error}"))
    }
}
