//! Group commit: one thread takes all that waits, writes it as one batch, syncs once, answers all.
//!
//! No timer stands between a message and its sync: a batch is what is waiting, about 1 MiB at most.
//! Senders wait in a queue that is bounded in octets by [`super::Spool`], so a slow disk is a late
//! 250. Notes (marks, deferrals, holds) ride in the next batch, or go within a second by themselves;
//! where a batch fails, its messages are refused and its notes are written later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::arrivals::Arrival;
use crate::spool::arrivals::Handover;
use crate::spool::arrivals::footprint;
use crate::spool::condition::Condition;
use crate::spool::copying::Copying;
use crate::spool::entry::Entry;
use crate::spool::entry::Place;
use crate::spool::entry::Stored;
use crate::spool::index::locked;
use crate::spool::library::Library;
use crate::spool::loading::Loading;
use crate::spool::log::Failed;
use crate::spool::log::Log;
use crate::spool::log::Trace;
use crate::spool::notes;
use crate::spool::record;
use crate::spool::record::Body;
use crate::spool::record::Draft;
use crate::spool::record::Kind;
use crate::spool::record::State;
use crate::telemetry::events;
use crate::telemetry::metrics;

/// How long a note may wait for company.
const NOTES_WAIT: Duration = Duration::from_secs(1);
/// A batch beyond this would make each of its senders wait longer than it saves.
const BATCH: usize = 1024 * 1024;
/// More notes than this are looked through for what can be left out.
const NOTES: usize = 1024;
/// Records are numbered in their batch by a u16.
const RECORDS: usize = 16_384;

/// What the committer is asked to do.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all jobs are stores")]
pub(super) enum Job {
    Store(Draft, Receipt),
    /// All that an earlier run left is read.
    Loaded,
    /// There are notes in line ([`notes::Line`]).
    Notes,
    /// Write what waits, let go of the directory, then answer.
    Close(oneshot::Sender<()>),
}

/// What is to happen once a message is on disk.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) envelope: Arc<Envelope>,
    pub(super) content: Content,
    pub(super) arrived: u64,
    pub(super) state: State,
    pub(super) stored: Stored,
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
    /// Its share of the queue, given back when this is dropped.
    pub(super) room: OwnedSemaphorePermit,
}

/// The writer's side of the spool.
pub(super) struct Committer {
    /// Has to end before the log lets go of the directory, so it stands before it.
    _loading: Loading,
    log: Box<dyn Log>,
    library: Arc<Library>,
    line: Arc<notes::Line>,
    handover: Arc<Handover>,
    condition: Arc<Condition>,
    /// Octets that may wait in memory for their first delivery.
    memory: Arc<Semaphore>,
    stores: VecDeque<(Draft, Receipt)>,
    notes: VecDeque<Draft>,
    /// Octets of both.
    size: usize,
    /// How many notes are looked through next.
    many_notes: usize,
    /// When the notes go by themselves.
    flush: Option<Instant>,
    copying: Copying,
    /// Large messages that were refused and may come back by a crash, hence with their files.
    doubtful: Vec<SpoolId>,
    closed: bool,
    closing: Option<oneshot::Sender<()>>,
}

impl Committer {
    pub(super) fn new(
        loading: Loading,
        log: Box<dyn Log>,
        library: Arc<Library>,
        line: Arc<notes::Line>,
        handover: Arc<Handover>,
        condition: Arc<Condition>,
        memory: Arc<Semaphore>,
    ) -> Committer {
        Committer {
            _loading: loading,
            log,
            library,
            line,
            handover,
            condition,
            memory,
            stores: VecDeque::new(),
            notes: VecDeque::new(),
            size: 0,
            many_notes: NOTES,
            flush: None,
            copying: Copying::default(),
            doubtful: Vec::new(),
            closed: false,
            closing: None,
        }
    }

