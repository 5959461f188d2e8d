//! What was accepted is never lost.
//!
//! | state | on disk | the client was told | after a crash |
//! | --- | --- | --- | --- |
//! | arriving | part of a record | nothing | the torn record is cut off; the client still has the message |
//! | stored | the record, synced | 250 | it will be delivered |
//! | partly done | and a mark for some recipients | 250 | a recipient whose mark was not synced may get it twice; none is lost |
//! | finished | and a mark for each recipient | 250 | nothing to do; the space is taken back |
//!
//! [`Spool::store`] puts its record in line and waits; one writer (`committer`) appends all that is
//! in line to the log (`segment`), syncs once, and then answers all of them; who arrives meanwhile
//! shares the next sync. After that the message goes to the scheduler from memory ([`Arrivals`]).
//! `recovery` reads at the start what is there, in a thread beside the intake (`loading`), and
//! mostly from short `digest`s of the segments; `space` keeps the log small.
//!
//! Nothing is locked up in our format: [`verify`] says what is there and what is damaged, [`export`]
//! and [`import`] move messages out and in as plain files.
//!
//! In the directory: `lock`, `segments/` with the log, `large/` with a file for each large message.
//! All of it is ours alone to read (0700, 0600).
//!
//! # Limits
//!
//! Damage in a segment that has a digest is found when the message is loaded, not at the start. A
//! segment that has none is held in memory while it is read. A file descriptor is kept open for
//! each segment.

mod arrivals;
mod assembly;
mod brief;
mod change;
mod clock;
mod committer;
mod condition;
mod config;
mod copying;
mod digest;
mod disk;
mod entry;
mod error;
pub mod export;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod faults;
mod head;
pub mod import;
mod index;
mod intake;
mod large;
mod library;
mod lines;
mod loading;
mod lock;
pub mod log;
mod look;
#[cfg(test)]
mod model_tests;
mod notes;
mod portable;
#[cfg(test)]
mod power;
mod reading;
mod record;
mod recovery;
#[cfg(test)]
mod schedule;
mod segment;
mod settle;
mod shelf;
mod space;
mod survey;
pub mod verify;
mod walk;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;
use std::time::SystemTime;

use bytesize::ByteSize;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool::arrivals::Handover;
use crate::spool::arrivals::footprint;
use crate::spool::assembly::Parts;
use crate::spool::committer::Job;
use crate::spool::condition::Condition;
use crate::spool::disk::Disk;
use crate::spool::entry::Stored;
use crate::spool::index::Index;
use crate::spool::index::Marked;
use crate::spool::index::locked;
use crate::spool::intake::Message;
use crate::spool::intake::Origin;
use crate::spool::large::Large;
use crate::spool::library::Library;
use crate::spool::log::Log;
use crate::spool::log::Reader;
use crate::spool::record::Body;
use crate::spool::record::Deferral;
use crate::spool::record::Draft;
use crate::spool::record::Kind;
use crate::spool::record::micros;
use crate::spool::recovery::Rest;
use crate::spool::segment::SegmentLog;
use crate::telemetry::events;

pub use crate::spool::arrivals::Arrival;
pub use crate::spool::arrivals::Arrivals;
pub use crate::spool::clock::SessionClock;
pub use crate::spool::config::Config;
pub use crate::spool::error::Error;
pub use crate::spool::look::Depth;
pub use crate::spool::look::Look;
pub use crate::spool::look::Standing;

/// Octets that are read in one go.
const AHEAD: usize = 1 << 20;

/// Whether a message is to be delivered or kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// As soon as it is stored.
    Deliver,
    /// Kept until [`Spool::release`], for this reason.
    Hold(String),
}

/// What became of one recipient for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// The next hop has taken responsibility for it.
    Delivered,
    /// It will not be delivered, for this reason, and whoever had to know was told.
    Failed(String),
}

/// The intake's and the scheduler's handle.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    jobs: mpsc::Sender<Job>,
    /// Octets that may wait for the committer.
    queue: Arc<Semaphore>,
    queue_size: u32,
    /// Octets of large messages that may be loaded at once.
    loads: Arc<Semaphore>,
    loads_size: u32,
    /// Octets of other messages that may be read ahead of their turn.
    ahead: Arc<Semaphore>,
    library: Arc<Library>,
    notes: Arc<notes::Line>,
    handover: Arc<Handover>,
    condition: Arc<Condition>,
    clock: Arc<SessionClock>,
    /// Whether all that an earlier run left is read.
    loaded: watch::Receiver<bool>,
    large_message: usize,
    largest: usize,
    keep_free: u64,
}

/// Opens the spool in this directory, which is made where it is missing. Blocks on the disk. When it
/// returns, mail can be stored; what an earlier run left is read meanwhile ([`Spool::loaded`]), and
/// arrives then. Damage is reported and never stops it; see [`Error`] for what does.
pub fn open(directory: &Path, config: &Config) -> Result<(Spool, Arrivals), Error> {
    open_on(Disk::default(), directory, config)
}

