//! Finds a message by its id and reads it, whatever is written, moved or freed meanwhile.

use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::Semaphore;

use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::arrivals::Arrival;
use crate::spool::arrivals::Read;
use crate::spool::entry::Stored;
use crate::spool::index::Index;
use crate::spool::index::locked;
use crate::spool::large::Large;
use crate::spool::log::Kept;
use crate::spool::log::Part;
use crate::spool::log::Reader;
use crate::spool::record;
use crate::spool::record::Body;
use crate::spool::record::Draft;
use crate::spool::record::Meta;
use crate::spool::record::State;
use crate::telemetry::events;

/// The reading side of the spool.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) index: Mutex<Index>,
    pub(super) large: Large,
    reader: Arc<dyn Reader>,
}

impl Library {
    pub(super) fn new(index: Index, large: Large, reader: Arc<dyn Reader>) -> Library {
        Library {
            index: Mutex::new(index),
            large,
            reader,
        }
    }

    /// The whole message. Blocks on the disk.
    pub(super) fn load(&self, id: SpoolId) -> Result<Arrival, Error> {
        let (kept, state, stored) = self.find(id, Part::Whole)?;
        let content = match stored {
            Stored::InLog => kept.content.clone(),
            Stored::InFile => {
                let content = self.large.read(id, kept.body_checksum);
                content.map_err(|source| Error::read(self.large.path(id), source))?
            }
        };
        if content.is_none() {
            return Err(Error::Damaged { id });
        }
        let mut arrival = arrival(id, kept, &state);
        arrival.content = content;
        Ok(arrival)
    }

    /// The first of these messages, one at least and as many more as stay within `octets` and have room
    /// in `memory`. A large one comes without its content. Blocks on the disk.
    pub(super) fn load_some(
        &self,
        ids: Vec<SpoolId>,
        octets: usize,
        memory: &Arc<Semaphore>,
    ) -> Vec<Result<Arrival, Error>> {
        let (mut some, mut sum) = (Vec::with_capacity(ids.len()), 0);
        for id in ids {
            let (length, part) = match locked(&self.index).find(id) {
                Some(entry) if entry.stored() == Stored::InFile => (0, Part::Envelope),
                Some(entry) => (entry.place.length, Part::Whole),
                None => {
                    some.push(Err(Error::Unknown { id }));
                    continue;
                }
            };
            sum += length as usize;
            let share = Arc::clone(memory).try_acquire_many_owned(length).ok();
            if !some.is_empty() && (share.is_none() || sum > octets) {
                break;
            }
            some.push(self.find(id, part).map(|(kept, state, _)| {
                let content = kept.content.clone();
                Arrival {
                    content,
                    memory: share.map(Arc::new),
                    ..arrival(id, kept, &state)
                }
            }));
        }
        some
    }

    /// The message without its content. None where it is gone or damaged, its id where it cannot be
    /// read now; the latter two are reported. Blocks on the disk.
    pub(super) fn arrival(&self, id: SpoolId) -> Read {
        match self.find(id, Part::Envelope) {
            Ok((kept, state, _)) => Ok(Some(arrival(id, kept, &state))),
            Err(Error::Unknown { .. }) => Ok(None),
            Err(error) => {
                events::spool_unreadable(id, &events::in_full(&error));
                match error {
                    Error::Read { .. } => Err(id),
                    _ => Ok(None),
                }
            }
        }
    }

    /// The message as a record to be appended anew, with its state as it is now.
    pub(super) fn copy(&self, id: SpoolId) -> Result<Draft, Error> {
        let (kept, state, stored) = self.find(id, Part::Whole)?;
        let meta = Meta {
            envelope: std::borrow::Cow::Owned(kept.envelope),
            arrived: kept.arrived,
            state,
        };
        let body = match (stored, kept.content) {
            (Stored::InFile, _) => Body::InFile {
                length: kept.body_length,
            },
            (Stored::InLog, Some(content)) => Body::Here(content),
            (Stored::InLog, None) => Body::Nothing,
        };
        Ok(Draft::accept(id, &meta, body, kept.body_checksum))
    }

    /// Blocks on the disk.
    pub(super) fn find(&self, id: SpoolId, part: Part) -> Result<(Kept, State, Stored), Error> {
        loop {
            let Some(entry) = locked(&self.index).find(id) else {
                return Err(Error::Unknown { id });
            };
            let kept = self.reader.read(id, entry.place, part);
            if let Ok(Some(kept)) = kept {
                return Ok((kept, entry.state.clone(), entry.stored()));
            }
            // It may have been copied forward and its old place written over while we read.
            let place = locked(&self.index).find(id).map(|entry| entry.place);
            if place == Some(entry.place) {
                return Err(kept.map_or_else(
                    |source| Error::read(id.to_string().into(), source),
                    |_| Error::Damaged { id },
                ));
            }
        }
    }
}

fn arrival(id: SpoolId, kept: Kept, state: &State) -> Arrival {
    Arrival {
        id,
        open: state.open(kept.envelope.recipients.len()),
        envelope: Arc::new(kept.envelope),
        content: None,
        arrived: record::time(kept.arrived),
        due: record::time(state.due),
        attempts: state.attempts,
        held: state.held.is_some(),
        memory: None,
    }
}
