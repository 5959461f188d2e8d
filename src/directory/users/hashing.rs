//! Passwords are hashed here: on a few threads of their own, in a line that is bounded.
//!
//! The runtime's threads have others to serve, and each hash takes memory and some ten milliseconds by
//! intent. One core at least is left to the others where there are several.

use std::panic;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;

use tokio::sync::oneshot;

use super::Error;

/// How many wait for each thread. At 20 ms each the last of them waits for about a second.
const LINE: usize = 50;

type Work = Box<dyn FnOnce() + Send>;

/// The threads, which end when it is dropped.
pub(super) struct Hashing {
    line: SyncSender<Work>,
}

impl Hashing {
    /// Starts the threads.
    pub(super) fn start() -> Result<Hashing, Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.saturating_sub(1).max(1);
        let (line, works) = mpsc::sync_channel(LINE * threads);
        let works = Arc::new(Mutex::new(works));
        for _ in 0..threads {
            let works = Arc::clone(&works);
            thread::Builder::new()
                .name("hashing".to_owned())
                .spawn(move || work(&works))
                .map_err(Error::Threads)?;
        }
        Ok(Hashing { line })
    }

    /// Does the work and gives what comes of it; None where too many wait already. Work that nobody waits
    /// for any more when its turn comes is left. Cancel safe.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, outcome) = oneshot::channel();
        let work = move || {
            if !done.is_closed() {
                let _ = done.send(work());
            }
        };
        self.line.try_send(Box::new(work)).ok()?;
        outcome.await.ok()
    }
}

fn work(works: &Mutex<Receiver<Work>>) {
    loop {
        let next = works.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else {
            return;
        };
        // A fault of one hash must not take the thread from the others; its client is told to try again.
        let _ = panic::catch_unwind(AssertUnwindSafe(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_in_line_is_told_so_at_once() {
        let hashing = Hashing::start().unwrap();
        assert_eq!(hashing.run(|| 6 * 7).await, Some(42));
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut waiting = Vec::new();
        let mut turned_away = 0;
        for _ in 0..2000 {
            let gate = Arc::clone(&gate);
            let wait = move || {
                let _ = gate.lock().unwrap().recv();
            };
            let mut run = Box::pin(hashing.run(wait));
            match futures_util::poll!(&mut run) {
                std::task::Poll::Ready(None) => turned_away += 1,
                _ => waiting.push(run),
            }
        }
        assert!(turned_away > 0 && waiting.len() >= LINE);
        drop(go);
        for run in waiting {
            assert_eq!(run.await, Some(()));
        }
    }

    #[tokio::test]
    async fn a_fault_of_one_work_is_not_that_of_the_next() {
        let hashing = Hashing::start().unwrap();
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let failed = hashing.run(|| panic!("a fault")).await;
        panic::set_hook(hook);
        assert_eq!(failed, None::<()>);
        assert_eq!(hashing.run(|| 1).await, Some(1));
    }
}
