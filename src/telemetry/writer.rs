//! The thread that writes the log.
//!
//! Lines come through a bounded queue. The thread wakes once for all that comes within a moment, since a
//! wake-up for each line would cost more than the line. A reader that does not read (a stuck terminal, a
//! full pipe) can stop this thread, but never the gateway: what does not fit the queue is dropped,
//! counted and said later.

use std::io;
use std::io::Write;
use std::mem;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use metrics::counter;

/// Octets of lines that may wait for the writer.
const MOST_WAITING: usize = 1024 * 1024;

/// So many octets are written without waiting for more.
const MUCH: usize = 64 * 1024;

/// How long a line may wait for others to be written with it.
const LINGER: Duration = Duration::from_millis(10);

/// The way to the writer thread.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Line>);

#[derive(Debug, Default)]
struct Line {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    wake: Condvar,
    /// Something was written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: String,
    /// Lines that did not fit, and were not reported yet.
    dropped: u64,
    /// Somebody waits for what was pushed so far.
    hurry: bool,
    /// Octets in all that were pushed, and written.
    pushed: u64,
    written: u64,
}

impl Queue {
    /// Starts the thread.
    pub(super) fn start(sink: impl Write + Send + 'static) -> io::Result<Queue> {
        let line = Arc::<Line>::default();
        let queue = Queue(Arc::clone(&line));
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(sink, &line))?;
        Ok(queue)
    }

    /// Nothing that could panic runs under the lock.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock()
    }

    /// Puts a line in line; where there is no room it is dropped and counted.
    pub(super) fn push(&self, line: &str) {
        let mut waiting = self.waiting();
        let before = waiting.lines.len();
        let after = before + line.len();
        if after > MOST_WAITING {
            waiting.dropped += 1;
            counter!("gatepost_log_dropped_total").increment(1);
            return;
        }
        waiting.lines.push_str(line);
        waiting.pushed += line.len() as u64;
        drop(waiting);
        // In between the writer waits for more, and need not be told of each.
        if before == 0 || before < MUCH && after >= MUCH {
            self.0.wake.notify_one();
        }
    }

    /// Waits until what was pushed is written, but no longer than this.
    pub(super) fn flush(&self, within: Duration) {
        let mut waiting = self.waiting();
        waiting.hurry = true;
        self.0.wake.notify_one();
        let all = waiting.pushed;
        // Over time the rest is lost, and the process may end.
        let flushed = self
            .0
            .done
            .wait_timeout_while(waiting, within, |waiting| waiting.written < all);
        drop(flushed);
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is to be written, and a moment longer for more. Gives it in exchange
    /// for an empty buffer, and how many lines were dropped.
    fn take(&self, buffer: &mut String) -> u64 {
        let waiting = self
            .wake
            .wait_while(self.lock(), |waiting| waiting.lines.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, _) = self
            .wake
            .wait_timeout_while(waiting, LINGER, |waiting| {
                !waiting.hurry && waiting.lines.len() < MUCH
            })
            .unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut waiting.lines, buffer);
        waiting.hurry = false;
        mem::take(&mut waiting.dropped)
    }
}

/// Writes for as long as the process lives.
fn write_lines(mut sink: impl Write, line: &Line) {
    let mut buffer = String::new();
    loop {
        let lost = line.take(&mut buffer);
        // Nobody can be told that the log cannot be written.
        let _ = sink.write_all(buffer.as_bytes());
        let _ = sink.flush();
        line.lock().written += buffer.len() as u64;
        line.done.notify_all();
        buffer.clear();
        buffer.shrink_to(MUCH);
        if lost > 0 {
            tracing::warn!(lines = lost, "log lines dropped");
        }
    }
}

/// A sink that can be read, and held up.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Sink {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_written_in_order_before_a_flush_ends() {
        let sink = Sink::default();
        let queue = Queue::start(sink.clone()).unwrap();
        for number in 0..100 {
            queue.push(&format!("{number}\n"));
        }
        queue.flush(Duration::from_secs(10));
        let text = sink.text();
        let want: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, want);
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nobody() {
        let sink = Sink::default();
        let queue = Queue::start(sink.clone()).unwrap();
        let held = sink.0.lock().unwrap();
        for _ in 0..MOST_WAITING {
            queue.push("line\n");
        }
        assert!(queue.waiting().dropped > 0);
        assert!(queue.waiting().lines.len() <= MOST_WAITING);
        queue.flush(Duration::from_millis(10));
        drop(held);
    }
}
