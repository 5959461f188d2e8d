//! Makes a record of a message and puts it in line, in the thread of whoever stores it: what can be
//! done there (JSON, checksum, a large message's file) is not left to the one committer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use bytesize::ByteSize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot;

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::Fate;
use crate::spool::Shared;
use crate::spool::committer::Job;
use crate::spool::committer::Receipt;
use crate::spool::entry::Stored;
use crate::spool::record;
use crate::spool::record::Body;
use crate::spool::record::Draft;
use crate::spool::record::Meta;
use crate::spool::record::State;
use crate::spool::record::micros;
use crate::telemetry::events;

/// Where a message comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// From a client, just now.
    New(Fate),
    /// From another spool, in which it arrived then and has come so far.
    Moved { arrived: u64, state: State },
}

/// A message on its way to the committer.
pub(super) struct Message {
    pub(super) id: SpoolId,
    pub(super) envelope: Envelope,
    pub(super) content: Content,
    pub(super) origin: Origin,
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
    pub(super) room: OwnedSemaphorePermit,
}

impl Shared {
    /// Writes the message to a file of its own, then puts it in line. Blocks on the disk.
    pub(super) fn store_large(&self, message: Message) -> Result<(), Error> {
        let large = &self.library.large;
        let path = large.path(message.id);
        let failed = |error| Error::append(path.clone(), error);
        let free = large.free_space().map_err(failed)?;
        if free < self.keep_free + message.content.len() as u64 {
            return Err(Error::Full {
                free: ByteSize(free),
                floor: ByteSize(self.keep_free),
            });
        }
        large.write(message.id, &message.content).map_err(|error| {
            events::spool_failed(&path, &error);
            let error = Error::append(path.clone(), error);
            self.condition.failed(&error);
            error
        })?;
        let id = message.id;
        self.enqueue(message, Stored::InFile)
            .inspect_err(|_| large.remove(id))
    }

    /// Makes a record of the message and puts it in line.
    pub(super) fn enqueue(&self, message: Message, stored: Stored) -> Result<(), Error> {
        let (arrived, state) = match message.origin {
            Origin::New(fate) => begin(fate),
            Origin::Moved { arrived, state } => (arrived, state),
        };
        let meta = Meta {
            envelope: Cow::Borrowed(&message.envelope),
            arrived,
            state: state.clone(),
        };
        let body = match stored {
            Stored::InLog => Body::Here(message.content.clone()),
            Stored::InFile => Body::InFile {
                length: message.content.len() as u32,
            },
        };
        let checksum = record::checksum(&message.content);
        let draft = Draft::accept(message.id, &meta, body, checksum);
        if draft.length() > self.largest {
            return Err(Error::TooLarge);
        }
        let receipt = Receipt {
            envelope: Arc::new(message.envelope),
            content: message.content,
            arrived,
            state,
            stored,
            answer: message.answer,
            room: message.room,
        };
        let job = Job::Store(draft, receipt);
        self.jobs.send(job).map_err(|_| Error::Closed)
    }
}

/// When a new message arrives, and its state.
fn begin(fate: Fate) -> (u64, State) {
    let arrived = micros(SystemTime::now());
    let held = match fate {
        Fate::Deliver => None,
        Fate::Hold(reason) => Some(reason),
    };
    let state = State {
        due: arrived,
        held,
        ..State::default()
    };
    (arrived, state)
}
