//! The answering side: takes connections, hands each request to the daemon's loop, writes the answer.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::debug;

use super::{Answer, Request, socket};

/// A request is short; more is somebody else's protocol.
const LONGEST_REQUEST: u64 = 4096;

/// How long a client may take to ask or to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request on its way to the daemon's loop, with where the answer goes.
pub type Pending = (Request, oneshot::Sender<Answer>);

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
        while let Ok((stream, _)) = listener.accept().await {
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
    let (read, mut write) = stream.split();
    let mut reader = BufReader::new(read.take(LONGEST_REQUEST));
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            sender.send((request, answer)).await.context("the daemon is stopping")?;
            answered.await.context("the daemon is stopping")?
        }
        Err(error) => Answer::Error(format!("not a request of this version: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    timeout(PATIENCE, write.write_all(&bytes)).await??;
    Ok(())
}