    /// Works until it is told to close or all senders are gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            self.wait(jobs);
            while self.size < self.limit()
                && let Ok(job) = jobs.try_recv()
            {
                self.take(job);
            }
            self.fetch_notes();
            if self.closed && self.stores.is_empty() && self.notes.is_empty() {
                break;
            }
            if self.commit() {
                self.reclaim();
            } else if self.closed {
                break; // What the notes said will be done again.
            } else {
                // Nothing is copied now, but on a full disk what is finished is all the room there is.
                self.log.free(&self.library.index);
            }
        }
        let closing = self.closing.take();
        // The next one may open the directory once we have said that we are done.
        drop(self);
        if let Some(answer) = closing {
            let _ = answer.send(());
        }
    }

    fn limit(&self) -> usize {
        BATCH.min(self.log.largest_batch() / 2)
    }

    fn reclaim(&mut self) {
        if self.copying.rests(Instant::now()) {
            self.log.free(&self.library.index);
        } else if self.copying.is_done() {
            self.copying.begin(self.log.reclaim(&self.library.index));
        }
    }

    /// Waits until there is something to write.
    fn wait(&mut self, jobs: &Receiver<Job>) {
        while !self.closed && self.stores.is_empty() && self.copying.is_done() {
            let job = match self.flush {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => {
                    // What it was set for may have ridden in an earlier batch.
                    self.flush = None;
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => self.closed = true,
            }
        }
    }

    /// Notes do not wake the committer one by one; it fetches those that there are.
    fn fetch_notes(&mut self) {
        let notes = self.line.take();
        self.size += notes.iter().map(Draft::length).sum::<usize>();
        self.notes.extend(notes);
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Store(draft, receipt) => {
                self.size += draft.length();
                self.stores.push_back((draft, receipt));
            }
            Job::Notes => {
                self.flush
                    .get_or_insert_with(|| Instant::now() + NOTES_WAIT);
            }
            Job::Loaded => {
                self.log.loaded();
                self.reclaim();
            }
            Job::Close(answer) => {
                self.closed = true;
                self.closing = Some(answer);
            }
        }
    }

    /// Writes one batch and answers its senders. False where it failed.
    fn commit(&mut self) -> bool {
        if !self.stores.is_empty()
            && let Err(error) = self.log.room()
        {
            self.refuse_all(&error);
        }
        let (mut batch, receipts) = self.gather();
        let notes = batch.drafts.len() - receipts.len();
        self.add_copies(&mut batch);
        if batch.drafts.is_empty() {
            return true;
        }
        match self.log.append(&batch.drafts) {
            Ok(places) => {
                self.condition.works();
                self.settle(&batch.drafts, &places, notes, receipts);
                self.remove_doubtful();
                self.flush = (!self.notes.is_empty()).then(Instant::now);
                true
            }
            Err(failed) => {
                self.fail(batch, notes, receipts, &failed);
                false
            }
        }
    }

    /// Refuses the messages of the batch and keeps its notes.
    fn fail(&mut self, mut batch: Batch, notes: usize, receipts: Vec<Receipt>, failed: &Failed) {
        let error = &failed.error;
        events::spool_failed(&self.log.place(), &events::in_full(&error));
        self.condition.failed(error);
        for (draft, receipt) in batch.drafts[notes..].iter().zip(receipts) {
            if failed.trace == Trace::Doubtful && receipt.stored == Stored::InFile {
                self.doubtful.push(draft.id);
                let _ = receipt.answer.send(Err(error.clone()));
            } else {
                self.refuse(draft.id, receipt, error);
            }
        }
        for note in batch.drafts.drain(..notes).rev() {
            self.size += note.length();
            self.notes.push_front(note);
        }
        if self.notes.len() > self.many_notes {
            self.size -= self.notes.iter().map(Draft::length).sum::<usize>();
            notes::shorten(&mut self.notes);
            self.size += self.notes.iter().map(Draft::length).sum::<usize>();
            self.many_notes = NOTES.max(2 * self.notes.len());
        }
        self.copying.begin(Vec::new());
        self.flush = (!self.notes.is_empty()).then(|| Instant::now() + NOTES_WAIT);
    }

    /// Nothing that was refused comes back any longer.
    fn remove_doubtful(&mut self) {
        for id in std::mem::take(&mut self.doubtful) {
            if locked(&self.library.index).find(id).is_none() {
                self.library.large.remove(id);
            }
        }
    }

    /// Takes notes, then messages, as many as one batch may have.
    fn gather(&mut self) -> (Batch, Vec<Receipt>) {
        let limit = self.limit();
        let mut batch = Batch::default();
        while let Some(note) = self.notes.pop_front_if(|note| batch.admits(note, limit)) {
            batch.push(note);
        }
        let mut receipts = Vec::new();
        while let Some((draft, receipt)) = self.stores.pop_front_if(|(draft, _)| {
            // The first goes whatever its size, so that none can wait for ever.
            let limit = if receipts.is_empty() {
                self.log.largest_batch()
            } else {
                limit
            };
            batch.admits(draft, limit)
        }) {
            batch.push(draft);
            receipts.push(receipt);
        }
        self.size -= batch.size;
        (batch, receipts)
    }

    fn refuse_all(&mut self, error: &Error) {
        while let Some((draft, receipt)) = self.stores.pop_front() {
            self.size -= draft.length();
            self.refuse(draft.id, receipt, error);
        }
    }

    fn refuse(&self, id: SpoolId, receipt: Receipt, error: &Error) {
        if receipt.stored == Stored::InFile {
            self.library.large.remove(id);
        }
        let _ = receipt.answer.send(Err(error.clone()));
    }

    /// Adds old messages that are copied forward, as far as they fit.
    fn add_copies(&mut self, batch: &mut Batch) {
        while let Some(id) = self.copying.next() {
            match self.library.copy(id) {
                Ok(draft) if !batch.admits(&draft, self.log.largest_batch()) => return,
                Ok(draft) => {
                    batch.push(draft);
                    self.copying.read(id);
                }
                Err(Error::Unknown { .. }) => self.copying.read(id),
                Err(error) => {
                    events::spool_unreadable(id, &events::in_full(&error));
                    if self.copying.gives_up(id, &error, Instant::now()) {
                        let entry = locked(&self.library.index).remove(id);
                        entry.inspect(|entry| self.log.set_aside(entry.place));
                    }
                }
            }
        }
    }

    /// The batch is on disk: stored -> handed over and answered; finished -> its file removed.
    fn settle(&self, batch: &[Draft], places: &[Place], notes: usize, receipts: Vec<Receipt>) {
        for note in &batch[..notes] {
            if note.kind == Kind::Done && matches!(note.body, Body::InFile { .. }) {
                self.library.large.remove(note.id);
            }
        }
        let copies = notes + receipts.len();
        let mut answers = Vec::with_capacity(receipts.len());
        let mut index = locked(&self.library.index);
        for (draft, place) in batch.iter().zip(places).skip(copies) {
            index.relocate(draft.id, *place);
        }
        for ((draft, place), receipt) in batch.iter().zip(places).skip(notes).zip(receipts) {
            let recipients = receipt.envelope.recipients.len();
            let size = receipt.content.len() as u32;
            let state = receipt.state;
            let entry = Entry::new(*place, recipients, size, receipt.stored, state.clone());
            let held = entry.is_held();
            index.insert(draft.id, entry);
            let octets = footprint(&receipt.content, &receipt.envelope);
            let memory = Arc::clone(&self.memory).try_acquire_many_owned(octets);
            if !held && let Ok(memory) = memory {
                self.handover.offer(Arrival {
                    id: draft.id,
                    open: state.open(recipients),
                    envelope: receipt.envelope,
                    content: Some(receipt.content),
                    arrived: record::time(receipt.arrived),
                    due: record::time(state.due),
                    attempts: state.attempts,
                    held: false,
                    memory: Some(Arc::new(memory)),
                });
            } else {
                self.handover.offer_by_id([draft.id]);
            }
            answers.push((receipt.answer, receipt.room));
        }
        metrics::queue(index.len());
        drop(index);
        for (answer, room) in answers {
            drop(room);
            let _ = answer.send(Ok(()));
        }
    }
}

/// Also where its thread dies: whoever waits for arrivals has to learn that there will be none.
impl Drop for Committer {
    fn drop(&mut self) {
        self.handover.close();
    }
}

/// Records that are written and synced together.
#[derive(Default)]
struct Batch {
    drafts: Vec<Draft>,
    size: usize,
}

impl Batch {
    fn admits(&self, draft: &Draft, limit: usize) -> bool {
        self.drafts.is_empty() || self.size + draft.length() <= limit && self.drafts.len() < RECORDS
    }

    fn push(&mut self, draft: Draft) {
        self.size += draft.length();
        self.drafts.push(draft);
    }
}
