//! The answering side: takes connections, hands each request to the daemon's loop, writes the answer.

use std::{
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, warn};

use super::{Answer, Request, socket};

/// A request is short; more is somebody else's protocol.
const LONGEST_REQUEST: u64 = 4096;

/// How long a client may take to ask or to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing is accepted after that failed, for want of file descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);

/// A request on its way to the daemon's loop.
#[derive(Debug)]
pub struct Pending {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
    /// The client's connection; none where the answer's receiver goes with the client.
    pub client: Option<OwnedFd>,
}

impl Pending {
    /// Whether nobody waits for the answer any more. One that has only closed its writing side waits.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed() || self.client.as_ref().is_some_and(has_hung_up)
    }
}

fn has_hung_up(client: &OwnedFd) -> bool {
    let mut events = [PollFd::new(client, PollFlags::empty())];
    poll(&mut events, Some(&Timespec::default())).is_ok()
        && events[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Listens in the state directory, and sends what is asked there; a socket that a killed run left is replaced.
///
/// The caller holds the lock of the directory, so that no other daemon listens there.
///
/// # Errors
///
/// Where the socket cannot be made.
pub fn listen(state_dir: &Path, sender: mpsc::Sender<Pending>) -> Result<()> {
    let path = socket(state_dir);
    let _ = fs::remove_file(&path);
    let listener =
        UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    tokio::task::spawn_local(async move {
        let mut failing = false;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!("cannot take connections of commands, trying again: {error}");
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            failing = false;
            let sender = sender.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = serve(stream, sender).await {
                    debug!("a client went away: {error:#}");
                }
            });
        }
    });
    Ok(())
}

async fn serve(mut stream: UnixStream, sender: mpsc::Sender<Pending>) -> Result<()> {
    let mut line = String::new();
    let client = stream.as_fd().try_clone_to_owned()?;
    let (read, mut write) = stream.split();
    let mut reader = BufReader::new(read.take(LONGEST_REQUEST));
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            let pending = Pending { request, answer, client: Some(client) };
            sender.send(pending).await.context("the daemon is stopping")?;
            answered.await.context("the daemon is stopping")?
        }
        Err(error) => Answer::Error(format!("not a request of this version: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    timeout(PATIENCE, write.write_all(&bytes)).await??;
    Ok(())
}
