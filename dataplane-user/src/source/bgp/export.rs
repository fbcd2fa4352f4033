//! What the speaker has for the daemon: changes, and when its peers know what it announced.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{News, shared::Shared, status::Status};

/// Changes in one batch: the daemon applies so many in a few milliseconds.
const BATCH: usize = 2048;

/// How often routes are looked for that a peer may have used because others of it went.
const READMIT: Duration = Duration::from_secs(1);

/// Hands the changes to the daemon, as fast as it takes them.
pub async fn export(shared: Rc<Shared>, news: mpsc::Sender<News>) {
    let mut readmit_at = Instant::now();
    loop {
        let changes = shared.table.borrow_mut().take_changes(BATCH);
        if !changes.is_empty() {
            if news.send(News::Changes(changes)).await.is_err() {
                return;
            }
            shared.room.notify_waiters();
            continue;
        }
        // Everything that was learned is with the daemon.
        if shared.end_restart() {
            if news.send(News::Converged).await.is_err() {
                return;
            }
            continue;
        }
        let can_readmit = shared.table.borrow().can_readmit();
        if can_readmit && readmit_at <= Instant::now() {
            shared.table.borrow_mut().readmit();
            readmit_at = Instant::now() + READMIT;
            continue;
        }
        match shared.restart_deadline().into_iter().chain(can_readmit.then_some(readmit_at)).min() {
            Some(deadline) => {
                let _ = tokio::time::timeout_at(deadline, shared.news.notified()).await;
            }
            None => shared.news.notified().await,
        }
    }
}

/// Waits until every session has handed its peer what is announced now.
pub async fn told(shared: Rc<Shared>, statuses: Vec<Rc<RefCell<Status>>>, done: oneshot::Sender<()>) {
    let version = shared.version.get();
    loop {
        let late = |status: &Rc<RefCell<Status>>| {
            let status = status.borrow();
            status.established.is_some() && status.told < version
        };
        if done.is_closed() || !statuses.iter().any(late) {
            break;
        }
        shared.told.notified().await;
    }
    let _ = done.send(());
}