fn open_on(disk: Disk, directory: &Path, config: &Config) -> Result<(Spool, Arrivals), Error> {
    let lock = lock::take(&disk, directory)?;
    open_locked(disk, directory, config, lock)
}

/// Opens the spool that is taken already.
fn open_locked(
    disk: Disk,
    directory: &Path,
    config: &Config,
    lock: File,
) -> Result<(Spool, Arrivals), Error> {
    let began = Instant::now();
    let segments = directory.join("segments");
    let large = Large::new(disk.clone(), directory.join("large"));
    let clock = Arc::<SessionClock>::default();
    settle::settle(&disk, &segments).map_err(|e| Error::directory(&segments, e))?;
    let (left, rest) = recovery::look(&disk, &segments, &large, &clock)?;
    let condition = Arc::<Condition>::default();
    let mut log = SegmentLog::new(
        disk.clone(),
        segments,
        config,
        Arc::clone(&clock),
        left,
        lock,
    );
    if let Err(error) = log.begin() {
        // Mail can still go out; what wants to come in tries again to begin a segment.
        events::spool_failed(&log.place(), &events::in_full(&error));
        condition.failed(&error);
    }
    let library = Library::new(Index::default(), large, log.reader());
    let parts = Parts {
        log: Box::new(log),
        library,
        condition,
        clock,
        rest,
        disk,
        began,
    };
    parts.assemble(config)
}

/// Opens a spool over another log, which has to be empty: what it holds already is not read back.
/// Large messages go to files in `directory`. For what is to be measured beside our own log.
pub fn open_over(
    log: Box<dyn Log>,
    reader: Arc<dyn Reader>,
    directory: &Path,
    config: &Config,
) -> Result<(Spool, Arrivals), Error> {
    let disk = Disk::default();
    let large = Large::new(disk.clone(), directory.to_owned());
    let parts = Parts {
        log,
        library: Library::new(Index::default(), large, reader),
        condition: Arc::default(),
        clock: Arc::default(),
        rest: Rest::default(),
        disk,
        began: Instant::now(),
    };
    parts.assemble(config)
}

impl Spool {
    /// Arriving -> stored. Returns when the message is synced, so that a 250 can follow, or when it
    /// is sure that it will not be. How long that takes is the disk's to say.
    ///
    /// After an error the message is not in the spool. Where the disk failed twice in a row, or the
    /// process dies before it is answered, a start may find it after all: whole, and delivered; the
    /// client has it, too.
    ///
    /// Cancel safe: who stops waiting does not know whether the message was stored, but it is stored
    /// whole or not at all.
    pub async fn store(
        &self,
        id: SpoolId,
        envelope: Envelope,
        content: Content,
        fate: Fate,
    ) -> Result<(), Error> {
        self.put(id, envelope, content, Origin::New(fate)).await
    }

    /// Stores a message, new or from elsewhere. Cancel safe like [`Spool::store`].
    async fn put(
        &self,
        id: SpoolId,
        envelope: Envelope,
        content: Content,
        origin: Origin,
    ) -> Result<(), Error> {
        if locked(&self.0.library.index).contains(id) {
            return Err(Error::Taken { id });
        }
        // Each new segment's head says above which ids we are.
        self.0.clock.seen(id.session);
        if content.len() > u32::MAX as usize {
            return Err(Error::TooLarge);
        }
        // The queue is bounded here: who finds it full waits.
        let octets = footprint(&content, &envelope).min(self.0.queue_size);
        let room = Arc::clone(&self.0.queue).acquire_many_owned(octets).await;
        let room = room.map_err(|_| Error::Closed)?;
        let (answer, outcome) = oneshot::channel();
        let message = Message {
            id,
            envelope,
            content,
            origin,
            answer,
            room,
        };
        if message.content.len() > self.0.large_message {
            // In a thread that goes on when we are dropped.
            let shared = Arc::clone(&self.0);
            tokio::task::spawn_blocking(move || shared.store_large(message))
                .await
                .map_err(|_| Error::Closed)??;
        } else {
            self.0.enqueue(message, Stored::InLog)?;
        }
        outcome.await.unwrap_or(Err(Error::Closed))
    }

