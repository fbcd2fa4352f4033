//! Lines for a stream whose reader may be slow, stuck or gone: written by a thread of its own.
//!
//! Not `tracing-appender`, which prints to standard output when it ends and its stream is stuck, and does not count what the
//! stream refuses.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Bytes that wait for a reader; what is more is lost.
const MOST_BYTES: usize = 1 << 20;

/// How long a line is waited for that is to be there at once. After that nothing is waited for until the reader is back.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A stream.
pub(super) struct Writer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were ever put in, and that were dealt with.
    put: u64,
    done: u64,
    stuck: bool,
}

impl Writer {
    /// Starts the thread. Where the stream takes lines again after some were lost, one that says so goes before them, with
    /// that prefix.
    pub(super) fn start(stream: impl Write + Send + 'static, on_loss: Option<&'static str>) -> Self {
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let started =
            thread::Builder::new().name("log".to_owned()).spawn(move || of_thread.work(stream, on_loss));
        if started.is_err() {
            // Without a thread everything is lost, and counted.
            shared.queue().bytes = MOST_BYTES;
        }
        Self(shared)
    }

    /// Lines that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Puts a line, or some, at the end of those that wait.
    pub(super) fn write(&self, line: Vec<u8>, at_once: bool) {
        let mut queue = self.0.queue();
        if queue.bytes + line.len() > MOST_BYTES {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        queue.put += 1;
        self.0.changed.notify_all();
        if at_once && !queue.stuck {
            let (mut queue, done) = self.0.wait(queue, AT_ONCE);
            queue.stuck = !done;
        }
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn flush(&self, limit: Duration) {
        drop(self.0.wait(self.0.queue(), limit));
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that is there now is dealt with; says whether it is.
    fn wait<'a>(&'a self, queue: MutexGuard<'a, Queue>, limit: Duration) -> (MutexGuard<'a, Queue>, bool) {
        let last = queue.put;
        let waited = self.changed.wait_timeout_while(queue, limit, |queue| queue.done < last);
        let (queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (queue, !timeout.timed_out())
    }

    fn work(&self, mut stream: impl Write, on_loss: Option<&'static str>) {
        let mut told = 0;
        loop {
            let queue = self.queue();
            let waited = self.changed.wait_while(queue, |queue| queue.lines.is_empty());
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            let line = queue.lines.pop_front().unwrap_or_default();
            drop(queue);
            let lost = self.lost.load(Ordering::Relaxed);
            let notice = on_loss.filter(|_| lost > told).map_or_else(String::new, |prefix| {
                format!("{prefix}{} lines of the log could not be written and are lost\n", lost - told)
            });
            let written = stream.write_all(notice.as_bytes()).and_then(|()| stream.write_all(&line));
            match written.and_then(|()| stream.flush()) {
                Ok(()) => told = lost,
                Err(_) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
            }
            let mut queue = self.queue();
            queue.bytes -= line.len();
            queue.done += 1;
            queue.stuck &= !queue.lines.is_empty();
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Read as _, pipe},
        sync::mpsc,
    };

    use super::*;

    /// A stream that fails as often as it is told.
    struct Failing(mpsc::Receiver<bool>, mpsc::Sender<Vec<u8>>);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.is_empty() || self.0.try_recv().unwrap_or(false) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_stream_refuses_is_counted_and_told_of() {
        let ((fail, fails), (written, lines)) = (mpsc::channel(), mpsc::channel());
        fail.send(true).unwrap();
        fail.send(true).unwrap();
        let writer = Writer::start(Failing(fails, written), Some("<4>"));
        for line in ["one\n", "two\n", "three\n"] {
            writer.write(line.into(), true);
        }
        writer.flush(Duration::from_secs(60));
        assert_eq!(writer.lost(), 2);
        let text: String = lines.try_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert_eq!(text, "<4>2 lines of the log could not be written and are lost\nthree\n");
    }

    #[test]
    fn a_reader_that_is_stuck_holds_nobody_up() {
        let (mut reader, pipe) = pipe().unwrap();
        let writer = Writer::start(pipe, Some(""));
        let line = [b"x".repeat(9999), b"\n".to_vec()].concat();
        // More than the pipe and the queue hold.
        for _ in 0..200 {
            writer.write(line.clone(), true);
        }
        let lost = writer.lost();
        assert!((1..200).contains(&lost), "{lost} lines of 200 were lost");
        // The reader is back: all that waited comes, and what comes then has the notice before it.
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            text
        });
        writer.flush(Duration::from_secs(60));
        writer.write(b"last\n".to_vec(), true);
        writer.flush(Duration::from_secs(60));
        assert_eq!(writer.lost(), lost);
        drop(writer);
        drop(reading);
    }
}
