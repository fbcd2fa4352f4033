//! What namespaces are called: unique names for tests, readable ones for a network that people look at.

use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

static COUNTER: AtomicU32 = AtomicU32::new(0);
static PREFIX: OnceLock<String> = OnceLock::new();

/// From now on namespaces of this process are called `PREFIX-PURPOSE`, without a number: no two of them may
/// have the same purpose then, and no other process the same prefix. The first call holds.
pub fn fix(prefix: &str) {
    PREFIX.get_or_init(|| prefix.to_owned());
}

/// The name of a namespace made for that purpose.
pub(super) fn of(purpose: &str) -> String {
    match PREFIX.get() {
        Some(prefix) => format!("{prefix}-{purpose}"),
        None => format!("dp-{}-{}-{purpose}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)),
    }
}
