//! A node in a network namespace of its own, and containers in named ones.

use std::{
    future::Future,
    io::Write,
    panic,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use dataplane::kernel::netlink::{Event, Events};
use tokio::time::timeout;

/// How long anything may take that the kernel does at once.
const BOUND: Duration = Duration::from_secs(20);

/// Runs a test on a thread in a fresh network namespace, which ends with the thread; `lo` is up.
pub(crate) fn on_a_node<F: Future<Output = Result<()>>>(test: impl FnOnce() -> F + Send + 'static) {
    let node = thread::spawn(|| {
        // SAFETY: unshare() takes no pointers; the namespace is that of this thread alone.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        let error = std::io::Error::last_os_error();
        assert_eq!(result, 0, "cannot make a network namespace (run as root): {error}");
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(3 * BOUND, test()).await.expect("the test takes too long") })
    });
    match node.join() {
        Ok(result) => result.unwrap(),
        Err(panicked) => panic::resume_unwind(panicked),
    }
}

/// Runs `ip` in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) -> String {
    let output =
        Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs lines of `ip`, in one process.
pub(crate) fn ip_batch(lines: &str) -> Result<()> {
    let mut batch = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    batch.stdin.take().context("no pipe to ip")?.write_all(lines.as_bytes())?;
    ensure!(batch.wait()?.success(), "ip -batch fails");
    Ok(())
}

/// A namespace with a name, removed in the end.
pub(crate) struct Container {
    pub(crate) name: String,
}

impl Container {
    /// Makes one whose `eth0` is the other end of the node's `host`, both up.
    pub(crate) fn with_veth(host: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let container = Self { name: format!("dp-netlink-{}-{number}", std::process::id()) };
        ip(&format!("netns add {}", container.name));
        ip(&format!("link add {host} type veth peer name eth0 netns {}", container.name));
        ip(&format!("link set {host} up"));
        container.ip("link set eth0 up");
        container
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A failure here must not hide the test's own; the name tells whose leftover it is.
        let _removed = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Waits for the event that `wanted` picks, past others.
pub(crate) async fn await_event<T>(
    events: &mut Events,
    mut wanted: impl FnMut(&Event) -> Option<T>,
) -> Result<T> {
    let mut others = Vec::new();
    let found = timeout(BOUND, async {
        loop {
            let event = events.next().await?;
            match wanted(&event) {
                Some(found) => return Ok(found),
                None => others.push(event),
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("the awaited event does not come, only {others:#?}"))
}