    /// The message with its content, from disk. A large one waits while as much as `in_memory` of them
    /// is loaded and was not dropped yet; small ones never do, so that a next hop which takes large
    /// ones slowly cannot stop all others. Cancel safe.
    pub async fn load(&self, id: SpoolId) -> Result<Arrival, Error> {
        let entry = locked(&self.0.library.index).find(id);
        let size = entry.map(|entry| entry.large);
        let size = size.ok_or(Error::Unknown { id })?.min(self.0.loads_size);
        let memory = Arc::clone(&self.0.loads).acquire_many_owned(size).await;
        let memory = memory.map_err(|_| Error::Closed)?;
        let library = Arc::clone(&self.0.library);
        let loaded = tokio::task::spawn_blocking(move || library.load(id));
        let mut loaded = loaded.await.unwrap_or(Err(Error::Closed))?;
        loaded.memory = Some(Arc::new(memory));
        Ok(loaded)
    }

    /// The first of these messages with their contents, read in one go: one at least, as many more as
    /// have a megabyte together and find room in memory. One without content is large: see
    /// [`Spool::load`]. Cancel safe.
    pub async fn load_some(&self, ids: Vec<SpoolId>) -> Vec<Result<Arrival, Error>> {
        let (library, memory) = (Arc::clone(&self.0.library), Arc::clone(&self.0.ahead));
        let some = move || library.load_some(ids, AHEAD, &memory);
        let loaded = tokio::task::spawn_blocking(some).await;
        loaded.unwrap_or_else(|_| vec![Err(Error::Closed)])
    }

    /// Stored -> partly done -> finished. These recipients (indexes into the envelope's) are done
    /// with. On disk within about a second; after a crash before that they may be tried again.
    pub fn mark(&self, id: SpoolId, results: Vec<(usize, Mark)>) {
        let recipients = results.iter().filter_map(|(at, _)| u32::try_from(*at).ok());
        let recipients: Vec<u32> = recipients.collect();
        // Notes are put in line under the lock, so that disk and memory see them in one order.
        let mut index = locked(&self.0.library.index);
        match index.mark(id, &recipients) {
            Marked::Unknown => (),
            Marked::SomeLeft => self.note(Draft::note(Kind::Result, id, &results)),
            Marked::Finished(stored) => {
                let mut done = Draft::note(Kind::Done, id, &());
                if stored == Stored::InFile {
                    done.body = Body::InFile { length: 0 };
                }
                self.note(done);
            }
        }
    }

    /// The message is to be tried again at `due`; so many attempts were made. On disk like a mark.
    pub fn defer(&self, id: SpoolId, due: SystemTime, attempts: u32) {
        let due = micros(due);
        let mut index = locked(&self.0.library.index);
        if index.defer(id, due, attempts) {
            self.note(Draft::note(Kind::Defer, id, &Deferral { due, attempts }));
        }
    }

    /// The message is kept, and not delivered until it is released. On disk like a mark.
    pub fn hold(&self, id: SpoolId, reason: String) {
        let note = Draft::note(Kind::Hold, id, &reason);
        let mut index = locked(&self.0.library.index);
        if index.hold(id, reason) {
            self.note(note);
        }
    }

    /// The message is held no longer: it arrives again, due `now`. On disk like a mark.
    pub fn release(&self, id: SpoolId, now: SystemTime) {
        let now = micros(now);
        let mut index = locked(&self.0.library.index);
        if index.release(id, now) {
            self.note(Draft::note(Kind::Release, id, &now));
            drop(index);
            self.0.handover.offer_by_id([id]);
        }
    }

    /// Why new mail cannot be stored now, as far as is known without trying: the disk has too little
    /// free for a large message, or the last write failed. The latter stays until something could be
    /// written again.
    pub fn trouble(&self) -> Option<String> {
        let needed = self.0.keep_free + self.0.large_message as u64;
        match self.0.library.large.free_space() {
            Ok(free) if free <= needed => {
                let (free, floor) = (ByteSize(free), ByteSize(self.0.keep_free));
                Some(Error::Full { free, floor }.to_string())
            }
            _ => self.0.condition.trouble(),
        }
    }

    /// Returns when all that an earlier run left is read. Until then the spool takes mail, but knows
    /// only what came since it was opened. Cancel safe.
    pub async fn loaded(&self) -> Result<(), Error> {
        let mut loaded = self.0.loaded.clone();
        let loaded = loaded.wait_for(|loaded| *loaded).await;
        loaded.map(|_| ()).map_err(|_| Error::Closed)
    }

    /// Gives the ids of sessions.
    pub fn clock(&self) -> Arc<SessionClock> {
        Arc::clone(&self.0.clock)
    }

    /// Writes what waits, syncs, and lets go of the directory; from then on the spool answers
    /// [`Error::Closed`]. Cancel safe.
    pub async fn close(&self) {
        let (answer, closed) = oneshot::channel();
        if self.0.jobs.send(Job::Close(answer)).is_ok() {
            let _ = closed.await;
        }
    }

    /// A note that comes after the end is lost like one before a crash.
    fn note(&self, draft: Draft) {
        if self.0.notes.put(draft) {
            let _ = self.0.jobs.send(Job::Notes);
        }
    }
}

#[cfg(test)]
mod tests;
