//! Hands messages to the scheduler: new ones from memory, the others by way of the disk.
//!
//! Bounded in memory: an arrival with its content waits here only as far as the budget allows, else
//! as its id alone, in twelve octets. So a scheduler that is slow or away stops nobody.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::PackedId;
use crate::mail::id::SpoolId;
use crate::spool::Library;

/// What is read from disk in one go.
const READ_AT_ONCE: usize = 64;
/// When a message that could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// What a message in memory takes beside its content, roughly, and what each of its recipients does.
const MESSAGE: usize = 1024;
const RECIPIENT: usize = 256;

/// A message to be delivered.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// What the message is called.
    pub id: SpoolId,
    /// With all recipients, also those that have a mark.
    pub envelope: Arc<Envelope>,
    /// None where it has to be loaded from disk (after a restart, or when memory is short).
    pub content: Option<Content>,
    /// When it was stored.
    pub arrived: SystemTime,
    /// When it is to be tried next.
    pub due: SystemTime,
    /// How often it was tried.
    pub attempts: u32,
    /// Indexes of the recipients that have no mark yet.
    pub open: Vec<usize>,
    /// Held messages are not delivered until released; then they arrive again.
    pub held: bool,
    /// The share that the content has of the memory for mail, given back when this is dropped.
    pub memory: Option<Arc<OwnedSemaphorePermit>>,
}

/// What a message takes in memory, in octets.
pub(super) fn footprint(content: &Content, envelope: &Envelope) -> u32 {
    let octets = content.len() + MESSAGE + RECIPIENT * envelope.recipients.len();
    u32::try_from(octets).unwrap_or(u32::MAX)
}

/// What has arrived and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Handover {
    queues: Mutex<Queues>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    in_memory: VecDeque<Arrival>,
    on_disk: VecDeque<PackedId>,
    closed: bool,
}

impl Handover {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn offer(&self, arrival: Arrival) {
        self.queues().in_memory.push_back(arrival);
        self.wake.notify_one();
    }

    pub(super) fn offer_by_id(&self, ids: impl IntoIterator<Item = SpoolId>) {
        self.queues()
            .on_disk
            .extend(ids.into_iter().map(PackedId::from));
        self.wake.notify_one();
    }

    /// What was left over, in the order in which it came.
    pub(super) fn offer_all(&self, ids: Vec<PackedId>) {
        let mut queues = self.queues();
        let newer = mem::replace(&mut queues.on_disk, ids.into());
        queues.on_disk.extend(newer);
        drop(queues);
        self.wake.notify_one();
    }

    /// Nothing more will be handed over.
    pub(super) fn close(&self) {
        self.queues().closed = true;
        self.wake.notify_one();
    }
}

/// What the scheduler takes: mail stored just now, and at the start what was left over.
#[derive(Debug)]
pub struct Arrivals {
    handover: Arc<Handover>,
    library: Arc<Library>,
    was_read: VecDeque<Arrival>,
    reading: Option<JoinHandle<Vec<Read>>>,
    /// What could not be read, and when it is tried again. It waits nowhere else.
    unread: VecDeque<(Instant, SpoolId)>,
    pub(super) again: Duration,
    turn: Turn,
}

/// A message that was read; None where it is gone, its id where it is to be tried again.
pub(super) type Read = Result<Option<Arrival>, SpoolId>;

/// Whose turn it is, where there are both: neither may keep the other waiting.
#[derive(Debug, Clone, Copy)]
enum Turn {
    InMemory,
    OnDisk,
}

/// What to do next.
enum Next {
    Hand(Box<Arrival>),
    Read(Vec<SpoolId>),
    Wait,
    End,
}

impl Arrivals {
    pub(super) fn new(handover: Arc<Handover>, library: Arc<Library>) -> Arrivals {
        Arrivals {
            handover,
            library,
            was_read: VecDeque::new(),
            reading: None,
            unread: VecDeque::new(),
            again: AGAIN,
            turn: Turn::InMemory,
        }
    }

    /// The next message; waits until there is one. None once the spool is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Arrival> {
        loop {
            // However much comes meanwhile.
            if self.reading.as_ref().is_some_and(JoinHandle::is_finished) {
                self.wait().await;
            }
            match self.step() {
                Next::Hand(arrival) => return Some(*arrival),
                Next::Read(ids) => self.read(ids),
                Next::Wait => self.wait().await,
                Next::End => return None,
            }
        }
    }

    /// The next message, where there is one without waiting.
    pub fn at_hand(&mut self) -> Option<Arrival> {
        match self.step() {
            Next::Hand(arrival) => Some(*arrival),
            Next::Read(ids) => {
                self.read(ids);
                None
            }
            Next::Wait | Next::End => None, // `next` says so again.
        }
    }

    /// Waits for what is being read, for something new, or until something is to be tried again.
    async fn wait(&mut self) {
        let woken = self.handover.wake.notified();
        let Some(reading) = &mut self.reading else {
            match self.unread.front() {
                // In time or not: there is something to do.
                Some((again, _)) => drop(timeout_at(*again, woken).await),
                None => woken.await,
            }
            return;
        };
        let read = tokio::select! {
            biased;
            read = reading => read.unwrap_or_default(),
            () = woken => return,
        };
        self.reading = None;
        let again = Instant::now() + self.again;
        for arrival in read {
            match arrival {
                Ok(arrival) => self.was_read.extend(arrival),
                Err(id) => self.unread.push_back((again, id)),
            }
        }
    }

    fn read(&mut self, ids: Vec<SpoolId>) {
        let library = Arc::clone(&self.library);
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let ids = ids.into_iter();
            ids.map(|id| library.arrival(id)).collect()
        }));
    }

    fn step(&mut self) -> Next {
        let mut queues = self.handover.queues();
        if queues.closed {
            return Next::End;
        }
        let now = Instant::now();
        while let Some((_, id)) = self.unread.pop_front_if(|(again, _)| *again <= now) {
            queues.on_disk.push_back(id.into());
        }
        let turn = self.turn;
        self.turn = match turn {
            Turn::InMemory => Turn::OnDisk,
            Turn::OnDisk => Turn::InMemory,
        };
        // New mail does not wait for the disk: it goes on while others are read.
        let may_read = self.reading.is_none() && !queues.on_disk.is_empty();
        let new = |queues: &mut Queues| queues.in_memory.pop_front();
        let ready = match turn {
            Turn::InMemory => new(&mut queues).or_else(|| self.was_read.pop_front()),
            Turn::OnDisk if !may_read || !self.was_read.is_empty() => {
                let read = self.was_read.pop_front();
                read.or_else(|| new(&mut queues))
            }
            Turn::OnDisk => None,
        };
        match ready {
            Some(arrival) => Next::Hand(Box::new(arrival)),
            None if !may_read => Next::Wait,
            None => {
                let count = queues.on_disk.len().min(READ_AT_ONCE);
                let ids = queues.on_disk.drain(..count).map(SpoolId::from).collect();
                // After a start there are as many as there are messages; later, few.
                let left = queues.on_disk.len();
                if queues.on_disk.capacity() > 4 * left + READ_AT_ONCE {
                    queues.on_disk.shrink_to(2 * left);
                }
                Next::Read(ids)
            }
        }
    }
}
