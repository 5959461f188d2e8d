//! Reads what an earlier run left in a thread of its own, while new mail comes in.
//!
//! Until it has ended, nothing of it is handed over or taken back, and only what came since the
//! start is in the index.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::watch;

use crate::mail::id::SpoolId;
use crate::spool::arrivals::Handover;
use crate::spool::committer::Job;
use crate::spool::disk::Disk;
use crate::spool::entry::Stored;
use crate::spool::index::Index;
use crate::spool::index::locked;
use crate::spool::library::Library;
use crate::spool::recovery::Recovered;
use crate::spool::recovery::Rest;
use crate::telemetry::events;
use crate::telemetry::metrics;

/// What the thread works with.
pub(super) struct Loader {
    pub(super) rest: Rest,
    pub(super) disk: Disk,
    pub(super) library: Arc<Library>,
    pub(super) handover: Arc<Handover>,
    pub(super) jobs: mpsc::Sender<Job>,
    /// Becomes true when all is read.
    pub(super) loaded: watch::Sender<bool>,
    /// When the spool was opened.
    pub(super) began: Instant,
}

/// The thread; it has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Loading {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Loader {
    pub(super) fn start(self) -> io::Result<Loading> {
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("spool load".to_owned());
        let thread = Some(thread.spawn(move || self.run(&told))?);
        Ok(Loading { stop, thread })
    }

    fn run(mut self, stop: &AtomicBool) {
        let Some(recovered) = mem::take(&mut self.rest).load(&self.disk, stop) else {
            return;
        };
        let Recovered {
            index: old,
            segments,
            files,
            faults,
            torn,
        } = recovered;
        let messages = old.len();
        let ids = old.ids();
        for id in old.large().filter(|id| !files.contains(id)) {
            let file = self.library.large.path(id);
            events::spool_corrupt(&file, 0, &"the message's file is missing");
        }
        self.merge(old);
        if faults == 0 {
            self.remove_orphans(&files);
        }
        self.handover.offer_all(ids);
        let _ = self.jobs.send(Job::Loaded);
        events::spool_opened(messages, segments, torn, self.began.elapsed());
        self.loaded.send_replace(true);
    }

    /// Puts what came meanwhile to what was there before: what is asked of the index waits only for
    /// the few.
    fn merge(&self, mut index: Index) {
        let newer = locked(&self.library.index).len();
        index.reserve(newer + newer / 8);
        let mut here = locked(&self.library.index);
        let newer = mem::replace(&mut *here, index);
        here.absorb(newer);
        metrics::queue(here.len());
    }

    /// Removes large messages' files that no record names. Not after damage: they may be all that is
    /// left of a message.
    fn remove_orphans(&self, files: &HashSet<SpoolId>) {
        for id in files {
            let entry = locked(&self.library.index).find(*id);
            if entry.is_none_or(|entry| entry.stored() == Stored::InLog) {
                self.library.large.remove(*id);
            }
        }
    }
}

/// Also where its thread dies: whoever waits for arrivals has to learn that some will never come.
impl Drop for Loader {
    fn drop(&mut self) {
        if !*self.loaded.borrow() {
            self.handover.close();
        }
    }
}

#[cfg(test)]
#[path = "loading_tests.rs"]
mod tests;
